-- Tables of a user's own that files can be imported into. The contract is read from the table at each import.

CREATE TABLE imports.dataset (
    name text CONSTRAINT dataset_pkey PRIMARY KEY,
    -- The table by name: a table that is dropped and made again is the same dataset.
    table_schema text NOT NULL,
    table_name text NOT NULL,
    -- The columns of the natural key. Null: as the table declares it; empty: none, the rows are facts.
    key text[],
    -- Columns whose words keep one spelling.
    vocabulary text[] NOT NULL DEFAULT '{}',
    -- Statements that undo what was added to the table, in their order.
    undo text[] NOT NULL DEFAULT '{}',
    added_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT dataset_table_key UNIQUE (table_schema, table_name)
);

COMMENT ON TABLE imports.dataset IS 'Tables of a user that can be imported';

-- Null where other writers change the table too: then no count tells whether a file still stands.
ALTER TABLE imports.run ALTER COLUMN rows_after DROP NOT NULL;

-- What Postgres says against a value of a type, for types whose input functions may end the statement.
CREATE FUNCTION imports.input_error(value text, type text) RETURNS text
LANGUAGE plpgsql STRICT
AS $$
BEGIN
    RETURN (pg_catalog.pg_input_error_info(value, type)).message;
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) IN ('53', '57', '58', 'XX') THEN
        RAISE;
    END IF;
    RETURN SQLERRM;
END
$$;

-- Try a rule of a table in advance. A rule that cannot be evaluated here is left to the table itself.
CREATE FUNCTION imports.try_rule(statement text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE statement;
EXCEPTION WHEN OTHERS THEN
    IF left(SQLSTATE, 2) IN ('40', '53', '55', '57', '58', 'XX') THEN
        RAISE;
    END IF;
END
$$;

-- Store checked rows with a statement over row numbers $1 to $2: all at once, or, if the table refuses a row, in
-- ever smaller parts. A row that is refused alone gets the problem.
CREATE FUNCTION imports.store_rows(
    statement text, first bigint DEFAULT 0, last bigint DEFAULT 9223372036854775807, size integer DEFAULT 500
) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    stored bigint := 0;
    part record;
    state text;
    broken text;
    says text;
    detail text;
BEGIN
    BEGIN
        EXECUTE statement USING first, last;
        GET DIAGNOSTICS stored = ROW_COUNT;
        RETURN stored;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, broken = CONSTRAINT_NAME, says = MESSAGE_TEXT,
            detail = PG_EXCEPTION_DETAIL;
        IF left(state, 2) IN ('08', '25', '26', '28', '2D', '3B', '3D', '40', '53', '55', '57', '58', 'F0', 'XX') THEN
            RAISE;  -- the server's or the connection's fault, not the row's
        ELSIF left(state, 2) IN ('0A', '3F', '42') AND says NOT LIKE '%row-level security%' THEN
            -- A trigger that does not work, or a right that is missing.
            RAISE EXCEPTION USING ERRCODE = 'assert_failure', MESSAGE = 'the table refuses the import: ' || says;
        END IF;
    END;
    IF first = last THEN
        UPDATE pg_temp.checked AS c
        SET problem = -1,
            reason = CASE
                WHEN state = '23502' THEN 'missing-value'
                WHEN state = '23503' THEN 'orphan'
                WHEN state = '23505' THEN 'duplicate'
                WHEN state = '23514' THEN 'out-of-range'
                WHEN state IN ('22001', '54000') THEN 'too-large'
                WHEN state LIKE '22%' THEN 'wrong-type'
                ELSE 'conflict' END,
            message = concat_ws(': ', nullif(broken, ''), says,
                CASE WHEN state IN ('23503', '23505', '23P01') THEN detail END),
            waits_for = CASE WHEN state = '23503' THEN substring(detail FROM 'table "(.*)"') END,
            waits_key = CASE WHEN state = '23503' THEN substring(detail FROM '\)=\((.*)\) ') END
        WHERE c.nth = first;
        RETURN 0;
    END IF;
    IF size = 500 THEN  -- for the first time
        CREATE INDEX IF NOT EXISTS checked_nth ON pg_temp.checked (nth);
    END IF;
    FOR part IN
        SELECT min(c.nth) AS first, max(c.nth) AS last
        FROM (
            SELECT nth, (row_number() OVER (ORDER BY nth) - 1) / size AS part
            FROM pg_temp.checked WHERE problem IS NULL AND NOT repeated AND nth BETWEEN first AND last
        ) AS c
        GROUP BY c.part ORDER BY c.part
    LOOP
        stored := stored + imports.store_rows(
            statement, part.first, part.last, CASE size WHEN 500 THEN 20 ELSE 1 END
        );
    END LOOP;
    RETURN stored;
END
$$;
