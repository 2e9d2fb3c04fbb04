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
  set_config('jit', 'off', true) AS jit;

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

-- name: page_of_kept
-- Rows of a page, and whether more follow: it ends with the row by which $7 bytes are passed.
WITH RECURSIVE found AS MATERIALIZED (
  SELECT id, dataset, row_number() OVER (ORDER BY created_at, id) AS number
  FROM quarantine.row
  WHERE ($1::text IS NULL OR dataset = $1)
    AND ($2::text IS NULL OR reason = $2)
    AND ($3::text IS NULL OR status = $3)
    AND ($4::timestamptz IS NULL OR (created_at, id) > ($4, $5::uuid))
  ORDER BY created_at, id
  LIMIT $6 + 1
), page AS (
  SELECT 0::bigint AS number, 0::bigint AS bytes
  UNION ALL
  SELECT f.number, p.bytes + octet_length(r.raw::text) + coalesce(octet_length(r.original::text), 0)
    + octet_length(r.cells::text)
  FROM page AS p
  JOIN found AS f ON f.number = p.number + 1
  JOIN quarantine.row AS r ON r.id = f.id AND r.dataset = f.dataset
  WHERE p.bytes < $7::bigint AND p.number < $6
)
SELECT f.id, f.dataset, EXISTS (SELECT FROM found AS o WHERE o.number > (SELECT max(number) FROM page)) AS more
FROM page AS p
JOIN found AS f USING (number)
ORDER BY number;

-- name: kept_of_page
SELECT id, dataset, source, line, reason, message, status, raw, original, waits_for, waits_key, import_id,
  created_at, closed_at
FROM unnest($1::uuid[], $2::text[]) AS p(id, dataset)
JOIN quarantine.row AS r USING (id, dataset)
ORDER BY created_at, id;

-- name: get_kept
SELECT id, dataset, source, line, reason, message, status, raw, original, waits_for, waits_key, import_id,
  created_at, closed_at
FROM quarantine.row
WHERE id = $1;

-- name: export_kept
SELECT id, cells, reason, message || coalesce(': ' || (raw ->> 'text of the row'), '') AS message, created_at
FROM unnest($1::uuid[], $2::text[]) AS p(id, dataset)
JOIN quarantine.row AS r USING (id, dataset)
ORDER BY created_at, id;

-- name: discard_kept
UPDATE quarantine.row
SET status = 'discarded', closed_at = now()
WHERE id = $1 AND status = 'open';
