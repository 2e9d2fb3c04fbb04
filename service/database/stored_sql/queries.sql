-- name: is_running
-- Behind a pooler only the session's name identifies the backend. Without one the session has no own name.
SELECT EXISTS (
    SELECT
    FROM pg_stat_activity
    WHERE (pid = $1 OR application_name = $2) AND usename = current_user AND state = 'active'
) AS found

-- name: terminate
SELECT count(pg_terminate_backend(pid)) > 0 AS found
FROM pg_stat_activity
WHERE (pid = $1 OR application_name = $2) AND usename = current_user AND state = 'active'

-- name: list_type_names
SELECT coalesce(array_agg(format_type(oid, NULL) ORDER BY place), '{}') AS names
FROM unnest($1::oid[]) WITH ORDINALITY AS used (oid, place)

-- name: set_claims
SELECT pg_catalog.set_config('request.claims', $1, true) AS claims

-- name: read_seen
-- What the next statement of this session sees at least. `server` is as in `read_position`.
SELECT pg_catalog.pg_current_snapshot()::text AS snapshot,
       pg_catalog.concat_ws(
           ' ',
           (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
           extract(epoch FROM pg_catalog.pg_postmaster_start_time())
       ) AS server

-- name: read_standby
-- How far a standby has replayed. `missing` are those of the given transactions that it has not committed yet;
-- a number that it has not seen at all may not be asked for. Its snapshot does not tell who is running.
WITH now AS MATERIALIZED (
    SELECT pg_catalog.pg_snapshot_xmin(snapshot)::text::bigint AS xmin,
           pg_catalog.pg_snapshot_xmax(snapshot) AS xmax
    FROM pg_catalog.pg_current_snapshot() AS snapshot
)
SELECT pg_catalog.pg_is_in_recovery() AS standby,
       now.xmin,
       (pg_catalog.pg_last_wal_replay_lsn() - '0/0'::pg_catalog.pg_lsn)::bigint AS replayed,
       (
           SELECT count(*)
           FROM pg_catalog.unnest($1::text[]) AS asked (transaction)
           WHERE CASE
                   WHEN asked.transaction::pg_catalog.xid8 >= now.xmax THEN true
                   WHEN asked.transaction::pg_catalog.xid8 < now.xmin::text::pg_catalog.xid8 THEN false
                   ELSE pg_catalog.pg_xact_status(asked.transaction::pg_catalog.xid8) IS DISTINCT FROM 'committed'
               END
       ) AS missing
FROM now

-- name: read_standby_lineage
-- The timeline is that of the last restart point, so it may be behind, but never ahead.
SELECT s.system_identifier AS system, c.timeline_id AS timeline
FROM pg_catalog.pg_control_system() AS s
CROSS JOIN pg_catalog.pg_control_checkpoint() AS c

-- name: list_rules
-- Rules of the plan's tables, of the given views, and of all relations that they read. A policy counts even
-- before row security is enabled on its table: results computed until then are still cached.
WITH RECURSIVE rule AS (
    SELECT tableoid, oid, ev_class AS relation
    FROM pg_rewrite
    WHERE ev_type = '1'
    UNION ALL
    SELECT tableoid, oid, polrelid
    FROM pg_policy
    WHERE polcmd IN ('r', '*')
), reached AS (
    SELECT c.oid
    FROM unnest($1::text[], $2::text[]) AS found (schema, name)
    JOIN pg_namespace AS n ON n.nspname = found.schema
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = found.name
    UNION
    SELECT unnest($3::oid[])
    UNION
    SELECT further.oid
    FROM reached
    CROSS JOIN LATERAL (
        SELECT pg_partition_ancestors(reached.oid)::oid
        UNION ALL
        SELECT d.refobjid
        FROM rule
        JOIN pg_depend AS d ON d.classid = rule.tableoid AND d.objid = rule.oid
        WHERE rule.relation = reached.oid AND d.refclassid = 'pg_class'::regclass
    ) AS further (oid)
)
SELECT format('%I.%I', n.nspname, c.relname) AS relation,
       coalesce(pg_get_expr(p.polqual, p.polrelid), pg_get_viewdef(c.oid), '') AS text,
       EXISTS (
           SELECT
           FROM pg_depend AS d
           LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
           JOIN pg_proc AS f
               ON f.oid = CASE d.refclassid WHEN 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode END
           JOIN pg_language AS l ON l.oid = f.prolang
           WHERE d.classid = rule.tableoid AND d.objid = rule.oid AND l.lanname NOT IN ('internal', 'c')
       ) AS foreign
FROM reached
JOIN rule ON rule.relation = reached.oid
JOIN pg_class AS c ON c.oid = reached.oid AND c.relkind <> 'm'
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_policy AS p ON p.tableoid = rule.tableoid AND p.oid = rule.oid

-- name: list_named
-- The given relations, and all that the views among them read.
WITH RECURSIVE reached AS (
    SELECT unnest($1::oid[]) AS oid
    UNION
    SELECT d.refobjid
    FROM reached
    JOIN pg_class AS c ON c.oid = reached.oid AND c.relkind = 'v'
    JOIN pg_rewrite AS r ON r.ev_class = c.oid AND r.ev_type = '1'
    JOIN pg_depend AS d
        ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
)
SELECT n.nspname::text AS schema, c.relname::text AS name
FROM reached
JOIN pg_class AS c ON c.oid = reached.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace

-- name: list_own_names
-- Names as SQL must write them: without a schema for those on the search path. A plan shows an operator and a
-- cast without the function that they call. Functions in C, as in most extensions, do not read the claims.
SELECT relation,
       relation_kind AS kind,
       concat_ws(' ', CASE WHEN n.nspname <> ALL (current_schemas(false)) THEN n.nspname END, own.name) AS name,
       coalesce(l.lanname NOT IN ('internal', 'c'), false) AS opaque,
       function
FROM (
    SELECT NULL::oid AS relation,
           NULL::text AS relation_kind,
           proname AS name,
           pronamespace AS namespace,
           prolang AS language,
           oid AS function
    FROM pg_proc
    UNION ALL
    SELECT NULL, NULL, o.oprname, o.oprnamespace, f.prolang, f.oid
    FROM pg_operator AS o
    JOIN pg_proc AS f ON f.oid = o.oprcode
    UNION ALL
    SELECT NULL, NULL, format_type(c.casttarget, NULL), f.pronamespace, f.prolang, f.oid
    FROM pg_cast AS c
    JOIN pg_proc AS f ON f.oid = c.castfunc
    UNION ALL
    SELECT oid, relkind::text, relname, relnamespace, NULL, NULL
    FROM pg_class
    WHERE relkind IN ('v', 'r', 'p', 'm', 'f', 'c', 'S')
) AS own
JOIN pg_namespace AS n ON n.oid = own.namespace
LEFT JOIN pg_language AS l ON l.oid = own.language
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')

-- name: list_bodies
-- A function's body, the names of its types and, for an aggregate, the names of its functions.
SELECT concat_ws(
    ' ',
    CASE WHEN l.lanname NOT IN ('internal', 'c') THEN p.prosrc END, -- else prosrc is a symbol's name
    pg_get_function_sqlbody(p.oid),
    pg_get_function_result(p.oid),
    pg_get_function_arguments(p.oid),
    a.aggtransfn,
    a.aggfinalfn,
    a.aggmtransfn,
    a.aggmfinalfn
) AS text
FROM unnest($1::oid[]) AS asked (oid)
JOIN pg_proc AS p USING (oid)
JOIN pg_language AS l ON l.oid = p.prolang
LEFT JOIN pg_aggregate AS a ON a.aggfnoid = p.oid

-- name: find_varying
-- Whether a function of these names can differ from run to run.
SELECT
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.proname = ANY ($1::text[])
    AND p.provolatile <> 'i'
    -- These are STABLE only because of session settings. Every run has the same settings.
    AND NOT (
        n.nspname = 'pg_catalog'
        AND p.provolatile = 's'
        AND p.proname IN (
            'array_to_json', 'array_to_string', 'concat', 'concat_ws', 'current_setting', 'date', 'date_add',
            'date_part', 'date_subtract', 'date_trunc', 'extract', 'format', 'generate_series', 'interval',
            'json_agg', 'json_agg_strict', 'json_build_array', 'json_build_object', 'json_object_agg',
            'json_object_agg_strict', 'json_object_agg_unique', 'json_object_agg_unique_strict', 'jsonb_agg',
            'jsonb_agg_strict', 'jsonb_build_array', 'jsonb_build_object', 'jsonb_object_agg',
            'jsonb_object_agg_strict', 'jsonb_object_agg_unique', 'jsonb_object_agg_unique_strict',
            'jsonb_path_exists_tz', 'jsonb_path_query_tz', 'length', 'make_timestamptz', 'numeric',
            'overlaps', 'quote_literal', 'quote_nullable', 'row_to_json', 'text', 'time', 'timestamp',
            'timestamptz', 'timetz', 'timezone', 'to_char', 'to_date', 'to_json', 'to_jsonb', 'to_number',
            'to_timestamp', 'to_tsquery', 'to_tsvector', 'plainto_tsquery', 'websearch_to_tsquery'
        )
    )
LIMIT 1
