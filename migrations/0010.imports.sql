-- Imports: what was read, what was kept back, and how words are spelled.

CREATE SCHEMA imports;
CREATE SCHEMA quarantine;

COMMENT ON SCHEMA imports IS 'Runs of imports';
COMMENT ON SCHEMA quarantine IS 'Rows that broke their contract, whole, with the reason';

CREATE TABLE imports.run (
    -- Made from dataset, number and file, so that a repeated history gives equal ids.
    id uuid CONSTRAINT run_pkey PRIMARY KEY,
    dataset text NOT NULL,
    number bigint NOT NULL,
    source text NOT NULL,
    file_hash text NOT NULL,
    format text NOT NULL,
    encoding text NOT NULL,
    rows_read bigint NOT NULL,
    inserted bigint NOT NULL,
    updated bigint NOT NULL,
    unchanged bigint NOT NULL,
    quarantined bigint NOT NULL,
    gone bigint NOT NULL,
    reasons jsonb NOT NULL,
    released jsonb NOT NULL,
    notes jsonb NOT NULL,
    -- Rows of the table when the run ended: tells whether a remembered file still stands.
    rows_after bigint NOT NULL,
    actor text NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT run_dataset_number_key UNIQUE (dataset, number),
    CONSTRAINT run_reconciles CHECK (rows_read = inserted + updated + unchanged + quarantined)
);

CREATE INDEX run_dataset_file_hash_idx ON imports.run (dataset, file_hash);
CREATE INDEX run_finished_at_idx ON imports.run (finished_at, id);

CREATE TABLE quarantine.row (
    -- Made from dataset, source and raw content: the same row again is the same row.
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    -- What `raw` was before its first fix.
    original jsonb,
    -- The same row by column, as text.
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text NOT NULL DEFAULT 'open'
        CONSTRAINT row_status_known CHECK (status IN ('open', 'loaded', 'discarded')),
    -- The dataset and the key that an orphan waits for.
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    CONSTRAINT row_pkey PRIMARY KEY (id, dataset)
) PARTITION BY LIST (dataset);

CREATE INDEX row_open_idx ON quarantine.row (dataset, source) WHERE status = 'open';
CREATE INDEX row_waits_idx ON quarantine.row (waits_for, waits_key) WHERE status = 'open';
CREATE INDEX row_created_at_idx ON quarantine.row (created_at, id);

CREATE TABLE quarantine.queries PARTITION OF quarantine.row FOR VALUES IN ('queries');
CREATE TABLE quarantine.metrics PARTITION OF quarantine.row FOR VALUES IN ('metrics');
CREATE TABLE quarantine.layouts PARTITION OF quarantine.row FOR VALUES IN ('layouts');
CREATE TABLE quarantine.metric_records PARTITION OF quarantine.row FOR VALUES IN ('metric_records');
CREATE TABLE quarantine.customers PARTITION OF quarantine.row FOR VALUES IN ('customers');
CREATE TABLE quarantine.external_interactions PARTITION OF quarantine.row FOR VALUES IN ('external_interactions');
CREATE TABLE quarantine.products_of_discussion PARTITION OF quarantine.row
    FOR VALUES IN ('products_of_discussion');

-- Words that are compared without case and stored in one spelling, in the order of their first appearance.
CREATE TABLE data.vocabulary (
    list text NOT NULL,
    folded text NOT NULL,
    spelling text NOT NULL,
    position bigint NOT NULL,
    CONSTRAINT vocabulary_pkey PRIMARY KEY (list, folded)
);

COMMENT ON TABLE data.vocabulary IS 'Known words per list (channel, customer_type, ...), waiting rows included';

-- A fact has no key: its content and its occurrence tell it from its equals. Null where no import brought it.
ALTER TABLE data.metrics
    ADD COLUMN content_hash uuid,
    ADD COLUMN occurrence integer,
    ADD COLUMN gone_at timestamptz,
    ADD CONSTRAINT metrics_content_occurrence_key UNIQUE (content_hash, occurrence);

-- When a mirroring import no longer had the row; such rows are kept, and stored SQL does not see them.
ALTER TABLE data.customers ADD COLUMN gone_at timestamptz;
ALTER TABLE data.external_interactions ADD COLUMN gone_at timestamptz;
ALTER TABLE data.products_of_discussion ADD COLUMN gone_at timestamptz;

ALTER TABLE data.metrics ENABLE ROW LEVEL SECURITY;
ALTER TABLE data.customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE data.external_interactions ENABLE ROW LEVEL SECURITY;
ALTER TABLE data.products_of_discussion ENABLE ROW LEVEL SECURITY;

CREATE POLICY present ON data.metrics FOR SELECT USING (gone_at IS NULL);
CREATE POLICY present ON data.customers FOR SELECT USING (gone_at IS NULL);
CREATE POLICY present ON data.external_interactions FOR SELECT USING (gone_at IS NULL);
CREATE POLICY present ON data.products_of_discussion FOR SELECT USING (gone_at IS NULL);

DO $$
BEGIN
    PERFORM app.watch('data.vocabulary');
END
$$;
