-- name: list_events
SELECT id, actor, action, target, at, request_id
FROM app.audit
WHERE id < $1 AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR target = $3)
ORDER BY id DESC
LIMIT $4

-- name: record_event
INSERT INTO app.audit (actor, action, target, request_id, before_hash, after_hash)
VALUES ($1, $2, $3, $4, $5, $6)
