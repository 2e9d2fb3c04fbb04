-- Runs as the reader: tries to read and write each table and tells by notices what it could do.
-- EXPLAIN checks the rights as a run does, but touches no row, fires no trigger and works in READ ONLY.
DO $trial$
DECLARE
    item record;
    attempt text;
    allowed boolean;
BEGIN
    FOR item IN
        SELECT format('%I.%I', n.nspname, c.relname) AS name,
               n.nspname = ANY (string_to_array(current_setting('tally.schemas'), ',')) AS readable,
               c.relkind,
               has_table_privilege(c.oid, 'TRUNCATE, TRIGGER')
                   OR has_any_column_privilege(c.oid, 'INSERT, UPDATE') AS more,
               (SELECT quote_ident(a.attname)
                FROM pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                ORDER BY a.attidentity, a.attnum
                LIMIT 1) AS any_column
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
            AND n.nspname !~ '^pg_'
            AND n.nspname <> 'information_schema'
            AND NOT EXISTS (
                SELECT FROM pg_depend AS d
                WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
            )
        ORDER BY 1
    LOOP
        FOREACH attempt IN ARRAY ARRAY[
            'read SELECT FROM ' || item.name,
            'write DELETE FROM ' || item.name,
            'write INSERT INTO ' || item.name || ' DEFAULT VALUES',
            'write UPDATE ' || item.name || ' SET ' || item.any_column || ' = DEFAULT'
        ] LOOP
            CONTINUE WHEN attempt IS NULL OR (item.readable AND attempt LIKE 'read %');
            allowed := true;
            BEGIN
                EXECUTE 'EXPLAIN ' || substr(attempt, strpos(attempt, ' ') + 1);
            EXCEPTION WHEN OTHERS THEN
                allowed := false;
            END;
            IF allowed THEN
                RAISE NOTICE '%', split_part(attempt, ' ', 1) || ' ' || item.name;
            END IF;
        END LOOP;
        IF item.more AND item.relkind <> 'v' THEN
            RAISE NOTICE '%', 'write ' || item.name;
        END IF;
    END LOOP;
END
$trial$
