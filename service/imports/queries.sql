-- name: take_turn
SELECT pg_advisory_xact_lock(hashtextextended('tally import ' || $1::text, 0))::text AS turn;

-- name: next_number
SELECT coalesce(max(number), 0) + 1 AS number FROM imports.run WHERE dataset = $1;

-- name: remembered
-- The last run of the same file, if no run after it changed the dataset; $4 is how many rows that has now,
-- null where it does not matter.
SELECT r.id, r.dataset, r.source, 'done' AS status, r.rows_read, r.inserted, r.updated, r.unchanged,
  r.quarantined, r.reasons, r.gone, r.released, r.format, r.encoding, r.notes, r.finished_at
FROM imports.run AS r
WHERE r.dataset = $1 AND r.file_hash = $2 AND r.source = $3
  AND ($4::bigint IS NULL OR r.rows_after = $4)
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
  set_config('work_mem', '128MB', true) AS work_mem;
