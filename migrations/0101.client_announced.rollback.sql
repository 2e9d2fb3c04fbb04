DROP TRIGGER tally_truncate ON app.api_client;
DROP TRIGGER tally_delete ON app.api_client;
DROP TRIGGER tally_update ON app.api_client;
DROP TRIGGER tally_insert ON app.api_client;
