CREATE OR REPLACE FUNCTION catalog.keep_version() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
BEGIN
    INSERT INTO catalog.metric_version
        (metric_id, version, title, sql, is_editable, fresh_for_s, stale_for_s, parameters, "window")
    SELECT old.id,
           old.version,
           old.title,
           q.sql,
           old.is_editable,
           old.fresh_for_s,
           old.stale_for_s,
           old.parameters,
           old."window"
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

DROP TRIGGER keep_version ON catalog.metric;

CREATE TRIGGER keep_version
BEFORE UPDATE ON catalog.metric
FOR EACH ROW
WHEN ((old.title, old.query_id, old.is_editable, old.fresh_for_s, old.stale_for_s, old.parameters, old."window",
       old.updated_at)
    IS DISTINCT FROM
    (new.title, new.query_id, new.is_editable, new.fresh_for_s, new.stale_for_s, new.parameters, new."window",
     new.updated_at))
EXECUTE FUNCTION catalog.keep_version();

ALTER TABLE catalog.metric_version DROP COLUMN refresh_every_s;
ALTER TABLE catalog.metric DROP COLUMN refresh_every_s;
