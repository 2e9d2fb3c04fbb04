-- The five schemas, and how a table announces its changes.

CREATE SCHEMA catalog;
CREATE SCHEMA data;
CREATE SCHEMA IF NOT EXISTS app;

COMMENT ON SCHEMA catalog IS 'Queries, metrics, dashboards';
COMMENT ON SCHEMA data IS 'Business tables that stored SQL reads';
COMMENT ON SCHEMA app IS 'The service''s own records';

-- Tells listeners that rows of a table changed: '<schema>.<table> <transaction id>', once per transaction
-- (Postgres folds equal payloads), and never for a statement that touched no row. There is no counter row,
-- since every writer would queue on it. The trigger's argument is the channel.
CREATE FUNCTION app.announce_change() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
DECLARE
    touched boolean := true;
BEGIN
    IF TG_OP <> 'TRUNCATE' THEN
        SELECT EXISTS (SELECT FROM changed) INTO touched;
    END IF;
    IF touched THEN
        PERFORM pg_notify(TG_ARGV[0], format('%I.%I %s', TG_TABLE_SCHEMA, TG_TABLE_NAME, pg_current_xact_id()));
    END IF;
    RETURN NULL;
END
$$;

-- A statement trigger with a transition table takes one event, hence four triggers.
CREATE FUNCTION app.watch(watched regclass, channel text DEFAULT 'tally_data') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER tally_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change(%L)', watched, channel);
    EXECUTE format('CREATE OR REPLACE TRIGGER tally_update AFTER UPDATE ON %s REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change(%L)', watched, channel);
    EXECUTE format('CREATE OR REPLACE TRIGGER tally_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change(%L)', watched, channel);
    EXECUTE format('CREATE OR REPLACE TRIGGER tally_truncate AFTER TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change(%L)', watched, channel);
END
$$;
