-- name: insert_rule
INSERT INTO app.alert_rule (metric_id, name, definition)
SELECT $1, $2, $3
WHERE (SELECT count(*) FROM app.alert_rule) < $4::bigint
RETURNING id, metric_id, name, definition,
          (SELECT s.secret FROM app.alert_secret AS s WHERE s.rule_id = alert_rule.id) AS webhook_secret,
          since, was_current, problem, created_at, updated_at

-- name: add_sample_query
INSERT INTO catalog.query (id, sql)
VALUES ($1, $2)
ON CONFLICT DO NOTHING
RETURNING id

-- name: add_sample_metric
INSERT INTO catalog.metric (id, query_id, title)
VALUES ($1, $2, $3)

-- name: add_sample_rule
INSERT INTO app.alert_rule (id, metric_id, name, definition)
VALUES ($1, $2, $3, $4)

-- name: drop_old_secrets
DELETE FROM app.alert_secret AS s
WHERE NOT EXISTS (SELECT FROM app.alert_rule AS r WHERE r.id = s.rule_id)

-- name: put_secret
INSERT INTO app.alert_secret (rule_id, secret)
VALUES ($1, $2)

-- name: list_rules
SELECT id, metric_id, name, definition,
       (SELECT s.secret FROM app.alert_secret AS s WHERE s.rule_id = alert_rule.id) AS webhook_secret,
       since, was_current, problem, created_at, updated_at
FROM app.alert_rule
ORDER BY number

-- name: page_rules
SELECT id, metric_id, name, definition,
       (SELECT s.secret FROM app.alert_secret AS s WHERE s.rule_id = alert_rule.id) AS webhook_secret,
       since, was_current, problem, created_at, updated_at
FROM app.alert_rule
WHERE ($1::uuid IS NULL OR number > (SELECT number FROM app.alert_rule WHERE id = $1))
  AND ($2::uuid IS NULL OR metric_id = $2)
ORDER BY number
LIMIT $3

-- name: read_rule
SELECT id, metric_id, name, definition,
       (SELECT s.secret FROM app.alert_secret AS s WHERE s.rule_id = alert_rule.id) AS webhook_secret,
       since, was_current, problem, created_at, updated_at
FROM app.alert_rule
WHERE id = $1

-- name: lock_rule
SELECT id, metric_id, name, definition,
       (SELECT s.secret FROM app.alert_secret AS s WHERE s.rule_id = alert_rule.id) AS webhook_secret,
       since, was_current, problem, created_at, updated_at
FROM app.alert_rule
WHERE id = $1
FOR UPDATE

-- name: update_rule
UPDATE app.alert_rule
SET name = $2,
    definition = $3,
    since = $4,
    was_current = $5,
    problem = NULL,
    updated_at = now()
WHERE id = $1
RETURNING id, metric_id, name, definition,
          (SELECT s.secret FROM app.alert_secret AS s WHERE s.rule_id = alert_rule.id) AS webhook_secret,
          since, was_current, problem, created_at, updated_at

-- name: note_rule
UPDATE app.alert_rule
SET since = $2,
    was_current = $3,
    problem = $4
WHERE id = $1

-- name: delete_rule
DELETE FROM app.alert_rule
WHERE id = $1

-- name: list_alerts_of_rule
-- All open ones, and the last that are closed: a correction may open or withdraw these again.
(
    SELECT a.id, a.rule_id, r.name AS rule_name, a.metric_id, a.series, a.point, a.last_point, a.value,
           a.expected, a.cause, a.state, a.opened_at, a.fired_at, a.resolved_at, a.acknowledged_at,
           a.acknowledged_by, a.updated_at
    FROM app.alert AS a
    JOIN app.alert_rule AS r ON r.id = a.rule_id
    WHERE a.rule_id = $1 AND a.state NOT IN ('resolved', 'withdrawn')
)
UNION ALL
(
    SELECT a.id, a.rule_id, r.name, a.metric_id, a.series, a.point, a.last_point, a.value,
           a.expected, a.cause, a.state, a.opened_at, a.fired_at, a.resolved_at, a.acknowledged_at,
           a.acknowledged_by, a.updated_at
    FROM app.alert AS a
    JOIN app.alert_rule AS r ON r.id = a.rule_id
    WHERE a.rule_id = $1 AND a.state IN ('resolved', 'withdrawn')
    ORDER BY a.number DESC
    LIMIT 1000
)

-- name: trim_alerts
-- Deletes the oldest closed alerts of a rule but $2, with their messages.
DELETE FROM app.alert
WHERE rule_id = $1
  AND state IN ('resolved', 'withdrawn')
  AND number <= (
      SELECT number
      FROM app.alert
      WHERE rule_id = $1 AND state IN ('resolved', 'withdrawn')
      ORDER BY number DESC
      OFFSET $2
      LIMIT 1
  )
RETURNING point, cause

-- name: page_alerts
SELECT a.id, a.rule_id, r.name AS rule_name, a.metric_id, a.series, a.point, a.last_point, a.value,
       a.expected, a.cause, a.state, a.opened_at, a.fired_at, a.resolved_at, a.acknowledged_at,
       a.acknowledged_by, a.updated_at
