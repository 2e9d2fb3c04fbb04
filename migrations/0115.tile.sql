-- How a dashboard draws a metric, where somebody chose it; else the chart follows the shape of the result.

CREATE TABLE catalog.tile (
    dashboard_id text NOT NULL CONSTRAINT tile_dashboard_id_fkey REFERENCES catalog.dashboard ON DELETE CASCADE,
    metric_id uuid NOT NULL CONSTRAINT tile_metric_id_fkey REFERENCES catalog.metric ON DELETE CASCADE,
    chart text NOT NULL CONSTRAINT tile_chart_known CHECK (chart IN ('number', 'line', 'bar', 'stacked', 'table')),
    CONSTRAINT tile_pkey PRIMARY KEY (dashboard_id, metric_id)
);

CREATE INDEX tile_metric_id_idx ON catalog.tile (metric_id);

DO $$
BEGIN
    PERFORM app.watch('catalog.tile', 'tally_catalog');
END
$$;
