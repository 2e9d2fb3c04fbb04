-- name: list_metrics
SELECT m.id,
       m.query_id,
       q.sql,
       q.trusted,
       m.title,
       m.is_editable,
       m.fresh_for_s,
       m.stale_for_s,
       m.parameters,
       m.version,
       greatest(m.updated_at, q.updated_at) AS updated_at
FROM catalog.metric AS m
JOIN catalog.query AS q ON q.id = m.query_id
ORDER BY m.id

-- name: list_layout_items
SELECT dashboard_id, metric_id, breakpoint, x, y, w, h, static
FROM catalog.layout_item
ORDER BY dashboard_id, breakpoint, y, x, metric_id
