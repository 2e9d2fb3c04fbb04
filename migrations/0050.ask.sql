-- Where a metric's SQL came from, and the words by which people ask for the business tables.

CREATE TABLE catalog.origin (
    metric_id uuid NOT NULL CONSTRAINT origin_metric_id_fkey REFERENCES catalog.metric ON DELETE CASCADE,
    -- The version of the metric that was written from this prompt.
    version integer NOT NULL,
    prompt text NOT NULL CONSTRAINT origin_prompt_length CHECK (length(prompt) BETWEEN 1 AND 2000),
    -- `rules` or `model:<name>`.
    generator text NOT NULL,
    author text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT origin_pkey PRIMARY KEY (metric_id, version)
);

COMMENT ON TABLE data.metrics IS 'Recorded facts of parts and approvals; synonyms: facts, recorded facts';
COMMENT ON COLUMN data.metrics.obsolescence IS
    'Cost that was avoided; synonyms: cost avoided, avoided cost, obsolescence cost, obsolescence cost avoided, avoided, savings';
COMMENT ON COLUMN data.metrics.alert_type IS 'How severe an alert is; synonyms: severity, alert severity';
COMMENT ON COLUMN data.metrics.parts_flagged IS 'Parts that were flagged; synonyms: flagged, flags';
COMMENT ON COLUMN data.metrics.alert_category IS
    'What became of an approval; synonyms: approval status, approval category; rows: approvals, decisions';
COMMENT ON TABLE data.customers IS 'Customers as the business knows them; synonyms: clients, buyers, people';
COMMENT ON COLUMN data.customers.occupation IS 'What the customer does; synonyms: job, profession, role';
COMMENT ON COLUMN data.customers.type IS 'What kind of business it is; synonyms: customer segment, segment, industry, sector';
COMMENT ON TABLE data.external_interactions IS
    'When a customer was in touch, and by which channel; synonyms: contacts, touchpoints, communications';
COMMENT ON COLUMN data.external_interactions.interaction IS
    'How they were in touch; synonyms: channel, channels, medium, interaction type, kind of interaction, contact channel';
COMMENT ON TABLE data.products_of_discussion IS
    'Which product interactions of a calendar month were about; synonyms: discussions, topics';
COMMENT ON COLUMN data.products_of_discussion.product IS 'synonyms: topic, topic of discussion';

-- What no one asks about: a comment that begins with `internal` hides a table or column from prompts.
COMMENT ON TABLE data.vocabulary IS 'internal: known words per list (channel, customer_type, ...), waiting rows included';
COMMENT ON COLUMN data.metrics.content_hash IS 'internal: tells a fact from its equals';
COMMENT ON COLUMN data.metrics.occurrence IS 'internal: tells a fact from its equals';
COMMENT ON COLUMN data.metrics.gone_at IS 'internal: when a mirroring import no longer had it';
COMMENT ON COLUMN data.customers.gone_at IS 'internal: when a mirroring import no longer had it';
COMMENT ON COLUMN data.external_interactions.gone_at IS 'internal: when a mirroring import no longer had it';
COMMENT ON COLUMN data.products_of_discussion.gone_at IS 'internal: when a mirroring import no longer had it';
