-- Rules on the results of metrics, the alerts that they made, and what was sent of them.

CREATE TABLE app.alert_rule (
    id uuid CONSTRAINT alert_rule_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_rule_number_key UNIQUE,
    metric_id uuid NOT NULL CONSTRAINT alert_rule_metric_id_fkey REFERENCES catalog.metric ON DELETE CASCADE,
    name text NOT NULL CONSTRAINT alert_rule_name_length CHECK (char_length(name) BETWEEN 1 AND 255),
    -- What to judge and whom to tell, as the API takes it.
    definition jsonb NOT NULL CONSTRAINT alert_rule_definition_object CHECK (jsonb_typeof(definition) = 'object'),
    -- The newest point when the rule was first evaluated: older ones make no alerts. Null until then.
    since text,
    -- Whether its data were once as new as they should be. If not, they are history and never overdue.
    was_current boolean NOT NULL DEFAULT false,
    -- Why it cannot be evaluated; null if it can.
    problem text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX alert_rule_metric_id_idx ON app.alert_rule (metric_id);

-- Signs the webhooks of a rule, so it has to be readable. Apart from the rule, because an export leaves it out, and
-- without a reference to it, because a restore replaces rules and keeps their secrets.
CREATE TABLE app.alert_secret (
    rule_id uuid CONSTRAINT alert_secret_pkey PRIMARY KEY,
    secret text NOT NULL
);

CREATE TABLE app.alert (
    id uuid CONSTRAINT alert_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_number_key UNIQUE,
    rule_id uuid NOT NULL CONSTRAINT alert_rule_id_fkey REFERENCES app.alert_rule ON DELETE CASCADE,
    metric_id uuid NOT NULL,
    series jsonb NOT NULL,
    series_key text NOT NULL,
    -- `value`: a point is unusual. `missing`: data are missing or old.
    cause text NOT NULL CONSTRAINT alert_cause_known CHECK (cause IN ('value', 'missing')),
    -- The first and the last unusual point of the episode, as the result writes them.
    point text NOT NULL,
    last_point text NOT NULL,
    value double precision,
    expected double precision,
    state text NOT NULL CONSTRAINT alert_state_known
        CHECK (state IN ('pending', 'firing', 'resolved', 'nodata', 'stale', 'withdrawn', 'acknowledged')),
    opened_at timestamptz NOT NULL,
    fired_at timestamptz,
    resolved_at timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    updated_at timestamptz NOT NULL,
    CONSTRAINT alert_episode_key UNIQUE (rule_id, series_key, point, cause)
);

CREATE INDEX alert_open_idx ON app.alert (metric_id) WHERE state NOT IN ('resolved', 'withdrawn');

CREATE TABLE app.alert_delivery (
    id text CONSTRAINT alert_delivery_pkey PRIMARY KEY,
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_delivery_number_key UNIQUE,
    alert_id uuid NOT NULL CONSTRAINT alert_delivery_alert_id_fkey REFERENCES app.alert ON DELETE CASCADE,
    rule_id uuid NOT NULL CONSTRAINT alert_delivery_rule_id_fkey REFERENCES app.alert_rule ON DELETE CASCADE,
    kind text NOT NULL CONSTRAINT alert_delivery_kind_known CHECK (kind IN ('webhook', 'email')),
    target text NOT NULL,
    event text NOT NULL,
    -- The same bytes for each try.
    body text NOT NULL,
    status text NOT NULL DEFAULT 'waiting'
        CONSTRAINT alert_delivery_status_known CHECK (status IN ('waiting', 'delivered', 'dead')),
    tries integer NOT NULL DEFAULT 0,
    -- While a node tries, this is when others may take over.
    next_try_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);

CREATE INDEX alert_delivery_alert_id_idx ON app.alert_delivery (alert_id);
CREATE INDEX alert_delivery_rule_id_idx ON app.alert_delivery (rule_id);
CREATE INDEX alert_delivery_due_idx ON app.alert_delivery (next_try_at) WHERE status = 'waiting';

DO $$
BEGIN
    PERFORM app.watch('app.alert_rule', 'tally_catalog');
    PERFORM app.watch('app.alert', 'tally_catalog');
    PERFORM app.watch('app.alert_delivery', 'tally_catalog');
END
$$;
