DROP TRIGGER tally_insert ON quarantine.row;
DROP TRIGGER tally_update ON quarantine.row;
DROP TRIGGER tally_delete ON quarantine.row;
DROP TRIGGER tally_truncate ON quarantine.row;
DROP TRIGGER learn_channels_updated ON data.external_interactions;
DROP TRIGGER learn_channels_inserted ON data.external_interactions;
DROP FUNCTION app.learn_channels();
DROP STATISTICS data.external_interactions_month;
ALTER TABLE data.external_interactions
    DROP CONSTRAINT external_interactions_pkey,
    ADD CONSTRAINT external_interactions_pkey PRIMARY KEY (customer_id, date_start, interaction);
