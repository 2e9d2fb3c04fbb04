-- Items: a small task list whose records are enriched from outside.

CREATE TABLE app.item (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT item_pkey PRIMARY KEY,
    title text NOT NULL
        CONSTRAINT item_title_length CHECK (char_length(title) BETWEEN 1 AND 255)
        CONSTRAINT item_title_not_blank CHECK (btrim(title) <> ''),
    description text CONSTRAINT item_description_length CHECK (char_length(description) <= 10000),
    -- The outside API's document, whole, and when it was fetched; never mixed with the item's own columns.
    external_data jsonb CONSTRAINT item_external_data_object CHECK (jsonb_typeof(external_data) = 'object'),
    -- Bytes of that as JSON: a page of a list is bounded by them without reading the documents.
    external_data_size integer NOT NULL
        GENERATED ALWAYS AS (coalesce(octet_length(external_data::text), 0)) STORED,
    summary text,
    summary_generator text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT item_summary_generator_known CHECK ((summary IS NULL) = (summary_generator IS NULL))
);

-- The distinct pieces of `shortest` to 3 letters of a text, in lower case: what an index needs to find any
-- part of a title (as pg_trgm does, an extension that not every server has).
CREATE FUNCTION app.grams(value text, shortest integer) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    SELECT array_agg(DISTINCT substr(lower(value), start, size))
    FROM generate_series(shortest, 3) AS size,
         generate_series(1, char_length(lower(value)) - size + 1) AS start
);

-- Without fastupdate: a search would read the list of pending entries from end to end until the next vacuum.
CREATE INDEX item_title_grams_idx ON app.item USING gin (app.grams(title, 1)) WITH (fastupdate = off);
