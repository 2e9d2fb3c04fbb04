-- name: list_columns
SELECT n.nspname AS schema,
       c.relname AS table_name,
       a.attname AS name,
       CASE WHEN t.typtype = 'd' THEN b.typname ELSE t.typname END AS type,
       NOT a.attnotnull AS nullable,
       coalesce(obj_description(c.oid, 'pg_class'), '') AS table_comment,
       coalesce(col_description(c.oid, a.attnum), '') AS comment,
       ARRAY(SELECT e.enumlabel FROM pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) AS labels
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_type AS b ON b.oid = t.typbasetype
WHERE n.nspname = ANY($1::text[])
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT c.relispartition
  AND a.attnum > 0
  AND NOT a.attisdropped
  AND has_schema_privilege(n.oid, 'USAGE')
  AND has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY array_position($1::text[], n.nspname::text), c.relname, a.attnum

-- name: list_keys
SELECT n.nspname AS schema,
       c.relname AS table_name,
       ARRAY(
           SELECT a.attname
           FROM unnest(k.conkey) WITH ORDINALITY AS u(attnum, place)
           JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.attnum
           ORDER BY u.place
       ) AS columns,
       coalesce(fn.nspname, '') AS target_schema,
       coalesce(fc.relname, '') AS target_table,
       ARRAY(
           SELECT a.attname
           FROM unnest(k.confkey) WITH ORDINALITY AS u(attnum, place)
           JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.attnum
           ORDER BY u.place
       ) AS targets
FROM pg_constraint AS k
JOIN pg_class AS c ON c.oid = k.conrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_class AS fc ON fc.oid = k.confrelid
LEFT JOIN pg_namespace AS fn ON fn.oid = fc.relnamespace
WHERE n.nspname = ANY($1::text[])
  AND k.contype IN ('p', 'f')
ORDER BY n.nspname, c.relname, k.contype DESC, k.conname
