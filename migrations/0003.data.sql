-- The business tables that stored SQL reads.

-- Recorded facts: each row has the columns of its kind, the others are null.
CREATE TABLE data.metrics (
    id text NOT NULL,
    date timestamp NOT NULL,
    obsolescence numeric,
    alert_type text,
    parts_flagged integer,
    obsolescence_val numeric,
    alert_category text
);

COMMENT ON TABLE data.metrics IS 'Recorded facts of parts and approvals';
COMMENT ON COLUMN data.metrics.id IS 'Id of the query the fact was recorded for';

CREATE INDEX metrics_id_date_idx ON data.metrics (id, date);
CREATE INDEX metrics_date_idx ON data.metrics (date);

CREATE TABLE data.customers (
    customer_id bigint CONSTRAINT customers_pkey PRIMARY KEY CONSTRAINT customers_customer_id_positive CHECK (customer_id > 0),
    occupation text,
    type text
);

COMMENT ON TABLE data.customers IS 'Customers as the business knows them';

CREATE TABLE data.external_interactions (
    date_start timestamp NOT NULL,
    interaction text NOT NULL,
    customer_id bigint NOT NULL CONSTRAINT external_interactions_customer_id_fkey REFERENCES data.customers,
    CONSTRAINT external_interactions_pkey PRIMARY KEY (customer_id, date_start, interaction)
);

COMMENT ON TABLE data.external_interactions IS 'When a customer was in touch, and by which channel';
COMMENT ON COLUMN data.external_interactions.interaction IS 'Channel: Email, Call, ...';

CREATE INDEX external_interactions_date_start_idx ON data.external_interactions (date_start);

CREATE TABLE data.products_of_discussion (
    month date NOT NULL CONSTRAINT products_of_discussion_month_first_day CHECK (extract(day FROM month) = 1),
    product text NOT NULL,
    CONSTRAINT products_of_discussion_pkey PRIMARY KEY (month, product)
);

COMMENT ON TABLE data.products_of_discussion IS 'Which product interactions of a calendar month were about';

DO $$
BEGIN
    PERFORM app.watch('data.metrics');
    PERFORM app.watch('data.customers');
    PERFORM app.watch('data.external_interactions');
    PERFORM app.watch('data.products_of_discussion');
END
$$;
