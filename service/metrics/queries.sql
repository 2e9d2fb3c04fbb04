-- name: list_metrics
SELECT m.id,
       m.query_id,
       q.sql,
       q.trusted,
       m.title,
       m.is_editable,
       m.fresh_for_s,
       m.stale_for_s,
       m.parameters::text AS parameters,
       m."window",
       m.version,
       greatest(m.updated_at, q.updated_at) AS updated_at,
       m.refresh_every_s
FROM catalog.metric AS m
JOIN catalog.query AS q ON q.id = m.query_id
ORDER BY m.id

-- name: hold_metric
SELECT id
FROM catalog.metric
WHERE id = $1
FOR UPDATE

-- name: lock_metric
SELECT m.id,
       m.query_id,
       q.sql,
       q.trusted,
       m.title,
       m.is_editable,
       m.fresh_for_s,
       m.stale_for_s,
       m.parameters::text AS parameters,
       m."window",
       m.version,
       greatest(m.updated_at, q.updated_at) AS updated_at,
       m.refresh_every_s
FROM catalog.metric AS m
JOIN catalog.query AS q ON q.id = m.query_id
WHERE m.id = $1
FOR UPDATE

-- name: list_dashboards
SELECT id, title
FROM catalog.dashboard
ORDER BY id

-- name: list_layout_items
SELECT dashboard_id, metric_id, breakpoint, x, y, w, h, static
FROM catalog.layout_item
ORDER BY dashboard_id, breakpoint, y, x, metric_id

-- name: list_layout_items_of
SELECT dashboard_id, metric_id, breakpoint, x, y, w, h, static
FROM catalog.layout_item
WHERE metric_id = $1 AND dashboard_id = 'default'
ORDER BY breakpoint

-- name: list_functions
SELECT DISTINCT p.proname AS name
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = ANY($1)
  AND NOT EXISTS (
      SELECT FROM pg_proc AS c
      WHERE c.proname = p.proname AND c.pronamespace = 'pg_catalog'::regnamespace
  )

-- name: name_database
SELECT current_database()::text AS name

-- name: insert_query
INSERT INTO catalog.query (id, sql)
VALUES ($1, $2)

-- name: insert_metric
INSERT INTO catalog.metric
    (query_id, title, is_editable, fresh_for_s, stale_for_s, parameters, "window", refresh_every_s)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING id

-- name: insert_origin
INSERT INTO catalog.origin (metric_id, version, prompt, generator, author)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (metric_id, version) DO UPDATE
SET prompt = excluded.prompt, generator = excluded.generator, author = excluded.author, created_at = now()

-- name: update_metric
UPDATE catalog.metric
SET query_id = $2,
    title = $3,
    is_editable = $4,
    fresh_for_s = $5,
    stale_for_s = $6,
    parameters = $7,
    "window" = $8,
    refresh_every_s = $9
WHERE id = $1

-- name: update_query
UPDATE catalog.query
SET sql = $2,
    trusted = false
WHERE id = $1

-- name: trust_query
UPDATE catalog.query
SET trusted = $2
WHERE id = $1

-- name: put_trusted_query
INSERT INTO catalog.query (id, sql, trusted)
VALUES ($1, $2, true)
ON CONFLICT (id) DO UPDATE
SET sql = excluded.sql,
    trusted = true

-- name: count_metrics_of_query
SELECT count(*) AS n
FROM catalog.metric
WHERE query_id = $1

-- name: delete_metric
DELETE FROM catalog.metric
WHERE id = $1

-- name: delete_unused_query
DELETE FROM catalog.query AS q
WHERE q.id = $1 AND NOT EXISTS (SELECT FROM catalog.metric AS m WHERE m.query_id = q.id)

-- name: list_versions
SELECT version,
       title,
       sql,
       is_editable,
       fresh_for_s,
       stale_for_s,
       parameters::text AS parameters,
       "window",
       refresh_every_s,
       replaced_at
FROM catalog.metric_version
WHERE metric_id = $1
ORDER BY version DESC

-- name: delete_layout_items_of
DELETE FROM catalog.layout_item
WHERE metric_id = $1 AND dashboard_id = 'default'

-- name: lock_dashboard
SELECT id, title
FROM catalog.dashboard
WHERE id = $1
FOR UPDATE

-- name: insert_dashboard
INSERT INTO catalog.dashboard (id, title)
VALUES ($1, $2)
ON CONFLICT (id) DO NOTHING
RETURNING id, title

-- name: rename_dashboard
UPDATE catalog.dashboard
SET title = $2
WHERE id = $1
RETURNING id, title

-- name: delete_dashboard
DELETE FROM catalog.dashboard
WHERE id = $1
RETURNING id, title

-- name: list_layout_items_on
SELECT dashboard_id, metric_id, breakpoint, x, y, w, h, static
FROM catalog.layout_item
WHERE dashboard_id = $1

-- name: delete_layout_items
DELETE FROM catalog.layout_item
WHERE dashboard_id = $1

-- name: list_tiles
SELECT dashboard_id, metric_id, chart
FROM catalog.tile

-- name: read_tile
SELECT dashboard_id, metric_id, chart
FROM catalog.tile
WHERE dashboard_id = $1 AND metric_id = $2

-- name: put_tile
INSERT INTO catalog.tile (dashboard_id, metric_id, chart)
VALUES ($1, $2, $3)
ON CONFLICT (dashboard_id, metric_id) DO UPDATE
SET chart = excluded.chart

-- name: delete_tile
DELETE FROM catalog.tile
WHERE dashboard_id = $1 AND metric_id = $2

-- name: list_suspended
SELECT sql_hash, planning
FROM catalog.lingering
WHERE times >= 2

-- name: record_lingering
INSERT INTO catalog.lingering AS l (sql_hash, planning, metric_id)
VALUES ($1, $2, $3)
ON CONFLICT (sql_hash, planning) DO UPDATE
SET times = CASE WHEN l.times = 1 AND l.last_at < now() - interval '1 day' THEN 1 ELSE l.times + 1 END,
    metric_id = excluded.metric_id,
    last_at = now()
RETURNING times

-- name: forget_lingering
DELETE FROM catalog.lingering AS l
WHERE l.last_at < now() - interval '30 days'
  AND NOT EXISTS (SELECT FROM catalog.query AS q WHERE sha256(convert_to(q.sql, 'UTF8')) = l.sql_hash)

-- name: resume_metric
DELETE FROM catalog.lingering AS l
USING catalog.metric AS m
JOIN catalog.query AS q ON q.id = m.query_id
WHERE m.id = $1 AND l.sql_hash = sha256(convert_to(q.sql, 'UTF8'))

-- name: take_turn_to_add
SELECT pg_advisory_xact_lock(hashtextextended('tally add', 0))::text AS turn
