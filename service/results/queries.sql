-- name: list_relations
WITH RECURSIVE named AS (
    SELECT c.oid
    FROM unnest($1::text[], $2::text[]) AS asked (schema, name)
    JOIN pg_namespace AS n ON n.nspname = asked.schema
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = asked.name
), above AS (
    SELECT oid FROM named
    UNION
    SELECT i.inhparent FROM above JOIN pg_inherits AS i ON i.inhrelid = above.oid
), tree AS (
    SELECT oid FROM above
    UNION
    SELECT i.inhrelid FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.oid
)
SELECT format('%I.%I', n.nspname, c.relname) AS name,
       c.relkind::text AS kind,
       EXISTS (SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent)) AS inherits
FROM tree
JOIN pg_class AS c ON c.oid = tree.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY name

-- name: list_row_types
-- The row types that columns of the given relations use, as relations.
WITH RECURSIVE asked AS MATERIALIZED (
    SELECT c.oid
    FROM (SELECT parse_ident(name) AS parts FROM unnest($1::text[]) AS named (name)) AS given
    JOIN pg_namespace AS n ON n.nspname = given.parts[1]
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = given.parts[2]
), used AS (
    SELECT a.atttypid AS oid
    FROM asked
    JOIN pg_attribute AS a ON a.attrelid = asked.oid AND a.attnum > 0
    UNION
    SELECT further.oid
    FROM used
    JOIN pg_type AS t ON t.oid = used.oid
    CROSS JOIN LATERAL (
        SELECT unnest(ARRAY[t.typelem, t.typbasetype])
        UNION ALL
        SELECT rngsubtype FROM pg_range WHERE rngtypid = t.oid
        UNION ALL
        SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0
    ) AS further (oid)
    WHERE further.oid <> 0
)
SELECT format('%I.%I', n.nspname, c.relname) AS name
FROM used
JOIN pg_type AS t ON t.oid = used.oid
JOIN pg_class AS c ON c.oid = t.typrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace

-- name: list_table_fingerprints
WITH asked AS MATERIALIZED (
    -- Not to_regclass, which fails where the owner has no USAGE.
    SELECT given.name, c.oid, c.relname
    FROM (SELECT name, parse_ident(name) AS parts FROM unnest($1::text[]) AS named (name)) AS given
    LEFT JOIN (
        pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
    ) ON n.nspname = given.parts[1] AND c.relname = given.parts[2]
), asked_oids AS MATERIALIZED (
    SELECT array_agg(oid) AS oids FROM asked
), part (relation, version, id) AS (
    SELECT attrelid, xmin, attnum::bigint
    FROM pg_attribute
    WHERE attnum > 0 AND attrelid = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    SELECT adrelid, xmin, oid::bigint
    FROM pg_attrdef
    WHERE adrelid = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    SELECT conrelid, xmin, oid::bigint
    FROM pg_constraint
    WHERE conrelid = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    SELECT polrelid, xmin, oid::bigint
    FROM pg_policy
    WHERE polrelid = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    SELECT ev_class, xmin, oid::bigint
    FROM pg_rewrite
    WHERE ev_class = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    SELECT inhparent, xmin, inhrelid::bigint
    FROM pg_inherits
    WHERE inhparent = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    SELECT inhrelid, xmin, inhparent::bigint
    FROM pg_inherits
    WHERE inhrelid = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    SELECT ftrelid, xmin, 0
    FROM pg_foreign_table
    WHERE ftrelid = ANY ((SELECT oids FROM asked_oids)::oid[])
    UNION ALL
    -- The name may resolve to a relation of the same name in another schema of the search path.
    SELECT asked.oid, NULL, c.oid::bigint
    FROM asked
    JOIN pg_class AS c ON c.relname = asked.relname
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = ANY ($2::text[] || 'pg_catalog'::text)
), definition AS (
    -- A row's xmin is the transaction that wrote the row. VACUUM does not change xmin.
    SELECT relation, count(*), sum(hashint8extended(coalesce(version::text, '0')::bigint, id))
    FROM part
    GROUP BY relation
), announcing AS (
    SELECT t.tgrelid AS relation
    FROM pg_trigger AS t
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE t.tgrelid = ANY ((SELECT oids FROM asked_oids)::oid[])
        AND t.tgenabled IN ('O', 'A')
        AND t.tgargs = convert_to('tally_data', 'UTF8') || '\x00'
        AND (n.nspname, p.proname) = ('app', 'announce_change')
    GROUP BY t.tgrelid
    HAVING count(*) = 4
)
SELECT asked.name,
       concat_ws(
           ' ',
           c.oid,
           c.relkind,
           c.relrowsecurity,
           c.relforcerowsecurity,
           c.relowner,
           c.relacl,
           c.reloptions, -- a view's rights
           definition.count,
           definition.sum
       ) AS identity,
       c.relowner AS owner,
       coalesce(pg_relation_filenode(c.oid)::text, '') AS storage, -- no counter shows a TRUNCATE
       concat_ws(
           ' ',
           pg_stat_get_tuples_inserted(c.oid),
           pg_stat_get_tuples_updated(c.oid),
           pg_stat_get_tuples_deleted(c.oid)
       ) AS counters,
       announcing.relation IS NOT NULL AS announces
