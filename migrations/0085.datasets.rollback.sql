-- Rows of derived datasets that wait in quarantine go: `tally quarantine export` saves them first. What was added
-- to a user's table stays: `tally dataset remove` takes it away.
DROP FUNCTION imports.store_rows(text, bigint, bigint, integer);
DROP FUNCTION imports.try_rule(text);
DROP FUNCTION imports.input_error(text, text);
UPDATE imports.run SET rows_after = -1 WHERE rows_after IS NULL;
ALTER TABLE imports.run ALTER COLUMN rows_after SET NOT NULL;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT d.name FROM imports.dataset AS d
    LOOP
        EXECUTE format('DROP TABLE quarantine.%I', name);
    END LOOP;
END
$$;
DROP TABLE imports.dataset;
