-- name: create_item
INSERT INTO app.item (title, description)
VALUES ($1, $2)
RETURNING id, title, description, external_data::text, summary, created_at, updated_at

-- name: read_item
SELECT id, title, description, external_data::text, summary, created_at, updated_at
FROM app.item
WHERE id = $1

-- name: lock_item
SELECT id, title, description, external_data::text, summary, created_at, updated_at
FROM app.item
WHERE id = $1
FOR UPDATE

-- name: pick_newest
SELECT id, more
FROM (
    SELECT id,
           row_number() OVER newest AS place,
           sum(external_data_size) OVER newest - external_data_size AS bytes_before,
           lead(id) OVER newest IS NOT NULL AS more
    FROM (
        SELECT id, external_data_size
        FROM app.item
        WHERE id < $1
        ORDER BY id DESC
        LIMIT $2 + 1
    ) AS page
    WINDOW newest AS (ORDER BY id DESC)
) AS weighed
WHERE place <= $2
  AND bytes_before < $3
ORDER BY id DESC

-- name: pick_by_title
SELECT id, more
FROM (
    SELECT id,
           row_number() OVER newest AS place,
           sum(external_data_size) OVER newest - external_data_size AS bytes_before,
           lead(id) OVER newest IS NOT NULL AS more
    FROM (
        SELECT id, external_data_size
        FROM app.item
        WHERE id < $1
          AND app.grams(title, 1) @> app.grams($4, least(3, char_length(lower($4))))
          AND position(lower($4) IN lower(title)) > 0
        ORDER BY id DESC
        LIMIT $2 + 1
    ) AS page
    WINDOW newest AS (ORDER BY id DESC)
) AS weighed
WHERE place <= $2
  AND bytes_before < $3
ORDER BY id DESC

-- name: read_items
SELECT id, title, description, external_data::text, summary, created_at, updated_at
FROM app.item
WHERE id = ANY($1::bigint[])
ORDER BY id DESC

-- name: write_item
UPDATE app.item
SET title = $2,
    description = $3,
    updated_at = clock_timestamp()
WHERE id = $1
RETURNING id, title, description, external_data::text, summary, created_at, updated_at

-- name: store_external_data
UPDATE app.item
SET external_data = $2,
    updated_at = clock_timestamp()
WHERE id = $1
RETURNING id, title, description, external_data::text, summary, created_at, updated_at

-- name: store_summary
UPDATE app.item
SET summary = $2,
    summary_generator = $3,
    updated_at = clock_timestamp()
WHERE id = $1
RETURNING id, title, description, external_data::text, summary, created_at, updated_at

-- name: delete_item
DELETE FROM app.item
WHERE id = $1

-- name: is_storable
SELECT NOT jsonb_path_exists(document::jsonb, 'strict $.**{200}') AS storable
FROM (
    SELECT $1 AS document
    WHERE pg_input_is_valid($1, 'jsonb')
    OFFSET 0 -- keeps the planner from trying the cast before the check
) AS valid
