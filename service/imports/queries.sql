-- name: take_turn
SELECT pg_advisory_xact_lock(hashtextextended('tally import ' || $1::text, 0))::text AS turn;

-- name: next_number
SELECT coalesce(max(number), 0) + 1 AS number FROM imports.run WHERE dataset = $1;

-- name: remembered
-- The last run of the same file, if no run after it changed the dataset; $4 is how many rows that has now,
-- null where it does not matter; $5 the encoding it is read with.
SELECT r.id, r.dataset, r.source, 'done' AS status, r.rows_read, r.inserted, r.updated, r.unchanged,
  r.quarantined, r.reasons, r.gone, r.released, r.format, r.encoding, r.notes, r.finished_at
FROM imports.run AS r
WHERE r.dataset = $1 AND r.file_hash = $2 AND r.source = $3
  AND ($4::bigint IS NULL OR r.rows_after = $4) AND r.encoding = $5
  AND NOT EXISTS (
    SELECT FROM imports.run AS later
    WHERE later.dataset = r.dataset AND later.number > r.number
      AND later.inserted + later.updated + later.gone > 0
  )
ORDER BY r.number DESC
LIMIT 1;

-- name: record_run
INSERT INTO imports.run (id, dataset, number, source, file_hash, format, encoding, rows_read, inserted, updated,
  unchanged, quarantined, gone, reasons, released, notes, rows_after, actor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
RETURNING finished_at;

-- name: prepare
-- Dates are read day first. Temporary tables have no statistics: a nested loop over them is never a good guess.
SELECT set_config('datestyle', 'ISO, DMY', true) AS datestyle,
  set_config('enable_nestloop', 'off', true) AS nested_loops,
  set_config('work_mem', '128MB', true) AS work_mem,
  set_config('jit', 'off', true) AS jit,
  set_config('search_path', $1, true) AS path;

-- name: check_constraints
-- Deferred constraints are checked by each statement, so that it is known which row breaks them.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: announce
-- As the triggers of `app.watch` do. Equal notifications of one transaction are one.
SELECT FROM pg_notify('tally_data', format('%I.%I %s', $1::text, $2::text, pg_current_xact_id()));

-- name: drop_tables
-- The temporary tables of the import before in this transaction.
DROP TABLE IF EXISTS pg_temp.landed, pg_temp.checked, pg_temp.facts;

-- name: refuse_closed
-- Refuse rows whose quarantined row is discarded or unknown. A fact ($2) that was loaded is a repeat.
UPDATE pg_temp.checked AS c
SET quarantine_id = NULL, repeated = r.repeats,
  problem = CASE WHEN r.refused THEN -1 ELSE c.problem END,
  reason = CASE WHEN r.refused THEN 'conflict' END,
  message = CASE WHEN r.refused
    THEN 'quarantine_id: "' || left(c.quarantine_id, 60) || '" is no open row of this dataset' END
FROM (
  SELECT c.nth, coalesce(q.status = 'loaded', false) AND $2::boolean AS repeats,
    c.problem IS NULL AND q.status IS DISTINCT FROM 'loaded' AS refused
  FROM pg_temp.checked AS c
  LEFT JOIN quarantine.row AS q ON q.dataset = $1 AND q.id::text = lower(c.quarantine_id)
  WHERE c.quarantine_id IS NOT NULL AND q.status IS DISTINCT FROM 'open'
) AS r
WHERE r.nth = c.nth;

-- name: refuse_sql
-- Refuse rows whose SQL is invalid: row numbers and messages, as arrays of equal length.
UPDATE pg_temp.checked AS c
SET problem = -1, reason = 'sql-refused', message = r.message
FROM unnest($1::bigint[], $2::text[]) AS r(nth, message)
WHERE c.nth = r.nth;

-- name: try_rule
SELECT FROM imports.try_rule($1);

-- name: update_reasons
-- Update the reasons of rows from quarantine that are still invalid.
UPDATE quarantine.row AS q
SET reason = c.reason, message = c.message, waits_for = c.waits_for, waits_key = c.waits_key
FROM pg_temp.checked AS c
WHERE c.problem IS NOT NULL AND q.dataset = $1 AND q.id::text = lower(c.quarantine_id)
  AND (q.reason, q.message) IS DISTINCT FROM (c.reason, c.message);

-- name: count_checked
-- Rows by reason. Valid rows have no reason.
SELECT reason, count(*) AS rows FROM pg_temp.checked GROUP BY reason;

-- name: list_runs
SELECT id, dataset, source, 'done' AS status, rows_read, inserted, updated, unchanged, quarantined, reasons, gone,
  released, format, encoding, notes, finished_at
FROM imports.run
WHERE ($1::text IS NULL OR dataset = $1)
  AND ($2::timestamptz IS NULL OR (finished_at, id) < ($2, $3::uuid))
ORDER BY finished_at DESC, id DESC
LIMIT $4;

-- name: get_run
SELECT id, dataset, source, 'done' AS status, rows_read, inserted, updated, unchanged, quarantined, reasons, gone,
  released, format, encoding, notes, finished_at
FROM imports.run
WHERE id = $1;

-- name: place_kept
-- Where the next rows stand, $6 of them and one more. Those that fit are a page of at most $7 bytes; the
-- first always fits.
SELECT created_at AS at, id, nth = 1 OR (nth <= $6 AND passed <= $7::bigint) AS fits
FROM (
  SELECT created_at, id, row_number() OVER in_order AS nth, sum(bytes) OVER in_order AS passed
  FROM (
    SELECT created_at, id, bytes
    FROM quarantine.row
    WHERE ($1::text IS NULL OR dataset = $1)
      AND ($2::text IS NULL OR reason = $2)
      AND ($3::text IS NULL OR status = $3)
      AND ($4::timestamptz IS NULL OR (created_at, id) > ($4, $5::uuid))
    ORDER BY created_at, id
    LIMIT $6::bigint + 1
  ) AS following
  WINDOW in_order AS (ORDER BY created_at, id)
) AS counted
ORDER BY nth;

-- name: list_kept
SELECT id, dataset, source, line, reason, message, status, raw, original, waits_for, waits_key, import_id,
  created_at, closed_at
FROM quarantine.row
WHERE id = ANY ($1::uuid[])
ORDER BY created_at, id;

-- name: get_kept
SELECT id, dataset, source, line, reason, message, status, raw, original, waits_for, waits_key, import_id,
  created_at, closed_at
FROM quarantine.row
WHERE id = $1;

-- name: export_kept
SELECT id, cells, reason, message || coalesce(': ' || (raw ->> 'text of the row'), '') AS message
FROM quarantine.row
WHERE dataset = $1 AND status = 'open' AND id = ANY ($2::uuid[])
ORDER BY created_at, id;

-- name: discard_kept
UPDATE quarantine.row
SET status = 'discarded', closed_at = now()
WHERE id = $1 AND status = 'open';

-- name: count_open
SELECT dataset, count(*) AS number FROM quarantine.row WHERE status = 'open' GROUP BY dataset ORDER BY dataset;
