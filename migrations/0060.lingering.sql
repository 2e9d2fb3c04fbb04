-- Statements that Postgres went on with although they were cancelled, by the SHA-256 of their text: the same
-- text counts wherever it is shown. From the second time on it is set aside, on every worker and node.

CREATE TABLE catalog.lingering (
    sql_hash bytea NOT NULL CONSTRAINT lingering_sql_hash_length CHECK (length(sql_hash) = 32),
    -- Whether it lingered while it was planned, or else while it ran.
    planning boolean NOT NULL,
    times integer NOT NULL DEFAULT 1 CONSTRAINT lingering_times_positive CHECK (times > 0),
    -- Who showed it when it lingered last; may be gone.
    metric_id uuid,
    last_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT lingering_pkey PRIMARY KEY (sql_hash, planning)
);

DO $$
BEGIN
    PERFORM app.watch('catalog.lingering', 'tally_catalog');
END
$$;
