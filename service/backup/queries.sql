-- name: read_moment
SELECT to_json(now()) #>> '{}' AS at

-- name: list_datasets_here
-- The derived datasets, what undoes them, and what their tables have here.
SELECT d.name, d.table_schema, d.table_name, d.undo, c.oid IS NOT NULL AS has_table,
       EXISTS (
           SELECT FROM pg_attribute AS a
           WHERE a.attrelid = c.oid AND a.attname = 'gone_at' AND NOT a.attisdropped
       ) AS has_mirror
FROM imports.dataset AS d
LEFT JOIN (pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace AND c.relkind IN ('r', 'p'))
    ON n.nspname = d.table_schema AND c.relname = d.table_name
ORDER BY d.name

-- name: count_dashboards
-- The dashboards that somebody made: migrations make `default`.
SELECT count(*) AS dashboards
FROM catalog.dashboard
WHERE id <> 'default'

-- name: set_undo
UPDATE imports.dataset
SET undo = $2
WHERE name = $1
