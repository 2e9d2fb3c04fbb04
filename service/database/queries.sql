-- name: list_schemas_in_the_way
-- Schemas of the names that Tally needs, which are not Tally's. An empty `app` may be made beforehand.
SELECT n.nspname::text AS name
FROM pg_namespace AS n
WHERE n.nspname IN ('app', 'catalog', 'data', 'imports', 'quarantine')
    AND NOT EXISTS (
        SELECT FROM pg_class AS c
        JOIN pg_namespace AS app ON app.oid = c.relnamespace
        WHERE (app.nspname, c.relname) = ('app', '_yoyo_migration')
    )
    AND (n.nspname <> 'app' OR EXISTS (SELECT FROM pg_depend AS d WHERE d.refobjid = n.oid))
ORDER BY n.nspname

-- name: read_owner_rights
-- Whether Tally's schemas exist or may be made here.
SELECT has_database_privilege(current_database(), 'CREATE')
    OR EXISTS (SELECT FROM pg_namespace WHERE nspname = 'catalog') AS may_create

-- name: list_reader_rights
-- Each right that a role has in this database, as the statement that revokes it.
WITH reader AS (
    SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = $1::text
)
SELECT statement
FROM (
    SELECT 1 AS place,
           format('REVOKE %s ON DATABASE %I FROM %s', a.privilege_type, d.datname, reader.name) AS statement
    FROM pg_database AS d
    CROSS JOIN LATERAL aclexplode(d.datacl) AS a
    JOIN reader ON reader.oid = a.grantee
    WHERE d.datname = current_database()
    UNION ALL
    SELECT 2, format('REVOKE %s ON SCHEMA %I FROM %s', a.privilege_type, n.nspname, reader.name)
    FROM pg_namespace AS n
    CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
    JOIN reader ON reader.oid = a.grantee
    UNION ALL
    SELECT 3,
           format('REVOKE %s ON %s %I.%I FROM %s', a.privilege_type,
                  CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, n.nspname, c.relname, reader.name)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL aclexplode(c.relacl) AS a
    JOIN reader ON reader.oid = a.grantee
    UNION ALL
    SELECT 4,
           format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s REVOKE SELECT ON TABLES FROM %s',
                  maker.rolname, ' IN SCHEMA ' || quote_ident(n.nspname), reader.name)
    FROM pg_default_acl AS d
    JOIN pg_roles AS maker ON maker.oid = d.defaclrole
    LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace
    CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a
    JOIN reader ON reader.oid = a.grantee
    WHERE d.defaclobjtype = 'r' AND a.privilege_type = 'SELECT'
    UNION ALL
    SELECT 5, format('ALTER ROLE %s IN DATABASE %I RESET %I', reader.name, current_database(), split_part(setting, '=', 1))
    FROM pg_db_role_setting AS s
    JOIN reader ON reader.oid = s.setrole
    JOIN pg_database AS d ON d.oid = s.setdatabase AND d.datname = current_database()
    CROSS JOIN LATERAL unnest(s.setconfig) AS setting
) AS held
ORDER BY place, statement

-- name: remember_reader
INSERT INTO app.reader (name, had)
VALUES ($1::text, $2::text[])
ON CONFLICT (name) DO NOTHING

-- name: list_readers
SELECT name, had
FROM app.reader
ORDER BY since, name

-- name: is_made_for_tally
SELECT EXISTS (
    SELECT FROM pg_shdescription AS d
    JOIN pg_roles AS r ON r.oid = d.objoid
    WHERE d.classoid = 'pg_authid'::regclass AND r.rolname = $1::text AND d.description = $2::text
) AS made

-- name: list_stored_columns
-- The columns of these tables (schema.table) that hold what was stored: not those that Postgres computes.
SELECT n.nspname || '.' || c.relname AS table_name,
       a.attname::text AS name,
       a.atttypid = 'jsonb'::regtype AS is_jsonb,
       a.attidentity <> '' AS is_identity,
       a.attnum = ANY (i.indkey) AS in_key
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
WHERE n.nspname || '.' || c.relname = ANY ($1::text[])
    AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY 1, array_position(i.indkey, a.attnum), a.attnum

-- name: write_exactly
-- Numbers and binary values are written with all their digits, whatever the database's own settings say.
SELECT set_config('extra_float_digits', '1', true) AS float_digits,
       set_config('bytea_output', 'hex', true) AS binary_form,
       set_config('timezone', 'UTC', true) AS zone

-- name: raise_identity
-- The next value of an identity column ($1: the table, $2: the column) follows the values that are there.
SELECT setval(pg_get_serial_sequence($1::text, $2::text), greatest($3::bigint, 1), $3::bigint > 0)::text AS last

-- name: read_position
-- The snapshot is that of this statement, so it was taken before the WAL position is read.
SELECT pg_catalog.pg_current_snapshot()::text AS snapshot,
       pg_catalog.concat_ws(
           ' ',
           (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
           extract(epoch FROM pg_catalog.pg_postmaster_start_time())
       ) AS server,
       extract(epoch FROM pg_catalog.clock_timestamp())::double precision AS clock,
       CASE
           WHEN $1 THEN (pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn)::bigint
       END AS wal

-- name: make_incarnation
INSERT INTO app.incarnation (secret) VALUES ($1) ON CONFLICT DO NOTHING

-- name: read_incarnation
SELECT secret FROM app.incarnation

-- name: read_lineage
-- The name of a WAL file begins with the timeline, in hexadecimal digits.
SELECT system_identifier AS system,
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer AS timeline
FROM pg_control_system()

-- name: has_migrations
SELECT to_regclass('app._yoyo_migration') IS NOT NULL AS found

-- name: list_applied
SELECT migration_id FROM app._yoyo_migration
