DROP FUNCTION app.watch(regclass, text);
DROP FUNCTION app.announce_change();
DROP SCHEMA data;
DROP SCHEMA catalog;
-- app stays: it holds the list of applied migrations.
COMMENT ON SCHEMA app IS NULL;
