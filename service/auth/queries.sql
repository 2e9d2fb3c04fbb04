-- name: find_client
SELECT id, secret_hash, scopes
FROM app.api_client
WHERE id = $1
  AND revoked_at IS NULL

-- name: list_clients
SELECT id, scopes, secret_hash LIKE '$argon2id$%' AS chosen, created_at, revoked_at
FROM app.api_client
ORDER BY id

-- name: list_revoked
SELECT id
FROM app.api_client
WHERE revoked_at IS NOT NULL

-- name: add_client
INSERT INTO app.api_client (id, secret_hash, scopes)
VALUES ($1, $2, $3)

-- name: revoke_client
UPDATE app.api_client
SET revoked_at = now()
WHERE id = $1
  AND revoked_at IS NULL

-- name: renew_client
UPDATE app.api_client
SET secret_hash = $2
WHERE id = $1
  AND revoked_at IS NULL

-- name: find_session
SELECT id, subject, client_id, secret_mark, scopes, claims, expires_at
FROM app.session
WHERE id = $1
  AND expires_at > now()

-- name: begin_session
INSERT INTO app.session (id, subject, client_id, secret_mark, scopes, claims, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: end_session
DELETE FROM app.session
WHERE id = $1
RETURNING id, subject, client_id, secret_mark, scopes, claims, expires_at

-- name: sweep_sessions
DELETE FROM app.session
WHERE expires_at < now()
