-- What can be asked for: queries, the metrics that show them, the dashboards they stand on.

CREATE TABLE catalog.query (
    id text CONSTRAINT query_pkey PRIMARY KEY CONSTRAINT query_id_length CHECK (length(id) BETWEEN 1 AND 200),
    sql text NOT NULL,
    -- An operator vouches for SQL that our parser cannot read; role and limits still hold.
    trusted boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE catalog.metric (
    id uuid CONSTRAINT metric_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    query_id text NOT NULL CONSTRAINT metric_query_id_fkey REFERENCES catalog.query,
    title text CONSTRAINT metric_title_length CHECK (length(title) BETWEEN 1 AND 255),
    is_editable boolean NOT NULL DEFAULT true,
    -- Seconds; null takes the service's setting.
    fresh_for_s integer CONSTRAINT metric_fresh_for_positive CHECK (fresh_for_s >= 0),
    stale_for_s integer CONSTRAINT metric_stale_for_positive CHECK (stale_for_s >= 0),
    -- Declared parameters by name: {"region": {"type": "text", "default": "north"}}.
    parameters jsonb NOT NULL DEFAULT '{}' CONSTRAINT metric_parameters_object CHECK (jsonb_typeof(parameters) = 'object'),
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX metric_query_id_idx ON catalog.metric (query_id);

CREATE TABLE catalog.dashboard (
    id text CONSTRAINT dashboard_pkey PRIMARY KEY,
    title text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE catalog.layout_item (
    dashboard_id text NOT NULL CONSTRAINT layout_item_dashboard_id_fkey REFERENCES catalog.dashboard ON DELETE CASCADE,
    metric_id uuid NOT NULL CONSTRAINT layout_item_metric_id_fkey REFERENCES catalog.metric ON DELETE CASCADE,
    breakpoint text NOT NULL CONSTRAINT layout_item_breakpoint_length CHECK (length(breakpoint) BETWEEN 1 AND 20),
    x integer NOT NULL CONSTRAINT layout_item_x_range CHECK (x >= 0),
    y integer NOT NULL CONSTRAINT layout_item_y_range CHECK (y >= 0),
    w integer NOT NULL CONSTRAINT layout_item_w_range CHECK (w > 0),
    h integer NOT NULL CONSTRAINT layout_item_h_range CHECK (h > 0),
    static boolean NOT NULL DEFAULT false,
    CONSTRAINT layout_item_pkey PRIMARY KEY (dashboard_id, metric_id, breakpoint)
);

CREATE INDEX layout_item_metric_id_idx ON catalog.layout_item (metric_id);

INSERT INTO catalog.dashboard (id, title) VALUES ('default', 'Default');

DO $$
BEGIN
    PERFORM app.watch('catalog.query', 'tally_catalog');
    PERFORM app.watch('catalog.metric', 'tally_catalog');
    PERFORM app.watch('catalog.dashboard', 'tally_catalog');
    PERFORM app.watch('catalog.layout_item', 'tally_catalog');
END
$$;
