-- What a metric was before each change, whoever changed it: the API, an import or an operator.

CREATE TABLE catalog.metric_version (
    metric_id uuid NOT NULL CONSTRAINT metric_version_metric_id_fkey REFERENCES catalog.metric ON DELETE CASCADE,
    version integer NOT NULL,
    title text,
    sql text NOT NULL,
    is_editable boolean NOT NULL,
    fresh_for_s integer,
    stale_for_s integer,
    parameters jsonb NOT NULL,
    -- When it was replaced; the changes of one transaction are one version.
    replaced_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT metric_version_pkey PRIMARY KEY (metric_id, version)
);

CREATE FUNCTION catalog.keep_version() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog
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

CREATE TRIGGER keep_version
BEFORE UPDATE ON catalog.metric
FOR EACH ROW
WHEN ((old.title, old.query_id, old.is_editable, old.fresh_for_s, old.stale_for_s, old.parameters, old.updated_at)
    IS DISTINCT FROM
    (new.title, new.query_id, new.is_editable, new.fresh_for_s, new.stale_for_s, new.parameters, new.updated_at))
EXECUTE FUNCTION catalog.keep_version();

-- A changed SQL text is a change of every metric that shows it; theirs is kept while the old text still stands.
CREATE FUNCTION catalog.touch_metrics() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
BEGIN
    UPDATE catalog.metric SET updated_at = clock_timestamp() WHERE query_id = old.id;
    new.updated_at := now();
    RETURN new;
END
$$;

CREATE TRIGGER touch_metrics
BEFORE UPDATE ON catalog.query
FOR EACH ROW
WHEN ((old.sql, old.trusted) IS DISTINCT FROM (new.sql, new.trusted))
EXECUTE FUNCTION catalog.touch_metrics();
