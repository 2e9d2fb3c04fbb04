-- name: insert_link
INSERT INTO app.link (dashboard_id, parameters, embed, created_by, expires_at)
VALUES ($1, $2::text::jsonb, $3, $4, now() + make_interval(secs => $5))
RETURNING id, dashboard_id, parameters::text AS parameters, embed, created_by, created_at, expires_at, revoked_at

-- name: find_link
SELECT id, dashboard_id, parameters::text AS parameters, embed, created_by, created_at, expires_at, revoked_at
FROM app.link
WHERE id = $1

-- name: list_links
SELECT id, dashboard_id, parameters::text AS parameters, embed, created_by, created_at, expires_at, revoked_at
FROM app.link
WHERE dashboard_id = $1
  AND id < $2
ORDER BY id DESC
LIMIT $3

-- name: revoke_link
UPDATE app.link
SET revoked_at = now()
WHERE id = $1
  AND dashboard_id = $2
  AND revoked_at IS NULL
RETURNING id, dashboard_id, parameters::text AS parameters, embed, created_by, created_at, expires_at, revoked_at