FROM asked
LEFT JOIN pg_class AS c ON c.oid = asked.oid
LEFT JOIN definition ON definition.relation = asked.oid
LEFT JOIN announcing ON announcing.relation = asked.oid

-- name: list_fingerprints
-- Fingerprints of everything that any statement may depend on, whatever tables it reads. Temporary schemas are
-- left out. A row's xmin is the transaction that wrote the row. VACUUM does not change xmin.
WITH RECURSIVE hidden AS MATERIALIZED (
    SELECT coalesce(array_agg(oid), '{}') AS oids FROM pg_namespace WHERE nspname ~ '^pg_(toast_)?temp_'
), role AS (
    -- The reader role, and the owners whose rights views and functions use.
    SELECT oid FROM pg_roles WHERE rolname = $1 OR oid = ANY ($2::oid[])
    UNION
    SELECT proowner FROM pg_proc WHERE prosecdef
    UNION
    SELECT m.roleid FROM role JOIN pg_auth_members AS m ON m.member = role.oid
), part (name, version, id) AS (
    SELECT 'functions', xmin, oid::bigint
    FROM pg_proc
    WHERE pronamespace <> ALL ((SELECT oids FROM hidden)::oid[])
    UNION ALL
    SELECT 'operators', xmin, oid::bigint
    FROM pg_operator
    WHERE oprnamespace <> ALL ((SELECT oids FROM hidden)::oid[])
    UNION ALL
    SELECT 'operators', xmin, oid::bigint FROM pg_amop
    UNION ALL
    SELECT 'operators', xmin, oid::bigint FROM pg_amproc
    UNION ALL
    SELECT 'operators', xmin, oid::bigint FROM pg_opclass
    UNION ALL
    SELECT 'casts', xmin, oid::bigint FROM pg_cast
    UNION ALL
    SELECT 'collations', xmin, oid::bigint FROM pg_collation
    UNION ALL
    -- Each table has a row type and an array type. They change with the table.
    SELECT 'types', xmin, oid::bigint
    FROM pg_type
    WHERE typtype <> 'c' AND typcategory <> 'A' AND typnamespace <> ALL ((SELECT oids FROM hidden)::oid[])
    UNION ALL
    SELECT 'types', xmin, oid::bigint FROM pg_constraint WHERE contypid > 0
    UNION ALL
    SELECT 'types', xmin, oid::bigint FROM pg_enum
    UNION ALL
    SELECT 'types', xmin, rngtypid::bigint FROM pg_range
    UNION ALL
    SELECT 'text search', xmin, oid::bigint FROM pg_ts_config
    UNION ALL
    SELECT 'text search', xmin, (mapcfg::bigint << 24) + (maptokentype << 8) + mapseqno FROM pg_ts_config_map
    UNION ALL
    SELECT 'text search', xmin, oid::bigint FROM pg_ts_dict
    UNION ALL
    SELECT 'languages', xmin, oid::bigint FROM pg_language
    UNION ALL
    SELECT 'servers', xmin, oid::bigint FROM pg_foreign_data_wrapper
    UNION ALL
    SELECT 'servers', xmin, oid::bigint FROM pg_foreign_server
    UNION ALL
    SELECT 'schemas', xmin, oid::bigint
    FROM pg_namespace
    WHERE oid <> ALL ((SELECT oids FROM hidden)::oid[])
)
SELECT name, concat_ws(' ', count(*), sum(hashint8extended(version::text::bigint, id))) AS value
FROM part
GROUP BY name
UNION ALL
SELECT concat('role ', r.oid),
       concat_ws(
           ' ',
           r.rolname,
           r.rolsuper,
           r.rolinherit,
           r.rolbypassrls,
           r.rolcanlogin,
           r.rolconnlimit,
           r.rolvaliduntil,
           r.rolvaliduntil <= now(),
           (
               SELECT string_agg(to_jsonb(m)::text, ' ' ORDER BY m.roleid, m.grantor)
               FROM pg_auth_members AS m
               WHERE m.member = r.oid
           )
       )
FROM role
JOIN pg_roles AS r ON r.oid = role.oid
UNION ALL
SELECT 'database',
       concat_ws(' ', d.datname, d.datdba, d.datacl, d.datallowconn, d.datconnlimit)
FROM pg_database AS d
WHERE d.datname = current_database()
UNION ALL
SELECT 'settings',
       concat_ws(
           ' ',
           pg_conf_load_time(),
           (
               SELECT string_agg(concat_ws(' ', s.setdatabase, s.setrole, s.setconfig), ',' ORDER BY 1)
               FROM (SELECT setdatabase, setrole, setconfig::text FROM pg_db_role_setting) AS s
               WHERE s.setrole IN (SELECT oid FROM pg_roles WHERE rolname = $1 UNION ALL SELECT 0)
                   AND s.setdatabase IN (
                       SELECT oid FROM pg_database WHERE datname = current_database() UNION ALL SELECT 0
                   )
           )
       )
