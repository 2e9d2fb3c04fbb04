-- The last distinct results of each metric, to tell why a number changed.

-- A metric with one set of parameters.
CREATE TABLE app.history_series (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT history_series_pkey PRIMARY KEY,
    metric_id uuid NOT NULL
        CONSTRAINT history_series_metric_id_fkey REFERENCES catalog.metric ON DELETE CASCADE,
    -- A digest of the parameters, empty for the defaults.
    key bytea NOT NULL,
    -- When it was last known to be asked for: the least recently asked one of a metric is dropped first.
    asked_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT history_series_metric_id_key UNIQUE (metric_id, key)
);

CREATE TABLE app.result_history (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT result_history_pkey PRIMARY KEY,
    series_id bigint NOT NULL
        CONSTRAINT result_history_series_id_fkey REFERENCES app.history_series ON DELETE CASCADE,
    as_of timestamptz NOT NULL,
    -- When the result before was last known to be the present one; null for the first.
    since timestamptz,
    digest bytea NOT NULL,
    version integer NOT NULL,
    row_count integer NOT NULL,
    truncated boolean NOT NULL,
    -- Distinct results between this one and the one before that were not kept.
    left_out integer NOT NULL,
    -- Bytes of columns and records. The body holds them as JSON, compressed by zstd; null if they are too many.
    size bigint NOT NULL,
    body bytea,
    causes json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX result_history_series_id_idx ON app.result_history (series_id, id);
CREATE INDEX result_history_created_at_idx ON app.result_history (created_at);
