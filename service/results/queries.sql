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

-- name: list_functions
SELECT p.proname::text AS name
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.proname = ANY ($1::text[])
    AND p.provolatile <> 'i'
    -- STABLE only for the session's settings, which are the same for every run: no clock, no data.
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

-- name: list_marks
SELECT asked.name,
       concat_ws(
           ' ', c.oid, c.relrowsecurity, c.relforcerowsecurity, c.relowner, c.reloptions -- a view's rights
       ) AS identity,
       coalesce(pg_relation_filenode(c.oid)::text, '') AS storage, -- a TRUNCATE shows in no counter
       concat_ws(
           ' ',
           pg_stat_get_tuples_inserted(c.oid),
           pg_stat_get_tuples_updated(c.oid),
           pg_stat_get_tuples_deleted(c.oid)
       ) AS counters,
       (
           SELECT count(*) = 4
           FROM pg_trigger AS t
           JOIN pg_proc AS p ON p.oid = t.tgfoid
           JOIN pg_namespace AS n ON n.oid = p.pronamespace
           WHERE t.tgrelid = c.oid
               AND t.tgenabled IN ('O', 'A')
               AND t.tgargs = convert_to('tally_data', 'UTF8') || '\x00'
               AND (n.nspname, p.proname) = ('app', 'announce_change')
       ) AS announces
FROM unnest($1::text[]) AS asked (name)
LEFT JOIN pg_class AS c ON c.oid = to_regclass(asked.name)
