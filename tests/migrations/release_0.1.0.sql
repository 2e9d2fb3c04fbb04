-- A database of release 0.1.0: what its own commands and routes made of a few files, as pg_dump of Postgres 16
-- wrote it (--inserts --no-owner --no-privileges). Never edited: later releases must be able to upgrade it.
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA app;
COMMENT ON SCHEMA app IS 'The service''s own records';
CREATE SCHEMA catalog;
COMMENT ON SCHEMA catalog IS 'Queries, metrics, dashboards';
CREATE SCHEMA data;
COMMENT ON SCHEMA data IS 'Business tables that stored SQL reads';
CREATE SCHEMA imports;
COMMENT ON SCHEMA imports IS 'Runs of imports';
CREATE SCHEMA quarantine;
COMMENT ON SCHEMA quarantine IS 'Rows that broke their contract, whole, with the reason';
CREATE FUNCTION app.announce_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
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
CREATE FUNCTION app.grams(value text, shortest integer) RETURNS text[]
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (SELECT array_agg(DISTINCT substr(lower(grams.value), start.start, size.size)) AS array_agg FROM generate_series(grams.shortest, 3) size(size), LATERAL generate_series(1, ((char_length(lower(grams.value)) - size.size) + 1)) start(start));
CREATE FUNCTION app.learn_channels() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    INSERT INTO data.vocabulary (list, folded, spelling, position)
    SELECT 'channel',
           n.folded,
           n.spelling,
           coalesce((SELECT max(v.position) FROM data.vocabulary AS v WHERE v.list = 'channel'), 0)
               + row_number() OVER (ORDER BY n.row)
    FROM (
        SELECT DISTINCT ON (lower(w.interaction))
               lower(w.interaction) AS folded,
               w.interaction AS spelling,
               w.row
        FROM (
            SELECT r.interaction, min(r.row) AS row
            FROM (SELECT interaction, row_number() OVER () AS row FROM written) AS r
            GROUP BY r.interaction
        ) AS w
        ORDER BY lower(w.interaction), w.row
    ) AS n
    WHERE NOT EXISTS (
        SELECT FROM data.vocabulary AS v WHERE v.list = 'channel' AND v.folded = n.folded
    )
    ORDER BY n.folded -- one order for all writers, so that no two wait for each other
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE FUNCTION app.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = format('%I.%I only grows', TG_TABLE_SCHEMA, TG_TABLE_NAME);
END
$$;
CREATE FUNCTION app.watch(watched regclass, channel text DEFAULT 'tally_data'::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
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
CREATE FUNCTION catalog.keep_version() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    INSERT INTO catalog.metric_version
        (metric_id, version, title, sql, is_editable, fresh_for_s, stale_for_s, parameters)
    SELECT old.id, old.version, old.title, q.sql, old.is_editable, old.fresh_for_s, old.stale_for_s, old.parameters
    FROM catalog.query AS q
    WHERE q.id = old.query_id
      AND NOT EXISTS (
          SELECT FROM catalog.metric_version AS v WHERE v.metric_id = old.id AND v.replaced_at = now()
      );
    IF found THEN
        new.version := old.version + 1;
    END IF;
    new.updated_at := now();
    RETURN new;
END
$$;
CREATE FUNCTION catalog.touch_metrics() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog'
    AS $$
BEGIN
    UPDATE catalog.metric SET updated_at = clock_timestamp() WHERE query_id = old.id;
    new.updated_at := now();
    RETURN new;
END
$$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE app._yoyo_log (
    id character varying(36) NOT NULL,
    migration_hash character varying(64),
    migration_id character varying(255),
    operation character varying(10),
    username character varying(255),
    hostname character varying(255),
    comment character varying(255),
    created_at_utc timestamp without time zone
);
CREATE TABLE app._yoyo_migration (
    migration_hash character varying(64) NOT NULL,
    migration_id character varying(255),
    applied_at_utc timestamp without time zone
);
CREATE TABLE app._yoyo_version (
    version integer NOT NULL,
    installed_at_utc timestamp without time zone
);
CREATE TABLE app.api_client (
    id text NOT NULL,
    secret_hash text NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    revoked_at timestamp with time zone,
    CONSTRAINT api_client_id_form CHECK ((id ~ '^[A-Za-z0-9._~@/-]{1,128}$'::text)),
    CONSTRAINT api_client_scopes_some CHECK ((cardinality(scopes) > 0)),
    CONSTRAINT api_client_secret_hash_form CHECK ((secret_hash ~ '^([0-9a-f]{64}|\$argon2id\$[!-~]+)$'::text))
);
CREATE TABLE app.audit (
    id bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    request_id text,
    before_hash text,
    after_hash text
);
ALTER TABLE app.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME app.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE app.item (
    id bigint NOT NULL,
    title text NOT NULL,
    description text,
    external_data jsonb,
    external_data_size integer GENERATED ALWAYS AS (COALESCE(octet_length((external_data)::text), 0)) STORED NOT NULL,
    summary text,
    summary_generator text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT item_description_length CHECK ((char_length(description) <= 10000)),
    CONSTRAINT item_external_data_object CHECK ((jsonb_typeof(external_data) = 'object'::text)),
    CONSTRAINT item_summary_generator_known CHECK (((summary IS NULL) = (summary_generator IS NULL))),
    CONSTRAINT item_title_length CHECK (((char_length(title) >= 1) AND (char_length(title) <= 255))),
    CONSTRAINT item_title_not_blank CHECK ((btrim(title) <> ''::text))
);
ALTER TABLE app.item ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME app.item_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE app.yoyo_lock (
    locked integer DEFAULT 1 NOT NULL,
    ctime timestamp without time zone,
    pid integer NOT NULL
);
CREATE TABLE catalog.dashboard (
    id text NOT NULL,
    title text,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE catalog.layout_item (
    dashboard_id text NOT NULL,
    metric_id uuid NOT NULL,
    breakpoint text NOT NULL,
    x integer NOT NULL,
    y integer NOT NULL,
    w integer NOT NULL,
    h integer NOT NULL,
    static boolean DEFAULT false NOT NULL,
    CONSTRAINT layout_item_breakpoint_length CHECK (((length(breakpoint) >= 1) AND (length(breakpoint) <= 20))),
    CONSTRAINT layout_item_h_range CHECK ((h > 0)),
    CONSTRAINT layout_item_w_range CHECK ((w > 0)),
    CONSTRAINT layout_item_x_range CHECK ((x >= 0)),
    CONSTRAINT layout_item_y_range CHECK ((y >= 0))
);
CREATE TABLE catalog.metric (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    query_id text NOT NULL,
    title text,
    is_editable boolean DEFAULT true NOT NULL,
    fresh_for_s integer,
    stale_for_s integer,
    parameters jsonb DEFAULT '{}'::jsonb NOT NULL,
    version integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT metric_fresh_for_positive CHECK ((fresh_for_s >= 0)),
    CONSTRAINT metric_parameters_object CHECK ((jsonb_typeof(parameters) = 'object'::text)),
    CONSTRAINT metric_stale_for_positive CHECK ((stale_for_s >= 0)),
    CONSTRAINT metric_title_length CHECK (((length(title) >= 1) AND (length(title) <= 255)))
);
CREATE TABLE catalog.metric_version (
    metric_id uuid NOT NULL,
    version integer NOT NULL,
    title text,
    sql text NOT NULL,
    is_editable boolean NOT NULL,
    fresh_for_s integer,
    stale_for_s integer,
    parameters jsonb NOT NULL,
    replaced_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE catalog.origin (
    metric_id uuid NOT NULL,
    version integer NOT NULL,
    prompt text NOT NULL,
    generator text NOT NULL,
    author text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT origin_prompt_length CHECK (((length(prompt) >= 1) AND (length(prompt) <= 2000)))
);
CREATE TABLE catalog.query (
    id text NOT NULL,
    sql text NOT NULL,
    trusted boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT query_id_length CHECK (((length(id) >= 1) AND (length(id) <= 200)))
);
CREATE TABLE data.customers (
    customer_id bigint NOT NULL,
    occupation text,
    type text,
    gone_at timestamp with time zone,
    CONSTRAINT customers_customer_id_positive CHECK ((customer_id > 0))
);
COMMENT ON TABLE data.customers IS 'Customers as the business knows them; synonyms: clients, buyers, people';
COMMENT ON COLUMN data.customers.occupation IS 'What the customer does; synonyms: job, profession, role';
COMMENT ON COLUMN data.customers.type IS 'What kind of business it is; synonyms: customer segment, segment, industry, sector';
COMMENT ON COLUMN data.customers.gone_at IS 'internal: when a mirroring import no longer had it';
CREATE TABLE data.external_interactions (
    date_start timestamp without time zone NOT NULL,
    interaction text NOT NULL,
    customer_id bigint NOT NULL,
    gone_at timestamp with time zone
);
COMMENT ON TABLE data.external_interactions IS 'When a customer was in touch, and by which channel; synonyms: contacts, touchpoints, communications';
COMMENT ON COLUMN data.external_interactions.interaction IS 'How they were in touch; synonyms: channel, channels, medium, interaction type, kind of interaction, contact channel';
COMMENT ON COLUMN data.external_interactions.gone_at IS 'internal: when a mirroring import no longer had it';
CREATE TABLE data.metrics (
    id text NOT NULL,
    date timestamp without time zone NOT NULL,
    obsolescence numeric,
    alert_type text,
    parts_flagged integer,
    obsolescence_val numeric,
    alert_category text,
    content_hash uuid,
    occurrence integer,
    gone_at timestamp with time zone
);
COMMENT ON TABLE data.metrics IS 'Recorded facts of parts and approvals; synonyms: facts, recorded facts';
COMMENT ON COLUMN data.metrics.id IS 'Id of the query the fact was recorded for';
COMMENT ON COLUMN data.metrics.obsolescence IS 'Cost that was avoided; synonyms: cost avoided, avoided cost, obsolescence cost, obsolescence cost avoided, avoided, savings';
COMMENT ON COLUMN data.metrics.alert_type IS 'How severe an alert is; synonyms: severity, alert severity';
COMMENT ON COLUMN data.metrics.parts_flagged IS 'Parts that were flagged; synonyms: flagged, flags';
COMMENT ON COLUMN data.metrics.alert_category IS 'What became of an approval; synonyms: approval status, approval category; rows: approvals, decisions';
COMMENT ON COLUMN data.metrics.content_hash IS 'internal: tells a fact from its equals';
COMMENT ON COLUMN data.metrics.occurrence IS 'internal: tells a fact from its equals';
COMMENT ON COLUMN data.metrics.gone_at IS 'internal: when a mirroring import no longer had it';
CREATE TABLE data.products_of_discussion (
    month date NOT NULL,
    product text NOT NULL,
    gone_at timestamp with time zone,
    CONSTRAINT products_of_discussion_month_first_day CHECK ((EXTRACT(day FROM month) = (1)::numeric))
);
COMMENT ON TABLE data.products_of_discussion IS 'Which product interactions of a calendar month were about; synonyms: discussions, topics';
COMMENT ON COLUMN data.products_of_discussion.product IS 'synonyms: topic, topic of discussion';
COMMENT ON COLUMN data.products_of_discussion.gone_at IS 'internal: when a mirroring import no longer had it';
CREATE TABLE data.vocabulary (
    list text NOT NULL,
    folded text NOT NULL,
    spelling text NOT NULL,
    "position" bigint NOT NULL
);
COMMENT ON TABLE data.vocabulary IS 'internal: known words per list (channel, customer_type, ...), waiting rows included';
CREATE TABLE imports.run (
    id uuid NOT NULL,
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
    rows_after bigint NOT NULL,
    actor text NOT NULL,
    finished_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT run_reconciles CHECK ((rows_read = (((inserted + updated) + unchanged) + quarantined)))
);
CREATE TABLE quarantine."row" (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
)
PARTITION BY LIST (dataset);
CREATE TABLE quarantine.customers (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
);
CREATE TABLE quarantine.external_interactions (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
);
CREATE TABLE quarantine.layouts (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
);
CREATE TABLE quarantine.metric_records (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
);
CREATE TABLE quarantine.metrics (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
);
CREATE TABLE quarantine.products_of_discussion (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
);
CREATE TABLE quarantine.queries (
    id uuid NOT NULL,
    dataset text NOT NULL,
    source text NOT NULL,
    line bigint NOT NULL,
    raw jsonb NOT NULL,
    original jsonb,
    cells jsonb NOT NULL,
    reason text NOT NULL,
    message text NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    waits_for text,
    waits_key text,
    import_id uuid NOT NULL,
    import_number bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    closed_at timestamp with time zone,
    CONSTRAINT row_status_known CHECK ((status = ANY (ARRAY['open'::text, 'loaded'::text, 'discarded'::text])))
);
ALTER TABLE ONLY quarantine."row" ATTACH PARTITION quarantine.customers FOR VALUES IN ('customers');
ALTER TABLE ONLY quarantine."row" ATTACH PARTITION quarantine.external_interactions FOR VALUES IN ('external_interactions');
ALTER TABLE ONLY quarantine."row" ATTACH PARTITION quarantine.layouts FOR VALUES IN ('layouts');
ALTER TABLE ONLY quarantine."row" ATTACH PARTITION quarantine.metric_records FOR VALUES IN ('metric_records');
ALTER TABLE ONLY quarantine."row" ATTACH PARTITION quarantine.metrics FOR VALUES IN ('metrics');
ALTER TABLE ONLY quarantine."row" ATTACH PARTITION quarantine.products_of_discussion FOR VALUES IN ('products_of_discussion');
ALTER TABLE ONLY quarantine."row" ATTACH PARTITION quarantine.queries FOR VALUES IN ('queries');
INSERT INTO app._yoyo_migration VALUES ('34eae2766028c1b5d302a1ad21d038bcbe8a02d3c04ca438c45eeff62a8d691b', '0001.schemas', '2026-11-30 15:31:29.79589');
INSERT INTO app._yoyo_migration VALUES ('27d320f054970bb04522890be4055fd5e17a11baaafa042b56e10e40add4e80b', '0002.catalog', '2026-11-30 15:31:29.821766');
INSERT INTO app._yoyo_migration VALUES ('47f7cac2d9dd148d496aa0fc0b10c6e3610c712cbbc3371d713dfbe299e1dbcf', '0003.data', '2026-11-30 15:31:29.848515');
INSERT INTO app._yoyo_migration VALUES ('60579a2558680b332686b23d9046d9eeed5f907fd50201459309cf1345ec07df', '0004.audit', '2026-11-30 15:31:29.863494');
INSERT INTO app._yoyo_migration VALUES ('27f1697f21f92e098a400fd0df68be0f0790cae3a9abd323e8b7707e7046297c', '0005.versions', '2026-11-30 15:31:29.87995');
INSERT INTO app._yoyo_migration VALUES ('e889a51f5bc2512fed19de7ef2476757e57eb2ea74abe47da5cc94b92b267ca4', '0010.imports', '2026-11-30 15:31:29.941383');
INSERT INTO app._yoyo_migration VALUES ('4819d7ed995056c6f4759836ec01bd784474539fc712a58201ccfade9c502b3b', '0020.items', '2026-11-30 15:31:29.974282');
INSERT INTO app._yoyo_migration VALUES ('cf27e1f224c0baa58cb92934c92ef85034540d14374608b3962e3615370bc73e', '0030.clients', '2026-11-30 15:31:29.985683');
INSERT INTO app._yoyo_migration VALUES ('1d30e9a746c6fedb413506408adadff679a2e6c2e0bac159cc5e5abb7487d32b', '0031.audit_append_only', '2026-11-30 15:31:30.000372');
INSERT INTO app._yoyo_migration VALUES ('6441dad00fe1664780913179148132e52f93a952e2fcb3ef9a2f38e29e7d47e2', '0040.interactions', '2026-11-30 15:31:30.024102');
INSERT INTO app._yoyo_migration VALUES ('82566baaae7893b780f287e746d797f134e17640008ac8317b6fbdfc1beeb87d', '0050.ask', '2026-11-30 15:31:30.043384');
INSERT INTO app._yoyo_version VALUES (2, '2026-11-30 15:31:29.737769');
INSERT INTO app.api_client VALUES ('bot', '5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e', '{metrics:read}', '2026-11-30 15:31:31.966552+00', NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (1, 'command line', 'imports.run', 'queries 76176b56-dfc1-6609-cbd2-a3fd75463d3c', '2026-11-30 15:31:30.95717+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (2, 'command line', 'imports.run', 'metrics 09771736-c1b5-d5fa-bf39-c1f4bc83cbda', '2026-11-30 15:31:31.0033+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (3, 'command line', 'imports.run', 'layouts 2ec19d44-2f95-8315-9e3c-b4a1a2d6540b', '2026-11-30 15:31:31.028379+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (4, 'command line', 'imports.run', 'metric_records 104b8682-1124-32ff-e72c-cfcb395df227', '2026-11-30 15:31:31.049375+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (5, 'command line', 'imports.run', 'customers 41009ccd-50ed-ba7a-6475-dec7a03cc3a1', '2026-11-30 15:31:31.078412+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (6, 'command line', 'imports.run', 'external_interactions 1354eb2e-5b7e-b206-474f-462c8feb6c6b', '2026-11-30 15:31:31.103173+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (7, 'command line', 'imports.run', 'products_of_discussion b6bdc049-c92e-618d-59a0-ebe87dffce97', '2026-11-30 15:31:31.122098+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (8, 'cli', 'client.add', 'bot', '2026-11-30 15:31:31.966552+00', NULL, NULL, NULL);
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (9, 'local', 'metrics.create', '8c480345-8b1b-4655-845a-7dbf1a23d060', '2026-11-30 15:31:34.127012+00', '9e230536f4579a88fd354754d54b1c72', NULL, '9e57962229abd84bcf9a69fde3275d7e99d6c59e79c8ceb8d0658eea23a521e2');
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (10, 'local', 'metrics.create', 'a24dffda-1267-49de-9677-1066c1dd278d', '2026-11-30 15:31:34.178856+00', 'ac0eea4ab045934c62459ecf77fef88f', NULL, '0e90eabafce76c314a08fadc4554e01fd0cae14217b08e8de87e90302835437a');
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (11, 'local', 'metrics.change', 'a24dffda-1267-49de-9677-1066c1dd278d', '2026-11-30 15:31:34.211184+00', '1af7818e5816889989aa57f5ec197f18', '0e90eabafce76c314a08fadc4554e01fd0cae14217b08e8de87e90302835437a', '96e19e63c1591d836096bf4a1c65023adef018cc02005a3d0d34163d3c04841f');
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (12, 'local', 'metrics.change', '0b9d5a8e-2f5c-4a56-9f1e-5f4f5f1d0a01', '2026-11-30 15:31:34.237558+00', 'dd88f1f58cbde0a91e8869154eb20dc3', 'beac6ac738a07a6c6978f23bbc64d1c863d58f62531a5568ee72e01c7f7714fd', 'b83ff6ac9f5e7942b16a523c302748478d864322e3da15dd08f4fe50e1a2c5e5');
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (13, 'local', 'metrics.change', 'a24dffda-1267-49de-9677-1066c1dd278d', '2026-11-30 15:31:34.253486+00', '69958c08b5dcaa2c3a8861b8a524e4cc', '96e19e63c1591d836096bf4a1c65023adef018cc02005a3d0d34163d3c04841f', '266ece4d8e8a928e724895f9e2c32d021935cc649690404ed754cea70d7249a2');
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (14, 'local', 'items.create', '1', '2026-11-30 15:31:34.262052+00', 'df0d95d8765e3bcbee03da2f764925e7', NULL, 'e98810bf85ceafec699d48bd1f9c2b0f931b5af5745f5ced40ea10231d9419a8');
INSERT INTO app.audit OVERRIDING SYSTEM VALUE VALUES (15, 'local', 'items.create', '2', '2026-11-30 15:31:34.266994+00', 'd0e8b9f958c16f116aa54139c62a0bc1', NULL, '88933010c099bce13435c98912a936342784eab01af9b1e1c840bf361ef792ab');
INSERT INTO app.item OVERRIDING SYSTEM VALUE VALUES (1, 'Write to buyers', 'all of them', NULL, DEFAULT, NULL, NULL, '2026-11-30 15:31:34.262052+00', '2026-11-30 15:31:34.262052+00');
INSERT INTO app.item OVERRIDING SYSTEM VALUE VALUES (2, 'Zweites', NULL, NULL, DEFAULT, NULL, NULL, '2026-11-30 15:31:34.266994+00', '2026-11-30 15:31:34.266994+00');
INSERT INTO catalog.dashboard VALUES ('default', 'Default', '2026-11-30 15:31:29.802664+00');
INSERT INTO catalog.layout_item VALUES ('default', '0b9d5a8e-2f5c-4a56-9f1e-5f4f5f1d0a01', 'lg', 0, 0, 6, 4, false);
INSERT INTO catalog.layout_item VALUES ('default', '0b9d5a8e-2f5c-4a56-9f1e-5f4f5f1d0a02', 'lg', 6, 0, 6, 4, true);
INSERT INTO catalog.layout_item VALUES ('default', 'a24dffda-1267-49de-9677-1066c1dd278d', 'lg', 0, 8, 3, 3, false);
INSERT INTO catalog.metric VALUES ('0b9d5a8e-2f5c-4a56-9f1e-5f4f5f1d0a02', 'q-alerts', 'Alerts', false, NULL, NULL, '{}', 1, '2026-11-30 15:31:31.0033+00', '2026-11-30 15:31:31.0033+00');
INSERT INTO catalog.metric VALUES ('0b9d5a8e-2f5c-4a56-9f1e-5f4f5f1d0a03', 'q-large', NULL, true, NULL, NULL, '{}', 1, '2026-11-30 15:31:31.0033+00', '2026-11-30 15:31:31.0033+00');
INSERT INTO catalog.metric VALUES ('8c480345-8b1b-4655-845a-7dbf1a23d060', '8fadec1a-0738-4c00-97f1-e1843e4ad64f', 'Count of metrics by alert type where id is q-alerts', true, NULL, NULL, '{}', 1, '2026-11-30 15:31:34.127012+00', '2026-11-30 15:31:34.127012+00');
INSERT INTO catalog.metric VALUES ('0b9d5a8e-2f5c-4a56-9f1e-5f4f5f1d0a01', 'q-cost', 'Cost avoided by month', true, NULL, NULL, '{}', 2, '2026-11-30 15:31:31.0033+00', '2026-11-30 15:31:34.237558+00');
INSERT INTO catalog.metric VALUES ('a24dffda-1267-49de-9677-1066c1dd278d', '0b8b0b0e-3687-4107-9c03-b6eded094664', 'Since a day', true, NULL, NULL, '{}', 3, '2026-11-30 15:31:34.178856+00', '2026-11-30 15:31:34.253486+00');
INSERT INTO catalog.metric_version VALUES ('a24dffda-1267-49de-9677-1066c1dd278d', 1, 'Since', 'SELECT count(*) AS n FROM metrics WHERE date >= :start_date', true, NULL, NULL, '{}', '2026-11-30 15:31:34.211184+00');
INSERT INTO catalog.metric_version VALUES ('0b9d5a8e-2f5c-4a56-9f1e-5f4f5f1d0a01', 1, 'Cost by month', 'SELECT DATE_TRUNC(''month'', date)::date AS month, SUM(obsolescence) AS cost
FROM metrics WHERE DATE(date) BETWEEN ''2025-01-01'' AND ''2025-12-31'' GROUP BY 1 ORDER BY 1', true, NULL, NULL, '{}', '2026-11-30 15:31:34.237558+00');
INSERT INTO catalog.metric_version VALUES ('a24dffda-1267-49de-9677-1066c1dd278d', 2, 'Since a day', 'SELECT count(*) AS n FROM metrics WHERE date >= :start_date', true, NULL, NULL, '{}', '2026-11-30 15:31:34.253486+00');
INSERT INTO catalog.origin VALUES ('8c480345-8b1b-4655-845a-7dbf1a23d060', 1, 'alerts by type', 'rules', 'local', '2026-11-30 15:31:34.127012+00');
INSERT INTO catalog.query VALUES ('q-cost', 'SELECT DATE_TRUNC(''month'', date)::date AS month, SUM(obsolescence) AS cost
FROM metrics WHERE DATE(date) BETWEEN ''2025-01-01'' AND ''2025-12-31'' GROUP BY 1 ORDER BY 1', false, '2026-11-30 15:31:30.95717+00', '2026-11-30 15:31:30.95717+00');
INSERT INTO catalog.query VALUES ('q-alerts', 'SELECT alert_type, COUNT(*) AS total FROM metrics WHERE alert_type IS NOT NULL GROUP BY 1 ORDER BY 1', false, '2026-11-30 15:31:30.95717+00', '2026-11-30 15:31:30.95717+00');
INSERT INTO catalog.query VALUES ('q-large', 'SELECT 9223372036854775807 AS n, 1.10::numeric AS exact, ''Größe €'' AS text', false, '2026-11-30 15:31:30.95717+00', '2026-11-30 15:31:30.95717+00');
INSERT INTO catalog.query VALUES ('8fadec1a-0738-4c00-97f1-e1843e4ad64f', 'SELECT
  alert_type,
  COUNT(*) AS count
FROM metrics
WHERE
  id = ''q-alerts'' AND alert_type IS NOT NULL
GROUP BY
  alert_type
ORDER BY
  count DESC NULLS LAST,
  alert_type', false, '2026-11-30 15:31:34.127012+00', '2026-11-30 15:31:34.127012+00');
INSERT INTO catalog.query VALUES ('0b8b0b0e-3687-4107-9c03-b6eded094664', 'SELECT count(*) AS n FROM metrics', false, '2026-11-30 15:31:34.178856+00', '2026-11-30 15:31:34.253486+00');
INSERT INTO data.customers VALUES (1, 'Buyer', 'Manufacturer', NULL);
INSERT INTO data.customers VALUES (2, 'Engineer', 'Distributor', NULL);
INSERT INTO data.external_interactions VALUES ('2025-01-02 09:00:00', 'Email', 1, NULL);
INSERT INTO data.external_interactions VALUES ('2025-01-02 10:30:00', 'Call', 2, NULL);
INSERT INTO data.external_interactions VALUES ('2025-01-03 10:30:00', 'Email​', 2, NULL);
INSERT INTO data.metrics VALUES ('q-cost', '2025-01-02 00:00:00', 127.880, NULL, NULL, NULL, NULL, '64d58ba0-520b-d462-0468-a95fc432a832', 1, NULL);
INSERT INTO data.metrics VALUES ('q-cost', '2025-01-02 00:00:00', 127.88, NULL, NULL, NULL, NULL, '64d58ba0-520b-d462-0468-a95fc432a832', 2, NULL);
INSERT INTO data.metrics VALUES ('q-cost', '2025-02-03 00:00:00', 0.1, NULL, NULL, NULL, NULL, 'bcf7fc4f-d67d-26a9-67a5-5be51e6d2051', 1, NULL);
INSERT INTO data.metrics VALUES ('q-alerts', '2025-02-03 10:00:00', NULL, 'Critical', NULL, NULL, NULL, 'e96fb90f-92c5-7bfd-bc76-f932a0156476', 1, NULL);
INSERT INTO data.metrics VALUES ('q-alerts', '2025-02-04 10:00:00', NULL, 'Warning', NULL, NULL, NULL, 'bee16674-1631-ae03-5967-6c551d7f54c0', 1, NULL);
INSERT INTO data.products_of_discussion VALUES ('2025-01-01', 'Parts search', NULL);
INSERT INTO data.products_of_discussion VALUES ('2025-02-01', 'Lifecycle alerts', NULL);
INSERT INTO data.vocabulary VALUES ('alert_type', 'critical', 'Critical', 1);
INSERT INTO data.vocabulary VALUES ('alert_type', 'warning', 'Warning', 2);
INSERT INTO data.vocabulary VALUES ('occupation', 'buyer', 'Buyer', 1);
INSERT INTO data.vocabulary VALUES ('occupation', 'engineer', 'Engineer', 2);
INSERT INTO data.vocabulary VALUES ('customer_type', 'manufacturer', 'Manufacturer', 1);
INSERT INTO data.vocabulary VALUES ('customer_type', 'distributor', 'Distributor', 2);
INSERT INTO data.vocabulary VALUES ('channel', 'email', 'Email', 1);
INSERT INTO data.vocabulary VALUES ('channel', 'call', 'Call', 2);
INSERT INTO data.vocabulary VALUES ('channel', 'email​', 'Email​', 3);
INSERT INTO data.vocabulary VALUES ('product', 'parts search', 'Parts search', 1);
INSERT INTO data.vocabulary VALUES ('product', 'lifecycle alerts', 'Lifecycle alerts', 2);
INSERT INTO imports.run VALUES ('76176b56-dfc1-6609-cbd2-a3fd75463d3c', 'queries', 1, 'queries.csv', '88bf73219e5c25f7095636c1f7d6b2e41eedca31f4d68919f1c5549c61953e5f', 'csv', 'utf-8', 3, 3, 0, 0, 0, 0, '{}', '{}', '[]', 3, 'command line', '2026-11-30 15:31:30.95717+00');
INSERT INTO imports.run VALUES ('09771736-c1b5-d5fa-bf39-c1f4bc83cbda', 'metrics', 1, 'metrics.json', '7814cf0adfe0a698eb48f51f18f71b00ae340c771c9c46ddc1d63c3537a4ced3', 'json', 'utf-8', 4, 3, 0, 0, 1, 0, '{"wrong-type": 1}', '{}', '[]', 3, 'command line', '2026-11-30 15:31:31.0033+00');
INSERT INTO imports.run VALUES ('2ec19d44-2f95-8315-9e3c-b4a1a2d6540b', 'layouts', 1, 'metrics.json', '7814cf0adfe0a698eb48f51f18f71b00ae340c771c9c46ddc1d63c3537a4ced3', 'json', 'utf-8', 2, 2, 0, 0, 0, 0, '{}', '{}', '[]', 2, 'command line', '2026-11-30 15:31:31.028379+00');
INSERT INTO imports.run VALUES ('104b8682-1124-32ff-e72c-cfcb395df227', 'metric_records', 1, 'metric_records.json', '33cbb3def99cac460b77ee5ec00e2eeaf20bb88462b6356d37b40eb8ae3c50e6', 'json', 'utf-8', 6, 5, 0, 0, 1, 0, '{"wrong-type": 1}', '{}', '[]', 5, 'command line', '2026-11-30 15:31:31.049375+00');
INSERT INTO imports.run VALUES ('41009ccd-50ed-ba7a-6475-dec7a03cc3a1', 'customers', 1, 'customers.csv', '1b903b36ea82d9554ee5dcc254ce0c3d9de27db1dab706cabab02a68e9cbbb69', 'csv', 'utf-8', 3, 2, 0, 0, 1, 0, '{"wrong-type": 1}', '{}', '[]', 2, 'command line', '2026-11-30 15:31:31.078412+00');
INSERT INTO imports.run VALUES ('1354eb2e-5b7e-b206-474f-462c8feb6c6b', 'external_interactions', 1, 'external_interactions.csv', '9b108559d39bb236ddbd63105e7e09fc84a3f5a8b0c00b2861ff6863864c1647', 'csv', 'utf-8', 4, 3, 0, 0, 1, 0, '{"orphan": 1}', '{}', '[]', 3, 'command line', '2026-11-30 15:31:31.103173+00');
INSERT INTO imports.run VALUES ('b6bdc049-c92e-618d-59a0-ebe87dffce97', 'products_of_discussion', 1, 'products_of_discussion.csv', '8826bc79197a2e2d986e58b17a0351625695749eb60a3b47cf64597a6c9c7eec', 'csv', 'utf-8', 2, 2, 0, 0, 0, 0, '{}', '{}', '[]', 2, 'command line', '2026-11-30 15:31:31.122098+00');
INSERT INTO quarantine.customers VALUES ('2266bd0d-1145-b97e-df23-938cc102a7ca', 'customers', 'customers.csv', 4, '{"type": "Distributor", "occupation": "Engineer", "Customer_Id": "nine"}', NULL, '{"type": "Distributor", "occupation": "Engineer", "customer_id": "nine"}', 'wrong-type', 'customer_id: "nine" is not a whole number', 'open', NULL, NULL, '41009ccd-50ed-ba7a-6475-dec7a03cc3a1', 1, '2026-11-30 15:31:31.078412+00', NULL);
INSERT INTO quarantine.external_interactions VALUES ('62768686-4170-08ff-4e15-48cda4499ed3', 'external_interactions', 'external_interactions.csv', 5, '{"Date Start": "04/01/2025 10:30", "Customer_Id": "77", "Interaction": "Call"}', NULL, '{"date_start": "04/01/2025 10:30", "customer_id": "77", "interaction": "Call"}', 'orphan', 'customer_id: "77" is not among customers; the row loads when it arrives', 'open', 'customers', '77', '1354eb2e-5b7e-b206-474f-462c8feb6c6b', 1, '2026-11-30 15:31:31.103173+00', NULL);
INSERT INTO quarantine.metric_records VALUES ('bb0961c5-474f-604f-edaa-bb8e295485e8', 'metric_records', 'metric_records.json', 6, '{"id": "q-alerts", "date": "2025-02-04", "parts_flagged": "many"}', NULL, '{"id": "q-alerts", "date": "2025-02-04", "parts_flagged": "many"}', 'wrong-type', 'parts_flagged: "many" is not a whole number', 'open', NULL, NULL, '104b8682-1124-32ff-e72c-cfcb395df227', 1, '2026-11-30 15:31:31.049375+00', NULL);
INSERT INTO quarantine.metrics VALUES ('5ecf53bf-a8bc-6830-0046-34d2b1c6bb04', 'metrics', 'metrics.json', 5, '{"id": "no-uuid", "queryId": "q-large", "isEditable": true}', NULL, '{"id": "no-uuid", "query_id": "q-large", "is_editable": "true"}', 'wrong-type', 'id: "no-uuid" is not a UUID', 'open', NULL, NULL, '09771736-c1b5-d5fa-bf39-c1f4bc83cbda', 1, '2026-11-30 15:31:31.0033+00', NULL);
SELECT pg_catalog.setval('app.audit_id_seq', 15, true);
SELECT pg_catalog.setval('app.item_id_seq', 2, true);
ALTER TABLE ONLY app._yoyo_log
    ADD CONSTRAINT _yoyo_log_pkey PRIMARY KEY (id);
ALTER TABLE ONLY app._yoyo_migration
    ADD CONSTRAINT _yoyo_migration_pkey PRIMARY KEY (migration_hash);
ALTER TABLE ONLY app._yoyo_version
    ADD CONSTRAINT _yoyo_version_pkey PRIMARY KEY (version);
ALTER TABLE ONLY app.api_client
    ADD CONSTRAINT api_client_pkey PRIMARY KEY (id);
ALTER TABLE ONLY app.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY app.item
    ADD CONSTRAINT item_pkey PRIMARY KEY (id);
ALTER TABLE ONLY app.yoyo_lock
    ADD CONSTRAINT yoyo_lock_pkey PRIMARY KEY (locked);
ALTER TABLE ONLY catalog.dashboard
    ADD CONSTRAINT dashboard_pkey PRIMARY KEY (id);
ALTER TABLE ONLY catalog.layout_item
    ADD CONSTRAINT layout_item_pkey PRIMARY KEY (dashboard_id, metric_id, breakpoint);
ALTER TABLE ONLY catalog.metric
    ADD CONSTRAINT metric_pkey PRIMARY KEY (id);
ALTER TABLE ONLY catalog.metric_version
    ADD CONSTRAINT metric_version_pkey PRIMARY KEY (metric_id, version);
ALTER TABLE ONLY catalog.origin
    ADD CONSTRAINT origin_pkey PRIMARY KEY (metric_id, version);
ALTER TABLE ONLY catalog.query
    ADD CONSTRAINT query_pkey PRIMARY KEY (id);
ALTER TABLE ONLY data.customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (customer_id);
ALTER TABLE ONLY data.external_interactions
    ADD CONSTRAINT external_interactions_pkey PRIMARY KEY (customer_id, date_start, interaction) INCLUDE (gone_at);
ALTER TABLE ONLY data.metrics
    ADD CONSTRAINT metrics_content_occurrence_key UNIQUE (content_hash, occurrence);
ALTER TABLE ONLY data.products_of_discussion
    ADD CONSTRAINT products_of_discussion_pkey PRIMARY KEY (month, product);
ALTER TABLE ONLY data.vocabulary
    ADD CONSTRAINT vocabulary_pkey PRIMARY KEY (list, folded);
ALTER TABLE ONLY imports.run
    ADD CONSTRAINT run_dataset_number_key UNIQUE (dataset, number);
ALTER TABLE ONLY imports.run
    ADD CONSTRAINT run_pkey PRIMARY KEY (id);
ALTER TABLE ONLY quarantine."row"
    ADD CONSTRAINT row_pkey PRIMARY KEY (id, dataset);
ALTER TABLE ONLY quarantine.customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (id, dataset);
ALTER TABLE ONLY quarantine.external_interactions
    ADD CONSTRAINT external_interactions_pkey PRIMARY KEY (id, dataset);
ALTER TABLE ONLY quarantine.layouts
    ADD CONSTRAINT layouts_pkey PRIMARY KEY (id, dataset);
ALTER TABLE ONLY quarantine.metric_records
    ADD CONSTRAINT metric_records_pkey PRIMARY KEY (id, dataset);
ALTER TABLE ONLY quarantine.metrics
    ADD CONSTRAINT metrics_pkey PRIMARY KEY (id, dataset);
ALTER TABLE ONLY quarantine.products_of_discussion
    ADD CONSTRAINT products_of_discussion_pkey PRIMARY KEY (id, dataset);
ALTER TABLE ONLY quarantine.queries
    ADD CONSTRAINT queries_pkey PRIMARY KEY (id, dataset);
CREATE INDEX item_title_grams_idx ON app.item USING gin (app.grams(title, 1)) WITH (fastupdate=off);
CREATE INDEX layout_item_metric_id_idx ON catalog.layout_item USING btree (metric_id);
CREATE INDEX metric_query_id_idx ON catalog.metric USING btree (query_id);
CREATE INDEX external_interactions_date_start_idx ON data.external_interactions USING btree (date_start);
CREATE INDEX metrics_date_idx ON data.metrics USING btree (date);
CREATE INDEX metrics_id_date_idx ON data.metrics USING btree (id, date);
CREATE INDEX run_dataset_file_hash_idx ON imports.run USING btree (dataset, file_hash);
CREATE INDEX run_finished_at_idx ON imports.run USING btree (finished_at, id);
CREATE INDEX row_created_at_idx ON ONLY quarantine."row" USING btree (created_at, id);
CREATE INDEX customers_created_at_id_idx ON quarantine.customers USING btree (created_at, id);
CREATE INDEX row_open_idx ON ONLY quarantine."row" USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX customers_dataset_source_idx ON quarantine.customers USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX row_waits_idx ON ONLY quarantine."row" USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
CREATE INDEX customers_waits_for_waits_key_idx ON quarantine.customers USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
CREATE INDEX external_interactions_created_at_id_idx ON quarantine.external_interactions USING btree (created_at, id);
CREATE INDEX external_interactions_dataset_source_idx ON quarantine.external_interactions USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX external_interactions_waits_for_waits_key_idx ON quarantine.external_interactions USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
CREATE INDEX layouts_created_at_id_idx ON quarantine.layouts USING btree (created_at, id);
CREATE INDEX layouts_dataset_source_idx ON quarantine.layouts USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX layouts_waits_for_waits_key_idx ON quarantine.layouts USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
CREATE INDEX metric_records_created_at_id_idx ON quarantine.metric_records USING btree (created_at, id);
CREATE INDEX metric_records_dataset_source_idx ON quarantine.metric_records USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX metric_records_waits_for_waits_key_idx ON quarantine.metric_records USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
CREATE INDEX metrics_created_at_id_idx ON quarantine.metrics USING btree (created_at, id);
CREATE INDEX metrics_dataset_source_idx ON quarantine.metrics USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX metrics_waits_for_waits_key_idx ON quarantine.metrics USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
CREATE INDEX products_of_discussion_created_at_id_idx ON quarantine.products_of_discussion USING btree (created_at, id);
CREATE INDEX products_of_discussion_dataset_source_idx ON quarantine.products_of_discussion USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX products_of_discussion_waits_for_waits_key_idx ON quarantine.products_of_discussion USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
CREATE INDEX queries_created_at_id_idx ON quarantine.queries USING btree (created_at, id);
CREATE INDEX queries_dataset_source_idx ON quarantine.queries USING btree (dataset, source) WHERE (status = 'open'::text);
CREATE INDEX queries_waits_for_waits_key_idx ON quarantine.queries USING btree (waits_for, waits_key) WHERE (status = 'open'::text);
ALTER INDEX quarantine.row_created_at_idx ATTACH PARTITION quarantine.customers_created_at_id_idx;
ALTER INDEX quarantine.row_open_idx ATTACH PARTITION quarantine.customers_dataset_source_idx;
ALTER INDEX quarantine.row_pkey ATTACH PARTITION quarantine.customers_pkey;
ALTER INDEX quarantine.row_waits_idx ATTACH PARTITION quarantine.customers_waits_for_waits_key_idx;
ALTER INDEX quarantine.row_created_at_idx ATTACH PARTITION quarantine.external_interactions_created_at_id_idx;
ALTER INDEX quarantine.row_open_idx ATTACH PARTITION quarantine.external_interactions_dataset_source_idx;
ALTER INDEX quarantine.row_pkey ATTACH PARTITION quarantine.external_interactions_pkey;
ALTER INDEX quarantine.row_waits_idx ATTACH PARTITION quarantine.external_interactions_waits_for_waits_key_idx;
ALTER INDEX quarantine.row_created_at_idx ATTACH PARTITION quarantine.layouts_created_at_id_idx;
ALTER INDEX quarantine.row_open_idx ATTACH PARTITION quarantine.layouts_dataset_source_idx;
ALTER INDEX quarantine.row_pkey ATTACH PARTITION quarantine.layouts_pkey;
ALTER INDEX quarantine.row_waits_idx ATTACH PARTITION quarantine.layouts_waits_for_waits_key_idx;
ALTER INDEX quarantine.row_created_at_idx ATTACH PARTITION quarantine.metric_records_created_at_id_idx;
ALTER INDEX quarantine.row_open_idx ATTACH PARTITION quarantine.metric_records_dataset_source_idx;
ALTER INDEX quarantine.row_pkey ATTACH PARTITION quarantine.metric_records_pkey;
ALTER INDEX quarantine.row_waits_idx ATTACH PARTITION quarantine.metric_records_waits_for_waits_key_idx;
ALTER INDEX quarantine.row_created_at_idx ATTACH PARTITION quarantine.metrics_created_at_id_idx;
ALTER INDEX quarantine.row_open_idx ATTACH PARTITION quarantine.metrics_dataset_source_idx;
ALTER INDEX quarantine.row_pkey ATTACH PARTITION quarantine.metrics_pkey;
ALTER INDEX quarantine.row_waits_idx ATTACH PARTITION quarantine.metrics_waits_for_waits_key_idx;
ALTER INDEX quarantine.row_created_at_idx ATTACH PARTITION quarantine.products_of_discussion_created_at_id_idx;
ALTER INDEX quarantine.row_open_idx ATTACH PARTITION quarantine.products_of_discussion_dataset_source_idx;
ALTER INDEX quarantine.row_pkey ATTACH PARTITION quarantine.products_of_discussion_pkey;
ALTER INDEX quarantine.row_waits_idx ATTACH PARTITION quarantine.products_of_discussion_waits_for_waits_key_idx;
ALTER INDEX quarantine.row_created_at_idx ATTACH PARTITION quarantine.queries_created_at_id_idx;
ALTER INDEX quarantine.row_open_idx ATTACH PARTITION quarantine.queries_dataset_source_idx;
ALTER INDEX quarantine.row_pkey ATTACH PARTITION quarantine.queries_pkey;
ALTER INDEX quarantine.row_waits_idx ATTACH PARTITION quarantine.queries_waits_for_waits_key_idx;
CREATE STATISTICS data.external_interactions_month ON (date_trunc('month'::text, date_start)::date) FROM data.external_interactions;
CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON app.audit FOR EACH STATEMENT EXECUTE FUNCTION app.refuse_change();
CREATE TRIGGER keep_version BEFORE UPDATE ON catalog.metric FOR EACH ROW WHEN ((((((((old.title IS DISTINCT FROM new.title) OR (old.query_id IS DISTINCT FROM new.query_id)) OR (old.is_editable IS DISTINCT FROM new.is_editable)) OR (old.fresh_for_s IS DISTINCT FROM new.fresh_for_s)) OR (old.stale_for_s IS DISTINCT FROM new.stale_for_s)) OR (old.parameters IS DISTINCT FROM new.parameters)) OR (old.updated_at IS DISTINCT FROM new.updated_at))) EXECUTE FUNCTION catalog.keep_version();
CREATE TRIGGER tally_delete AFTER DELETE ON catalog.dashboard REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_delete AFTER DELETE ON catalog.layout_item REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_delete AFTER DELETE ON catalog.metric REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_delete AFTER DELETE ON catalog.query REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_insert AFTER INSERT ON catalog.dashboard REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_insert AFTER INSERT ON catalog.layout_item REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_insert AFTER INSERT ON catalog.metric REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_insert AFTER INSERT ON catalog.query REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON catalog.dashboard FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON catalog.layout_item FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON catalog.metric FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON catalog.query FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_update AFTER UPDATE ON catalog.dashboard REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_update AFTER UPDATE ON catalog.layout_item REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_update AFTER UPDATE ON catalog.metric REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER tally_update AFTER UPDATE ON catalog.query REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_catalog');
CREATE TRIGGER touch_metrics BEFORE UPDATE ON catalog.query FOR EACH ROW WHEN (((old.sql IS DISTINCT FROM new.sql) OR (old.trusted IS DISTINCT FROM new.trusted))) EXECUTE FUNCTION catalog.touch_metrics();
CREATE TRIGGER learn_channels_inserted AFTER INSERT ON data.external_interactions REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION app.learn_channels();
CREATE TRIGGER learn_channels_updated AFTER UPDATE ON data.external_interactions REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION app.learn_channels();
CREATE TRIGGER tally_delete AFTER DELETE ON data.customers REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_delete AFTER DELETE ON data.external_interactions REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_delete AFTER DELETE ON data.metrics REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_delete AFTER DELETE ON data.products_of_discussion REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_delete AFTER DELETE ON data.vocabulary REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_insert AFTER INSERT ON data.customers REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_insert AFTER INSERT ON data.external_interactions REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_insert AFTER INSERT ON data.metrics REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_insert AFTER INSERT ON data.products_of_discussion REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_insert AFTER INSERT ON data.vocabulary REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON data.customers FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON data.external_interactions FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON data.metrics FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON data.products_of_discussion FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON data.vocabulary FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_update AFTER UPDATE ON data.customers REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_update AFTER UPDATE ON data.external_interactions REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_update AFTER UPDATE ON data.metrics REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_update AFTER UPDATE ON data.products_of_discussion REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_update AFTER UPDATE ON data.vocabulary REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_delete AFTER DELETE ON quarantine."row" REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_insert AFTER INSERT ON quarantine."row" REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_truncate AFTER TRUNCATE ON quarantine."row" FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
CREATE TRIGGER tally_update AFTER UPDATE ON quarantine."row" REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION app.announce_change('tally_data');
ALTER TABLE ONLY catalog.layout_item
    ADD CONSTRAINT layout_item_dashboard_id_fkey FOREIGN KEY (dashboard_id) REFERENCES catalog.dashboard(id) ON DELETE CASCADE;
ALTER TABLE ONLY catalog.layout_item
    ADD CONSTRAINT layout_item_metric_id_fkey FOREIGN KEY (metric_id) REFERENCES catalog.metric(id) ON DELETE CASCADE;
ALTER TABLE ONLY catalog.metric
    ADD CONSTRAINT metric_query_id_fkey FOREIGN KEY (query_id) REFERENCES catalog.query(id);
ALTER TABLE ONLY catalog.metric_version
    ADD CONSTRAINT metric_version_metric_id_fkey FOREIGN KEY (metric_id) REFERENCES catalog.metric(id) ON DELETE CASCADE;
ALTER TABLE ONLY catalog.origin
    ADD CONSTRAINT origin_metric_id_fkey FOREIGN KEY (metric_id) REFERENCES catalog.metric(id) ON DELETE CASCADE;
ALTER TABLE ONLY data.external_interactions
    ADD CONSTRAINT external_interactions_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES data.customers(customer_id);
ALTER TABLE data.customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE data.external_interactions ENABLE ROW LEVEL SECURITY;
ALTER TABLE data.metrics ENABLE ROW LEVEL SECURITY;
CREATE POLICY present ON data.customers FOR SELECT USING ((gone_at IS NULL));
CREATE POLICY present ON data.external_interactions FOR SELECT USING ((gone_at IS NULL));
CREATE POLICY present ON data.metrics FOR SELECT USING ((gone_at IS NULL));
CREATE POLICY present ON data.products_of_discussion FOR SELECT USING ((gone_at IS NULL));
ALTER TABLE data.products_of_discussion ENABLE ROW LEVEL SECURITY;