FROM app.alert AS a
JOIN app.alert_rule AS r ON r.id = a.rule_id
WHERE ($1::uuid IS NULL OR a.number < (SELECT number FROM app.alert WHERE id = $1))
  AND ($2::text[] IS NULL OR a.state = ANY ($2))
  AND ($3::uuid IS NULL OR a.rule_id = $3)
  AND ($4::uuid IS NULL OR a.metric_id = $4)
ORDER BY a.number DESC
LIMIT $5

-- name: read_alert
SELECT a.id, a.rule_id, r.name AS rule_name, a.metric_id, a.series, a.point, a.last_point, a.value,
       a.expected, a.cause, a.state, a.opened_at, a.fired_at, a.resolved_at, a.acknowledged_at,
       a.acknowledged_by, a.updated_at
FROM app.alert AS a
JOIN app.alert_rule AS r ON r.id = a.rule_id
WHERE a.id = $1

-- name: lock_alert
SELECT a.id, a.rule_id, r.name AS rule_name, a.metric_id, a.series, a.point, a.last_point, a.value,
       a.expected, a.cause, a.state, a.opened_at, a.fired_at, a.resolved_at, a.acknowledged_at,
       a.acknowledged_by, a.updated_at
FROM app.alert AS a
JOIN app.alert_rule AS r ON r.id = a.rule_id
WHERE a.id = $1
FOR UPDATE

-- name: insert_alert
INSERT INTO app.alert
    (id, rule_id, metric_id, series, series_key, point, last_point, value, expected, cause, state, opened_at,
     fired_at, resolved_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT ON CONSTRAINT alert_episode_key DO NOTHING
RETURNING id

-- name: update_alert
UPDATE app.alert
SET point = $2,
    last_point = $3,
    value = $4,
    expected = $5,
    state = $6,
    fired_at = $7,
    resolved_at = $8,
    acknowledged_at = $9,
    acknowledged_by = $10,
    updated_at = $11
WHERE id = $1

-- name: insert_delivery
INSERT INTO app.alert_delivery (id, alert_id, rule_id, kind, target, event, body)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: trim_deliveries
-- Deletes the oldest messages of an alert that have ended but $2.
DELETE FROM app.alert_delivery
WHERE alert_id = $1
  AND status <> 'waiting'
  AND number <= (
      SELECT number
      FROM app.alert_delivery
      WHERE alert_id = $1 AND status <> 'waiting'
      ORDER BY number DESC
      OFFSET $2
      LIMIT 1
  )

-- name: claim_deliveries
-- Takes what is due, at most $1 for each receiver, so that none keeps the others waiting. A node that dies
-- leaves its claims to others after $2 seconds.
WITH due AS MATERIALIZED (
    SELECT id, row_number() OVER (PARTITION BY kind, target ORDER BY number) AS place
    FROM app.alert_delivery
    WHERE status = 'waiting' AND next_try_at <= now() AND target <> ALL ($3::text[])
), taken AS MATERIALIZED (
    SELECT d.id
    FROM app.alert_delivery AS d
    JOIN due ON due.id = d.id
    WHERE due.place <= $1 AND d.status = 'waiting' AND d.next_try_at <= now()
    ORDER BY due.place, d.number
    LIMIT 64
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE app.alert_delivery AS d
SET tries = d.tries + 1,
    next_try_at = now() + make_interval(secs => $2)
WHERE d.id IN (SELECT id FROM taken)
RETURNING d.id, d.kind, d.target, d.event, d.body, d.tries, d.created_at,
          (SELECT s.secret FROM app.alert_secret AS s WHERE s.rule_id = d.rule_id) AS webhook_secret,
          d.rule_id, d.alert_id

-- name: next_delivery
SELECT extract(epoch FROM min(next_try_at) - now())::double precision AS wait_s
FROM app.alert_delivery
WHERE status = 'waiting'

-- name: end_delivery
UPDATE app.alert_delivery
SET status = $2,
    last_error = $3,
    next_try_at = now() + make_interval(secs => $4),
    delivered_at = CASE WHEN $2 = 'delivered' THEN now() END
WHERE id = $1

-- name: page_deliveries
SELECT id, alert_id, rule_id, kind, target, event, status, tries, next_try_at, last_error, created_at,
       delivered_at
FROM app.alert_delivery
WHERE ($1::text IS NULL OR number < (SELECT number FROM app.alert_delivery WHERE id = $1))
  AND ($2::text IS NULL OR status = $2)
  AND ($3::uuid IS NULL OR alert_id = $3)
ORDER BY number DESC
LIMIT $4

-- name: replay_delivery
UPDATE app.alert_delivery
SET status = 'waiting',
    tries = 0,
    next_try_at = now()
WHERE id = $1 AND status = 'dead'
RETURNING id, alert_id, rule_id, kind, target, event, status, tries, next_try_at, last_error, created_at,
          delivered_at

-- name: read_delivery
SELECT id, alert_id, rule_id, kind, target, event, status, tries, next_try_at, last_error, created_at,
       delivered_at
FROM app.alert_delivery
WHERE id = $1

-- name: count_open
SELECT metric_id, count(*) AS n
FROM app.alert
WHERE state IN ('firing', 'nodata', 'stale', 'acknowledged')
GROUP BY metric_id

-- name: take_turn
SELECT pg_try_advisory_lock($1::bigint) AS taken

-- name: keep_turn
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted
      AND objid = $1::bigint::oid AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS taken
