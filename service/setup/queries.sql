-- name: list_tables
-- Tables and views outside Postgres's and Tally's schemas; a partitioned table counts with its partitions.
WITH RECURSIVE root AS (
    SELECT c.oid, c.relkind
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND NOT c.relispartition
        AND c.relpersistence <> 't'
        AND n.nspname !~ '^pg_'
        AND n.nspname <> 'information_schema'
        AND n.nspname <> ALL ($1::text[])
        AND NOT EXISTS (
            SELECT FROM pg_depend AS d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        )
), tree AS (
    SELECT oid AS root, oid FROM root
    UNION
    SELECT tree.root, i.inhrelid FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.oid
), size AS (
    SELECT tree.root,
           sum(CASE
               WHEN m.relkind NOT IN ('r', 'm', 'f') THEN 0
               WHEN m.reltuples >= 0 THEN m.reltuples
               ELSE pg_stat_get_live_tuples(m.oid)
           END)::bigint AS estimate,
           coalesce(sum(CASE WHEN m.relkind IN ('r', 'm') THEN pg_total_relation_size(m.oid) END), 0)::bigint AS bytes,
           sum(pg_stat_get_tuples_inserted(m.oid) + pg_stat_get_tuples_updated(m.oid)
               + pg_stat_get_tuples_deleted(m.oid))::bigint AS writes,
           bool_and(m.relkind NOT IN ('r', 'p') OR (
               SELECT count(*) = 4
               FROM pg_trigger AS t
               JOIN pg_proc AS p ON p.oid = t.tgfoid
               JOIN pg_namespace AS app ON app.oid = p.pronamespace
               WHERE t.tgrelid = m.oid
                   AND t.tgenabled IN ('O', 'A')
                   AND (app.nspname, p.proname) = ('app', 'announce_change')
           )) AS watched,
           array_agg(format('%I.%I', n.nspname, m.relname) ORDER BY m.oid)
               FILTER (WHERE m.relkind IN ('r', 'p') AND NOT has_table_privilege(m.oid, 'TRIGGER')) AS closed
    FROM tree
    JOIN pg_class AS m ON m.oid = tree.oid
    JOIN pg_namespace AS n ON n.oid = m.relnamespace
    GROUP BY tree.root
)
SELECT n.nspname::text AS schema,
       c.relname::text AS name,
       c.relkind::text AS kind,
       size.estimate,
       size.bytes,
       size.writes,
       size.watched AND c.relkind IN ('r', 'p') AS watched,
       coalesce(size.closed, '{}') AS closed,
       has_schema_privilege(n.oid, 'USAGE') AS usable
FROM size
JOIN pg_class AS c ON c.oid = size.root
JOIN pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY n.nspname, c.relname

-- name: list_day_columns
-- Columns of a table that tell a day, the likeliest first: indexed, always filled, named like an event.
SELECT a.attname::text AS name
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE n.nspname = $1::text
    AND c.relname = $2::text
    AND a.attnum > 0
    AND NOT a.attisdropped
    AND coalesce(nullif(t.typbasetype, 0), t.oid) IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
ORDER BY CASE WHEN EXISTS (
             SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum
         ) THEN 4 ELSE 0 END
         + CASE WHEN a.attnotnull THEN 2 ELSE 0 END
         + CASE WHEN a.attname ~* '(creat|order|plac|occur|happen|record|event|book|sold|start|insert|^day$|^date|^time|^ts$)'
             THEN 3 ELSE 0 END
         - CASE WHEN a.attname ~* '(updat|modif|chang|delet|remov|expir|birth|due|valid|until|end)' THEN 8 ELSE 0 END DESC,
         a.attnum
LIMIT 1

-- name: find_first_metric
SELECT id, title
FROM catalog.metric
ORDER BY created_at, id
LIMIT 1
