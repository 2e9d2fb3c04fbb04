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

-- name: list_schemas
-- Those of the named schemas that exist, in the given order.
SELECT named.name
FROM unnest($1::text[]) WITH ORDINALITY AS named (name, place)
JOIN pg_namespace AS n ON n.nspname = named.name
ORDER BY named.place;

-- name: list_broken_watches
-- Watched tables and partitions whose changes Tally would miss, with what is wrong.
WITH RECURSIVE ours AS (
    SELECT t.tgrelid, t.tgname::text AS name, t.tgenabled, (n.nspname, p.proname) = ('app', 'announce_change') AS right_function
    FROM pg_trigger AS t
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE NOT t.tgisinternal
        AND t.tgname IN ('tally_insert', 'tally_update', 'tally_delete', 'tally_truncate')
        AND t.tgrelid NOT IN (
            SELECT c.oid FROM pg_class AS c
            JOIN pg_namespace AS own ON own.oid = c.relnamespace
            WHERE own.nspname IN ('app', 'catalog', 'imports', 'quarantine')
        )
), watched AS (
    SELECT DISTINCT tgrelid AS root, tgrelid AS oid FROM ours
    UNION
    SELECT watched.root, i.inhrelid FROM watched JOIN pg_inherits AS i ON i.inhparent = watched.oid
)
SELECT DISTINCT ON (watched.oid)
       format('%I.%I', n.nspname, c.relname) AS name,
       CASE
           WHEN state.present < 4 THEN 'misses ' || (4 - state.present) || ' of its 4 triggers'
           WHEN state.wrong > 0 THEN 'has triggers that call another function'
           ELSE 'has disabled triggers'
       END AS wrong
FROM watched
JOIN pg_class AS c ON c.oid = watched.oid AND c.relkind IN ('r', 'p')
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT count(*) AS present,
           count(*) FILTER (WHERE NOT right_function) AS wrong,
           count(*) FILTER (WHERE tgenabled NOT IN ('O', 'A')) AS disabled
    FROM ours
    WHERE ours.tgrelid = watched.oid
) AS state
WHERE state.present < 4 OR state.wrong > 0 OR state.disabled > 0
ORDER BY watched.oid

-- name: read_server
SELECT pg_is_in_recovery() AS standby,
       extract(epoch FROM clock_timestamp())::float8 AS clock_s,
       coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0)::float8 AS lag_s,
       (SELECT system_identifier::text FROM pg_control_system()) AS system,
       current_database()::text AS database

-- name: read_powers
-- What a role may do beyond reading tables: attributes, and roles that it is a member of.
SELECT r.rolsuper AS superuser,
       array_remove(ARRAY[
           CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
           CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
           CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
           CASE WHEN r.rolreplication THEN 'REPLICATION' END
       ], NULL) AS attributes,
       ARRAY(
           SELECT other.rolname::text
           FROM pg_roles AS other
           WHERE other.oid <> r.oid AND pg_has_role(r.oid, other.oid, 'MEMBER')
           ORDER BY other.rolname
       ) AS memberships
FROM pg_roles AS r
WHERE r.rolname = $1::text

-- name: list_outside_objects
-- All that a DROP ... CASCADE of Tally's schemas might take along, except triggers that call Tally's function.
WITH outside AS (
    SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> ALL ($1::text[])
)
SELECT pg_describe_object('pg_class'::regclass, c.oid, 0) AS name
FROM pg_class AS c JOIN outside ON outside.oid = c.relnamespace
UNION ALL
SELECT pg_describe_object('pg_class'::regclass, c.oid, a.attnum)
FROM pg_class AS c JOIN outside ON outside.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT pg_describe_object('pg_constraint'::regclass, c.oid, 0)
FROM pg_constraint AS c JOIN outside ON outside.oid = c.connamespace
UNION ALL
SELECT pg_describe_object('pg_attrdef'::regclass, d.oid, 0)
FROM pg_attrdef AS d JOIN pg_class AS c ON c.oid = d.adrelid JOIN outside ON outside.oid = c.relnamespace
UNION ALL
SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0)
FROM pg_proc AS p JOIN outside ON outside.oid = p.pronamespace
UNION ALL
SELECT pg_describe_object('pg_type'::regclass, t.oid, 0)
FROM pg_type AS t JOIN outside ON outside.oid = t.typnamespace
UNION ALL
SELECT pg_describe_object('pg_policy'::regclass, p.oid, 0)
FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid JOIN outside ON outside.oid = c.relnamespace
UNION ALL
SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0)
FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = t.tgrelid
JOIN outside ON outside.oid = c.relnamespace
JOIN pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE NOT t.tgisinternal AND n.nspname <> 'app'

-- name: list_owner_grants
-- Rights of the current role that an administrator may have given for Tally alone, as their revocations.
WITH watched AS (
    SELECT DISTINCT t.tgrelid AS oid
    FROM pg_trigger AS t
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE (n.nspname, p.proname) = ('app', 'announce_change')
)
SELECT format('REVOKE TRIGGER ON TABLE %I.%I FROM %I', n.nspname, c.relname, current_user) AS statement
FROM watched
JOIN pg_class AS c ON c.oid = watched.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL aclexplode(c.relacl) AS a
WHERE a.grantee = quote_ident(current_user)::regrole AND a.privilege_type = 'TRIGGER' AND c.relowner <> a.grantee
UNION
SELECT format('REVOKE USAGE ON SCHEMA %I FROM %I', n.nspname, current_user)
FROM watched
JOIN pg_class AS c ON c.oid = watched.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
WHERE a.grantee = quote_ident(current_user)::regrole AND a.privilege_type = 'USAGE' AND n.nspowner <> a.grantee
UNION
SELECT format('REVOKE CREATE ON DATABASE %I FROM %I', d.datname, current_user)
FROM pg_database AS d
CROSS JOIN LATERAL aclexplode(d.datacl) AS a
WHERE d.datname = current_database()
    AND a.grantee = quote_ident(current_user)::regrole
    AND a.privilege_type = 'CREATE'
    AND d.datdba <> a.grantee
ORDER BY 1

-- name: read_installation
-- What `uninstall` would take away.
SELECT (SELECT count(*) FROM catalog.metric) AS metrics,
       (SELECT count(*) FROM imports.run) AS imports,
       (SELECT count(DISTINCT t.tgrelid)
        FROM pg_trigger AS t
        JOIN pg_proc AS p ON p.oid = t.tgfoid
        JOIN pg_namespace AS f ON f.oid = p.pronamespace
        JOIN pg_class AS c ON c.oid = t.tgrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE (f.nspname, p.proname) = ('app', 'announce_change') AND n.nspname <> ALL ($1::text[])) AS watched,
       (SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name ~ '^tally( |$)') AS sessions

-- name: read_signs
-- By what servers are known that speak Postgres and differ from it. $1: the data schemas.
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') AS citus,
       version() LIKE '%-YB-%' AS yugabyte,
       EXISTS (SELECT FROM pg_proc WHERE proname = 'aurora_version') AS aurora,
       EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser') AS rds,
       coalesce(current_setting('neon.tenant_id', true), '') <> '' AS neon,
       count(*) FILTER (WHERE c.relkind = 'f') AS foreign_tables,
       count(*) FILTER (WHERE c.relkind = 'm') AS materialized_views
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1::text[])
