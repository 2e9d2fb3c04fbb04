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
