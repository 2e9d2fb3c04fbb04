-- name: list_channels
SELECT spelling AS word, folded AS key
FROM data.vocabulary
WHERE list = 'channel'
ORDER BY position, folded

-- name: list_customer_types
SELECT DISTINCT type AS word, type AS key
FROM data.customers
WHERE type IS NOT NULL AND gone_at IS NULL
ORDER BY 1

-- name: list_products
SELECT DISTINCT product AS word, product AS key
FROM data.products_of_discussion
WHERE gone_at IS NULL
ORDER BY 1

-- name: count_by_customer
-- Serves one customer and pages of customers: ids from $1 to $2, at most $3 customers. With many channels the
-- page is smaller, so that it holds at most 100,000 numbers.
WITH known AS MATERIALIZED (
    SELECT folded, spelling, row_number() OVER (ORDER BY position, folded) AS place
    FROM data.vocabulary
    WHERE list = 'channel'
), size AS MATERIALIZED (
    SELECT least($3::bigint, 2 + 100000 / (1 + count(*))) AS page_size
    FROM known
)
SELECT c.customer_id, counted.channels, counted.counts, size.page_size
FROM size
CROSS JOIN (
    SELECT customer_id
    FROM data.customers
    WHERE customer_id BETWEEN $1 AND $2 AND gone_at IS NULL AND ($4::text IS NULL OR type = $4)
    ORDER BY customer_id
    LIMIT (SELECT page_size FROM size)
) AS c
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(known.spelling ORDER BY known.place), '{}') AS channels,
           coalesce(array_agg(coalesce(found.n, 0) ORDER BY known.place), '{}') AS counts
    FROM known
    LEFT JOIN (
        SELECT lower(g.interaction) AS folded, sum(g.n)::bigint AS n
        FROM (
            SELECT i.interaction, count(*) AS n
            FROM data.external_interactions AS i
            WHERE i.customer_id = c.customer_id
              AND i.gone_at IS NULL
              AND ($6::date IS NULL OR i.date_start >= $6)
              AND ($7::date IS NULL OR i.date_start < $7 + 1)
              AND ($8::text IS NULL OR date_trunc('month', i.date_start)::date = ANY (ARRAY(
                  SELECT p.month
                  FROM data.products_of_discussion AS p
                  WHERE p.product = $8 AND p.gone_at IS NULL
              )))
            GROUP BY i.interaction
        ) AS g
        GROUP BY 1
    ) AS found ON found.folded = known.folded AND ($5::text[] IS NULL OR found.folded = ANY ($5))
) AS counted
ORDER BY c.customer_id

-- name: count_totals
-- We count per month before we join products, so that the join has few rows. $1, $2 and $3 select the
-- dimensions: channel, type, product. Other dimensions are null, and Postgres drops their part of the plan.
WITH counted AS (
    SELECT CASE WHEN $1::boolean OR $5::text[] IS NOT NULL THEN i.interaction END AS channel,
           CASE WHEN $2::boolean THEN c.type END AS customer_type,
           CASE WHEN $3::boolean OR $8::text IS NOT NULL THEN date_trunc('month', i.date_start)::date END AS month,
           count(*) AS n
    FROM data.external_interactions AS i
    LEFT JOIN data.customers AS c ON c.customer_id = i.customer_id AND c.gone_at IS NULL
    WHERE i.gone_at IS NULL
      AND ($4::text IS NULL OR c.type = $4)
      AND ($6::date IS NULL OR i.date_start >= $6)
      AND ($7::date IS NULL OR i.date_start < $7 + 1)
    GROUP BY 1, 2, 3
)
SELECT CASE WHEN $1 THEN v.spelling END AS channel,
       counted.customer_type,
       CASE WHEN $3 THEN p.product END AS product,
       sum(counted.n)::bigint AS n
FROM counted
LEFT JOIN data.vocabulary AS v ON v.list = 'channel' AND v.folded = lower(counted.channel)
LEFT JOIN data.products_of_discussion AS p ON p.month = counted.month AND p.gone_at IS NULL
WHERE ($5 IS NULL OR v.folded = ANY ($5)) AND ($8 IS NULL OR p.product = $8)
GROUP BY 1, 2, 3
LIMIT $9

-- name: count_waiting
SELECT count(*) AS n
FROM quarantine.row
WHERE dataset = 'external_interactions' AND status = 'open' AND waits_for = 'customers' AND waits_key = $1

-- name: list_datasets
-- Counts the rows that stored SQL sees. A natural key is a primary key, so there are as many keys as rows.
-- Recorded facts have no key: we step through the index from one id to the next.
WITH RECURSIVE ids AS (
    (SELECT id FROM data.metrics WHERE gone_at IS NULL ORDER BY id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT m.id FROM data.metrics AS m WHERE m.id > ids.id AND m.gone_at IS NULL ORDER BY m.id LIMIT 1
    )
    FROM ids
    WHERE ids.id IS NOT NULL
), figures (dataset, rows, first_date, last_date, distinct_keys) AS (
    SELECT 'queries', count(*), NULL::date, NULL::date, count(*)
    FROM catalog.query
    UNION ALL
    SELECT 'metrics', count(*), NULL, NULL, count(*)
    FROM catalog.metric
    UNION ALL
    SELECT 'layouts', count(*), NULL, NULL, count(*)
    FROM catalog.layout_item
    UNION ALL
    SELECT 'metric_records', count(*), min(date)::date, max(date)::date, (SELECT count(id) FROM ids)
    FROM data.metrics
    WHERE gone_at IS NULL
    UNION ALL
    SELECT 'customers', count(*), NULL, NULL, count(*)
    FROM data.customers
    WHERE gone_at IS NULL
    UNION ALL
    SELECT 'external_interactions', count(*), min(date_start)::date, max(date_start)::date, count(*)
    FROM data.external_interactions
    WHERE gone_at IS NULL
    UNION ALL
    SELECT 'products_of_discussion', count(*), min(month), max(month), count(*)
    FROM data.products_of_discussion
    WHERE gone_at IS NULL
)
SELECT f.dataset,
       f.rows,
       f.first_date::text AS first_date,
       f.last_date::text AS last_date,
       f.distinct_keys,
       coalesce(w.n, 0) AS waiting_rows
FROM figures AS f
LEFT JOIN (
    SELECT q.dataset, count(*) AS n
    FROM quarantine.row AS q
    WHERE q.status = 'open'
    GROUP BY q.dataset
) AS w ON w.dataset = f.dataset
