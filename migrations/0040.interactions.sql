-- Interactions are counted per customer, channel, type and product; the channels that are known are words of
-- data.vocabulary.

-- An index that alone tells which rows are present: a customer's interactions are counted without their table.
ALTER TABLE data.external_interactions
    DROP CONSTRAINT external_interactions_pkey,
    ADD CONSTRAINT external_interactions_pkey PRIMARY KEY (customer_id, date_start, interaction) INCLUDE (gone_at);

-- How many months there are, which the planner cannot guess from the moments.
CREATE STATISTICS data.external_interactions_month ON (date_trunc('month', date_start)::date)
FROM data.external_interactions;

-- Learns the channels of rows that came by another way than an import, which knows them already then.
CREATE FUNCTION app.learn_channels() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
AS $$
BEGIN
    INSERT INTO data.vocabulary (list, folded, spelling, position)
    SELECT 'channel',
           n.folded,
           n.spelling,
           coalesce((SELECT max(v.position) FROM data.vocabulary AS v WHERE v.list = 'channel'), 0)
               + row_number() OVER (ORDER BY n.row)
    FROM (
        SELECT DISTINCT ON (lower(w.interaction))
               lower(w.interaction) AS folded,
               w.interaction AS spelling,
               w.row
        FROM (
            SELECT r.interaction, min(r.row) AS row
            FROM (SELECT interaction, row_number() OVER () AS row FROM written) AS r
            GROUP BY r.interaction
        ) AS w
        ORDER BY lower(w.interaction), w.row
    ) AS n
    WHERE NOT EXISTS (
        SELECT FROM data.vocabulary AS v WHERE v.list = 'channel' AND v.folded = n.folded
    )
    ORDER BY n.folded -- one order for all writers, so that no two wait for each other
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER learn_channels_inserted
AFTER INSERT ON data.external_interactions
REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION app.learn_channels();

CREATE TRIGGER learn_channels_updated
AFTER UPDATE ON data.external_interactions
REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION app.learn_channels();

-- Figures of the datasets tell how many rows wait.
DO $$
BEGIN
    PERFORM app.watch('quarantine.row');
END
$$;
