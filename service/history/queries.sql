-- name: put_series
-- Equal keys wait here for each other, so that two nodes never store one result twice.
INSERT INTO app.history_series (metric_id, key)
VALUES ($1, $2)
ON CONFLICT (metric_id, key) DO UPDATE SET asked_at = now()
RETURNING id

-- name: last_result
SELECT as_of, digest, version
FROM app.result_history
WHERE series_id = $1
ORDER BY id DESC
LIMIT 1

-- name: insert_result
INSERT INTO app.result_history
    (series_id, as_of, since, digest, version, row_count, truncated, left_out, size, body, causes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::json)

-- name: prune_results
-- Keep the last $2 results of a series, and of those what fits into $3 bytes.
DELETE FROM app.result_history AS h
USING (
    SELECT id,
           row_number() OVER newest_first AS nth,
           sum(coalesce(length(body), 0)) OVER newest_first AS passed
    FROM app.result_history
    WHERE series_id = $1
    WINDOW newest_first AS (ORDER BY id DESC)
) AS old
WHERE h.id = old.id AND (old.nth > $2::bigint OR old.passed > $3::bigint)

-- name: prune_series
-- Keep the defaults and the $2 other series of a metric that were asked for last.
DELETE FROM app.history_series
WHERE id IN (
    SELECT id
    FROM app.history_series
    WHERE metric_id = $1 AND key <> ''
    ORDER BY asked_at DESC, id DESC
    OFFSET $2::bigint
)

-- name: touch_series
UPDATE app.history_series AS s
SET asked_at = now()
FROM unnest($1::uuid[], $2::bytea[]) AS asked (metric_id, key)
WHERE s.metric_id = asked.metric_id AND s.key = asked.key AND s.asked_at < now() - interval '1 hour'

-- name: find_lost
SELECT id
FROM unnest($1::uuid[]) AS asked (id)
WHERE NOT EXISTS (SELECT FROM app.history_series AS s WHERE s.metric_id = asked.id)

-- name: forget_old
-- Results that another one has replaced more than $1 seconds ago, and series that nobody has asked for so long.
WITH unasked AS (
    DELETE FROM app.history_series WHERE key <> '' AND asked_at < now() - make_interval(secs => $1::bigint)
)
DELETE FROM app.result_history AS h
USING app.result_history AS later
WHERE later.series_id = h.series_id
  AND later.id > h.id
  AND later.created_at < now() - make_interval(secs => $1::bigint)

-- name: shrink
-- Keep the newest results that fit into $1 bytes together.
DELETE FROM app.result_history AS h
USING (
    SELECT id, sum(coalesce(length(body), 0)) OVER (ORDER BY id DESC) AS passed
    FROM app.result_history
) AS old
WHERE h.id = old.id AND old.passed > $1::bigint

-- name: find_series
SELECT id
FROM app.history_series
WHERE metric_id = $1 AND key = $2

-- name: list_results
SELECT id, as_of, since, version, row_count, truncated, left_out, size, body, causes::text AS causes
FROM app.result_history
WHERE series_id = $1 AND id < $2
ORDER BY id DESC
LIMIT $3

-- name: find_imports
-- Imports that wrote something. A run is stamped when its transaction begins, so look an hour further back.
SELECT r.id,
       r.dataset,
       r.source,
       r.rows_read,
       r.inserted,
       r.updated,
       r.gone,
       r.actor,
       r.finished_at AS at,
       r.xmin::text::bigint AS transaction,
       CASE WHEN d.name IS NULL THEN '' ELSE format('%I.%I', d.table_schema, d.table_name) END AS derived_table
FROM imports.run AS r
LEFT JOIN imports.dataset AS d ON d.name = r.dataset
WHERE r.finished_at > $1::timestamptz - interval '1 hour'
  AND (r.inserted + r.updated + r.gone > 0 OR r.released::text <> '{}')
ORDER BY r.finished_at DESC
LIMIT 200

-- name: find_authors
-- What the newest entries of the audit log say about these transactions.
SELECT actor, action, target, xmin::text::bigint AS transaction
FROM app.audit
WHERE id > (SELECT coalesce(max(id), 0) - 2000 FROM app.audit)
  AND xmin::text::bigint = ANY ($1::bigint[])
ORDER BY id

-- name: find_definition
SELECT actor, at
FROM app.audit
WHERE id > (SELECT coalesce(max(id), 0) - 2000 FROM app.audit)
  AND target = $1
  AND action LIKE 'metrics.%'
  AND at > $2
ORDER BY id DESC
LIMIT 1

-- name: find_migrations
SELECT migration_id AS id, applied_at_utc AT TIME ZONE 'UTC' AS at
FROM app._yoyo_migration
WHERE applied_at_utc AT TIME ZONE 'UTC' > $1
ORDER BY applied_at_utc, migration_id
