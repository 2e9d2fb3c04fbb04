# ruff: noqa: E501 (SQL stands on one line)
"""SQL in the style of public dashboards: validation must allow every one of these as it stands.

Data only. Tables are of many businesses; validation reads texts and does not ask for them.
"""

import re

TEXTS = r"""
select date_trunc('day', created_at) as time, count(*) as value from orders where created_at between :start_date and :end_date group by 1 order by 1
SELECT date_trunc('week', created_at)::date AS week, status, COUNT(*) FROM tickets GROUP BY week, status ORDER BY week DESC, status
SELECT u.username, count(p.id) AS posts FROM users u LEFT JOIN posts p ON p.user_id = u.id AND p.created_at > CURRENT_DATE - INTERVAL '30 days' WHERE u.active GROUP BY u.username ORDER BY posts DESC NULLS LAST LIMIT 50
WITH t AS (SELECT CURRENT_DATE - INTERVAL '1 month' AS start, CURRENT_DATE AS "end") SELECT count(*) FROM topics, t WHERE created_at > t.start AND created_at < t."end"
SELECT lpad(extract(hour from created_at)::text, 2, '0') || ':00' AS hour, count(*) FROM visits GROUP BY 1 ORDER BY 1
SELECT lpad((extract(hour from d))::int::text, 2, '0') || ':' || lpad((extract(minute from d))::int::text, 2, '0') FROM t
SELECT rpad(name, 30, '.') || lpad(to_char(total, 'FM999G999'), 12) FROM (SELECT name, sum(amount) AS total FROM sales GROUP BY name) s
SELECT name, repeat('#', least(count(*)::int, 50)) AS bar FROM events GROUP BY name
SELECT name, repeat('█', LEAST(round(100.0 * n / max(n) OVER ())::int, 100)) AS chart FROM (SELECT name, count(*) n FROM e GROUP BY 1) x
SELECT repeat('  ', least(level, 20)) || title AS tree FROM pages ORDER BY path
SELECT repeat('-', 40) AS line UNION ALL SELECT 'total: ' || sum(x)::text FROM t
SELECT format('%s (%s%%)', category, round(100.0 * n / sum(n) OVER (), 1)) AS label, n FROM c
SELECT format('%-20s %10s', name, amount) FROM invoices
SELECT format('%1$s / %2$s (%1$s)', done, total) FROM progress
SELECT format('<a href="/t/%s">%s</a>' || E'\n', id, title) FROM topics
SELECT format('%s %s', first_name, last_name)::text AS customer FROM people
SELECT array_fill(0, ARRAY[24]) AS empty_hours
SELECT upper(left(name, 1)) || lower(substring(name from 2)) FROM people
SELECT replace(replace(replace(title, '_', ' '), '-', ' '), '  ', ' ') FROM pages
SELECT regexp_replace(url, '^https?://([^/]+).*$', '\1') AS host, count(*) FROM hits GROUP BY host ORDER BY 2 DESC LIMIT 20
SELECT translate(phone, '()- ', '') FROM people
SELECT split_part(email, '@', 2) AS domain, count(*) FROM users GROUP BY 1 HAVING count(*) > 1
SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) AS p95, percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms) FROM requests
SELECT count(*) FILTER (WHERE status = 'open') AS open, count(*) FILTER (WHERE status = 'closed') AS closed FROM issues
SELECT sum(CASE WHEN type = 'in' THEN amount ELSE -amount END) AS balance FROM ledger
SELECT day::date, coalesce(n, 0) AS n FROM generate_series(CURRENT_DATE - 29, CURRENT_DATE, '1 day') AS day LEFT JOIN (SELECT created_at::date AS d, count(*) AS n FROM orders GROUP BY 1) o ON o.d = day::date ORDER BY 1
SELECT day, sum(n) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) / 7.0 AS rolling FROM daily
SELECT *, lag(total) OVER (ORDER BY month) AS previous, round(100 * (total - lag(total) OVER w) / nullif(lag(total) OVER w, 0), 1) AS growth FROM monthly WINDOW w AS (ORDER BY month)
SELECT DISTINCT ON (device_id) device_id, value, time FROM readings ORDER BY device_id, time DESC
SELECT time_bucket, avg(value) FROM (SELECT date_bin('15 minutes', time, TIMESTAMP '2001-01-01') AS time_bucket, value FROM readings) r GROUP BY 1
SELECT to_timestamp(floor(extract(epoch from time) / 300) * 300) AS time, avg(value) FROM metrics GROUP BY 1 ORDER BY 1
SELECT extract(epoch from date_trunc('hour', created_at)) * 1000 AS time, count(*) FROM logs GROUP BY 1
SELECT to_char(created_at, 'YYYY-MM') AS month, count(DISTINCT user_id) AS mau FROM sessions GROUP BY 1 ORDER BY 1
SELECT date_part('isodow', created_at) AS dow, to_char(created_at, 'Dy') AS name, count(*) FROM orders GROUP BY 1, 2 ORDER BY 1
SELECT age(now(), created_at) AS age, id FROM tickets WHERE closed_at IS NULL
SELECT (now() AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Paris')::date AS today
SELECT now() AT LOCAL AS here
SELECT justify_hours(avg(closed_at - opened_at)) FROM tickets
SELECT width_bucket(price, 0, 100, 10) AS bucket, count(*) FROM products GROUP BY bucket ORDER BY bucket
SELECT ntile(4) OVER (ORDER BY spent) AS quartile, customer_id FROM customers
SELECT string_agg(tag, ', ' ORDER BY tag) FROM tags GROUP BY post_id
SELECT string_agg(DISTINCT name, E'\n' ORDER BY name) FROM products
SELECT array_to_string(array_agg(name ORDER BY name), ', ') FROM groups
SELECT jsonb_array_elements(data -> 'items') ->> 'sku' AS sku, count(*) FROM orders GROUP BY 1
SELECT data ->> 'country' AS country, (data #>> '{address,city}') AS city FROM people WHERE data ? 'country' AND data @> '{"active": true}'
SELECT key, value FROM settings, jsonb_each_text(payload) WHERE key LIKE 'plan%'
SELECT jsonb_object_agg(name, value) FROM flags
SELECT json_build_object('x', x, 'y', y) FROM points
SELECT json_object('id': id, 'name': name ABSENT ON NULL RETURNING jsonb) FROM people
SELECT json_value(payload, '$.price' RETURNING numeric DEFAULT 0 ON EMPTY NULL ON ERROR) AS price FROM events
SELECT json_query(payload, '$.items[*].id' WITH WRAPPER) FROM events
SELECT json_exists(payload, '$.items[*] ? (@.n > $least)' PASSING 3 AS least) FROM events
SELECT jt.* FROM events, JSON_TABLE(payload, '$.items[*]' COLUMNS (n FOR ORDINALITY, id int PATH '$.id', name text PATH '$.name' DEFAULT 'none' ON EMPTY)) AS jt
SELECT json_arrayagg(name ORDER BY name NULL ON NULL) FROM people
SELECT * FROM (VALUES ('a', 1), ('b', 2)) AS v (name, rank) ORDER BY rank
SELECT count(*) FROM a FULL OUTER JOIN b USING (id) WHERE a.id IS NULL OR b.id IS NULL
SELECT j.id, a.x, b.y FROM a JOIN b USING (id) AS j
SELECT * FROM ONLY (measurements) WHERE city_id = 3
SELECT * FROM customers c CROSS JOIN LATERAL (SELECT * FROM orders o WHERE o.customer_id = c.id ORDER BY placed_at DESC LIMIT 3) latest
WITH RECURSIVE tree AS (SELECT id, parent_id, name, 0 AS depth FROM nodes WHERE parent_id IS NULL UNION ALL SELECT n.id, n.parent_id, n.name, t.depth + 1 FROM nodes n JOIN tree t ON n.parent_id = t.id) SELECT * FROM tree
WITH cohort AS (SELECT user_id, date_trunc('month', min(created_at)) AS month FROM orders GROUP BY 1), activity AS (SELECT DISTINCT user_id, date_trunc('month', created_at) AS month FROM orders) SELECT c.month, extract(month from age(a.month, c.month)) AS n, count(*) FROM cohort c JOIN activity a USING (user_id) GROUP BY 1, 2
SELECT CASE WHEN score >= 9 THEN 'promoter' WHEN score >= 7 THEN 'passive' ELSE 'detractor' END AS kind, count(*) FROM answers GROUP BY 1
SELECT round(100.0 * count(*) FILTER (WHERE paid) / nullif(count(*), 0), 2) || '%' AS rate FROM invoices
SELECT coalesce(region, 'all') AS region, sum(amount) FROM sales GROUP BY ROLLUP (region)
SELECT region, product, sum(amount), grouping(region, product) FROM sales GROUP BY GROUPING SETS ((region), (product), ())
SELECT * FROM logs WHERE message ~* 'error|timeout' AND level IN ('warn', 'error') ORDER BY time DESC LIMIT 100
SELECT * FROM hosts WHERE ip <<= inet '10.0.0.0/8'
SELECT network FROM subnets WHERE network >>= inet '10.1.2.3'
SELECT * FROM bookings WHERE during && tsrange('2025-01-01', '2025-02-01') AND NOT isempty(during)
SELECT * FROM shops ORDER BY location <-> point '(1,2)' LIMIT 5
SELECT @ balance AS distance, @ (a - b) FROM accounts WHERE @ balance > 10
SELECT |/ variance AS deviation, ||/ volume, 2 ^ n, n % 2, n << 1, n # 3, ~ n FROM numbers
SELECT 1_000_000 AS goal, 0xFF AS mask, 0b1010 AS bits, 1_500.25 AS price
SELECT 'a long title that goes on '
 'over a line break' AS title
SELECT E'tab\there' || $$it's$$ || $q$ a 'quoted' text $q$ AS text
SELECT id FROM items ORDER BY price USING >, name USING <
SELECT count(*) AS count, max(date) AS date, min(time) AS time, sum(value) AS value FROM measurements
SELECT date, time, timestamp, value, name, type, status, level, key, text, source, action, year FROM events
SELECT interval FROM plans GROUP BY interval ORDER BY interval DESC
SELECT insert, delete, update, drop, alter, lock FROM audit_counts
SELECT t.user, t.order, t.group, t.select, t.from, t.end FROM legacy t
SELECT id AS select, name AS from, kind AS "where", n AS order FROM legacy
SELECT count(*) total, avg(x) mean, 1 level, 2 rank, id user FROM t
SELECT values FROM series
SELECT rank() OVER (PARTITION BY team ORDER BY points DESC) AS rank, * FROM standings
SELECT first_value(price) OVER w AS open, last_value(price) OVER w AS close, max(price) OVER w AS high FROM ticks WINDOW w AS (PARTITION BY symbol, day ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
SELECT cume_dist() OVER (ORDER BY latency), percent_rank() OVER (ORDER BY latency) FROM requests
SELECT corr(x, y), regr_slope(y, x), regr_intercept(y, x), stddev_pop(x) FROM samples
SELECT mode() WITHIN GROUP (ORDER BY browser) FROM visits
SELECT host, count(*) FROM hits GROUP BY host EXCEPT SELECT host, 0 FROM blocked
SELECT id FROM a INTERSECT SELECT id FROM b UNION SELECT id FROM c ORDER BY 1 OFFSET 10 LIMIT 10
SELECT * FROM t FETCH FIRST 10 ROWS WITH TIES
TABLE products ORDER BY name LIMIT 20
VALUES (1, 'one'), (2, 'two')
SELECT count(*) FROM metrics WHERE (:kind IS NULL OR alert_type = :kind)
SELECT count(*) FROM customers WHERE type = :from AND region = :to AND day >= :start
SELECT * FROM orders WHERE status = ANY (:statuses) AND total BETWEEN :least AND :most LIMIT :limit OFFSET :offset
SELECT * FROM orders WHERE (:search = '' OR name ILIKE '%' || :search || '%')
SELECT CASE WHEN :case = 1 THEN :then ELSE :else END AS chosen
SELECT hashtext(name) % 16 AS shard, hashtextextended(name, 0) FROM users
SELECT count(*) FROM raw WHERE NOT pg_input_is_valid(amount, 'numeric') OR NOT pg_input_is_valid(day, 'date')
SELECT md5(email), encode(sha256(email::bytea), 'hex') FROM users
SELECT pg_size_pretty(sum(bytes)::bigint) FROM files
SELECT count(*) FROM users WHERE email IS DISTINCT FROM lower(email)
SELECT name FROM products WHERE name SIMILAR TO '(A|B)%' AND name NOT LIKE '%\_%' ESCAPE '\'
SELECT trim(both ' ' from name), btrim(code, '-'), ltrim(code, '0'), overlay(code placing '***' from 3 for 3), position('x' in code) FROM products
SELECT to_tsvector('english', body) @@ websearch_to_tsquery('english', :words) FROM posts
SELECT ts_headline('english', body, plainto_tsquery('english', :words)) FROM posts
SELECT num_nulls(a, b, c), greatest(a, b), least(a, b), nullif(a, 0) FROM t
SELECT unnest(string_to_array(tags, ',')) AS tag, count(*) FROM posts GROUP BY 1
SELECT array_length(tags, 1), tags[1], tags[2:3], 'x' = ANY (tags), tags && ARRAY['a', 'b'] FROM posts
SELECT cardinality(array_remove(array_agg(DISTINCT x), NULL)) FROM t
SELECT make_date(y, m, 1), make_interval(days => n), date_trunc('month', now()) - interval '1 month' FROM t
SELECT EXTRACT(EPOCH FROM (ended_at - started_at)) / 60 AS minutes FROM runs
SELECT (created_at - interval '7 days')::date, created_at::time(0), created_at::timestamptz FROM t
SELECT round(avg(price)::numeric, 2)::float8, trunc(1.55, 1), ceil(x), floor(x), abs(x), sign(x), mod(x, 3) FROM p
SELECT id, row_number() OVER () AS "#" FROM t
SELECT 'https://example.org/t/' || t.id || '?x=' || u.id AS link, '$' || to_char(total, '999,999.00') AS money FROM t, u
SELECT id, name || ' -- ' || kind AS label /* a /* nested */ comment */ FROM t -- the end
SELECT lpad(rpad(code, 10), 20) FROM products
SELECT replace(lpad(n::text, 6), ' ', '0') FROM t
SELECT rpad('', 3, '*') || right(card, 4) FROM cards
SELECT lpad(id::text, 8, '0'), lpad(to_hex(id), 8, '0') FROM t
SELECT lpad(n::text, 10::int), rpad(name, (12)), repeat('ab', 1_000) FROM t
SELECT 'x'::char(3), code::character varying(200), n::bit(8), name::varchar FROM t
SELECT concat_ws(', ', city, zip, country), concat(a, b, VARIADIC ARRAY['x', 'y']) FROM t
SELECT count(*) FROM t TABLESAMPLE SYSTEM (10)
SELECT random() < 0.1, gen_random_uuid() FROM t
SELECT bool_or(failed), every(ok), bit_or(flags) FROM runs
SELECT * FROM crosstab_source WHERE (year, month) IN ((2024, 1), (2024, 2))
SELECT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id) AS buys FROM customers c
SELECT (SELECT count(*) FROM posts p WHERE p.user_id = u.id) AS posts, u.* FROM users u
SELECT max(x) - min(x) AS spread FROM (SELECT x FROM t WHERE x IS NOT NULL ORDER BY random() LIMIT 1000) s
SELECT p.name, coalesce(sum(oi.qty), 0) AS sold FROM products p LEFT JOIN (order_items oi JOIN orders o ON o.id = oi.order_id AND o.state <> 'void') ON oi.product_id = p.id GROUP BY p.id, p.name
SELECT x.d, y.n FROM (SELECT generate_series(0, 23) AS d) x LEFT JOIN LATERAL (SELECT count(*) AS n FROM hits WHERE extract(hour from at) = x.d) y ON true
SELECT regexp_matches(line, '(\d+)\s+(\w+)', 'g') FROM lines
SELECT (regexp_match(line, '(\d+)'))[1]::int AS number FROM lines
SELECT (c).name, (c).*, ROW(1, 'a') FROM customers c
SELECT count(*) FROM data.metrics m WHERE m.date >= date_trunc('month', CURRENT_DATE) AND m.date < date_trunc('month', CURRENT_DATE) + INTERVAL '1 month'
SELECT DATE(date) AS day, SUM(parts_flagged) FROM metrics WHERE date BETWEEN '2025-06-01' AND '2025-06-30' GROUP BY DATE(date) ORDER BY day;
SELECT CAST(value AS double precision), CAST(at AS timestamp with time zone), CAST(t AS time without time zone), x::numeric(10,2) FROM r
SELECT x IS JSON OBJECT, x IS NOT JSON, y IS NOT TRUE, z IS UNKNOWN, w ISNULL, v NOTNULL FROM t
SELECT 5 BETWEEN SYMMETRIC 9 AND 1, 'a' < ALL (ARRAY['b']), 3 <> ANY (VALUES (1), (2))
SELECT sum(x) FILTER (WHERE x > 0) OVER (PARTITION BY g ORDER BY d RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW EXCLUDE CURRENT ROW) FROM t
SELECT name COLLATE "C" FROM t ORDER BY name COLLATE "de_DE" NULLS FIRST
SELECT a.id FROM a NATURAL JOIN b CROSS JOIN c LEFT JOIN d ON d.a = a.id AND d.x > ALL (SELECT y FROM e)
SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b']) WITH ORDINALITY AS u (n, s, o)
SELECT date_trunc('hour', at) AS "time", host AS metric, avg(load) AS value FROM load WHERE at > now() - interval '6 hours' GROUP BY 1, 2 ORDER BY 1
SELECT sum(amount)::money AS total, sum(amount) / count(DISTINCT customer_id) AS "per customer" FROM orders WHERE NOT refunded
SELECT * FROM ROWS FROM (generate_series(1, 3), unnest(ARRAY['a', 'b'])) AS r (n, s)
"""

# A line that begins with a blank goes on with the text before it.
DASHBOARDS: list[str] = re.split(r"\n(?! )", TEXTS.strip())
