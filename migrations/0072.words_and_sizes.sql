-- How large a kept row is as text, so that pages of them can be bounded before a row is looked into.
ALTER TABLE quarantine.row
    ADD COLUMN bytes bigint NOT NULL
        GENERATED ALWAYS AS (octet_length(raw::text) + coalesce(octet_length(original::text), 0)) STORED;

-- Words that were learned with characters that nobody sees, before imports took them away, become one word
-- with their equals. Of two rows that are one then, the second is kept as gone: no row is deleted.

CREATE TEMPORARY TABLE cleaned ON COMMIT DROP AS
SELECT v.list,
       v.folded,
       v.position,
       btrim(
           translate(
               normalize(regexp_replace(v.spelling, '[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+', '', 'g'), NFC),
               U&'\0085\00a0\1680\2000\2001\2002\2003\2004\2005\2006\2007\2008\2009\200a\2028\2029\202f\205f\3000',
               repeat(' ', 19)
           ),
           E'\t\n\v\f\r '
       ) AS spelling
FROM data.vocabulary AS v;

DELETE FROM cleaned WHERE spelling = '';

-- The word that stays: one that was clean before, else the one that was known first.
CREATE TEMPORARY TABLE kept ON COMMIT DROP AS
SELECT DISTINCT ON (c.list, lower(c.spelling))
       c.list,
       lower(c.spelling) AS folded,
       coalesce(v.spelling, c.spelling) AS spelling,
       min(c.position) OVER (PARTITION BY c.list, lower(c.spelling)) AS position
FROM cleaned AS c
LEFT JOIN data.vocabulary AS v ON v.list = c.list AND v.folded = c.folded AND v.spelling = c.spelling
ORDER BY c.list, lower(c.spelling), v.spelling IS NULL, c.position;

CREATE TEMPORARY TABLE renamed ON COMMIT DROP AS
SELECT c.list, c.folded, k.spelling
FROM cleaned AS c
JOIN kept AS k ON k.list = c.list AND k.folded = lower(c.spelling)
WHERE c.folded <> k.folded;

UPDATE data.customers AS t
SET type = r.spelling
FROM renamed AS r
WHERE r.list = 'customer_type' AND lower(t.type) = r.folded;

UPDATE data.customers AS t
SET occupation = r.spelling
FROM renamed AS r
WHERE r.list = 'occupation' AND lower(t.occupation) = r.folded;

-- A fact is told from its equals by its content: with a clean word it counts on after those that have it.
CREATE TEMPORARY TABLE renamed_facts ON COMMIT DROP AS
SELECT f.place, f.alert_type, f.alert_category, f.content_hash, f.imported,
       row_number() OVER (PARTITION BY f.content_hash, f.imported ORDER BY f.occurrence, f.place) AS turn
FROM (
    SELECT t.ctid AS place, t.occurrence, t.content_hash IS NOT NULL AS imported, w.alert_type, w.alert_category,
           md5(jsonb_strip_nulls(jsonb_build_object(
               'id', t.id,
               'date', t.date,
               'obsolescence', trim_scale(t.obsolescence),
               'alert_type', w.alert_type,
               'parts_flagged', t.parts_flagged,
               'obsolescence_val', trim_scale(t.obsolescence_val),
               'alert_category', w.alert_category
           ))::text)::uuid AS content_hash
    FROM data.metrics AS t
    LEFT JOIN renamed AS a ON a.list = 'alert_type' AND a.folded = lower(t.alert_type)
    LEFT JOIN renamed AS b ON b.list = 'alert_category' AND b.folded = lower(t.alert_category)
    CROSS JOIN LATERAL (
        SELECT coalesce(a.spelling, t.alert_type) AS alert_type,
               coalesce(b.spelling, t.alert_category) AS alert_category
    ) AS w
    WHERE (a.spelling IS NOT NULL OR b.spelling IS NOT NULL)
      AND EXISTS (SELECT FROM renamed WHERE list IN ('alert_type', 'alert_category'))
) AS f;

UPDATE data.metrics AS t
SET alert_type = f.alert_type,
    alert_category = f.alert_category,
    content_hash = CASE WHEN f.imported THEN f.content_hash END,
    occurrence = CASE WHEN f.imported THEN f.turn + coalesce(
        (SELECT max(m.occurrence) FROM data.metrics AS m WHERE m.content_hash = f.content_hash), 0
    ) END
FROM renamed_facts AS f
WHERE t.ctid = f.place;

-- Rows that become one: the first present one takes the word, or the clean one that is there already.
CREATE TEMPORARY TABLE same_interactions ON COMMIT DROP AS
SELECT t.customer_id,
       t.date_start,
       t.interaction,
       t.gone_at,
       coalesce(r.spelling, t.interaction) AS spelling,
       r.spelling IS NOT NULL AS unclean,
       row_number() OVER (
           PARTITION BY t.customer_id, t.date_start, coalesce(r.spelling, t.interaction)
           ORDER BY r.spelling IS NOT NULL, t.gone_at IS NOT NULL, t.interaction
       ) AS place,
       bool_or(t.gone_at IS NULL) OVER (
           PARTITION BY t.customer_id, t.date_start, coalesce(r.spelling, t.interaction)
       ) AS present
FROM data.external_interactions AS t
LEFT JOIN renamed AS r ON r.list = 'channel' AND lower(t.interaction) = r.folded
WHERE EXISTS (SELECT FROM renamed WHERE list = 'channel');

UPDATE data.external_interactions AS t
SET interaction = CASE WHEN s.place = 1 THEN s.spelling ELSE t.interaction END,
    gone_at = CASE WHEN s.place = 1 THEN CASE WHEN NOT s.present THEN t.gone_at END ELSE coalesce(t.gone_at, now()) END
FROM same_interactions AS s
WHERE (s.customer_id, s.date_start, s.interaction) = (t.customer_id, t.date_start, t.interaction)
  AND (s.unclean OR (s.present AND t.gone_at IS NOT NULL));

CREATE TEMPORARY TABLE same_products ON COMMIT DROP AS
SELECT t.month,
       t.product,
       coalesce(r.spelling, t.product) AS spelling,
       r.spelling IS NOT NULL AS unclean,
       row_number() OVER (
           PARTITION BY t.month, coalesce(r.spelling, t.product)
           ORDER BY r.spelling IS NOT NULL, t.gone_at IS NOT NULL, t.product
       ) AS place,
       bool_or(t.gone_at IS NULL) OVER (PARTITION BY t.month, coalesce(r.spelling, t.product)) AS present
FROM data.products_of_discussion AS t
LEFT JOIN renamed AS r ON r.list = 'product' AND lower(t.product) = r.folded
WHERE EXISTS (SELECT FROM renamed WHERE list = 'product');

UPDATE data.products_of_discussion AS t
SET product = CASE WHEN s.place = 1 THEN s.spelling ELSE t.product END,
    gone_at = CASE WHEN s.place = 1 THEN CASE WHEN NOT s.present THEN t.gone_at END ELSE coalesce(t.gone_at, now()) END
FROM same_products AS s
WHERE (s.month, s.product) = (t.month, t.product)
  AND (s.unclean OR (s.present AND t.gone_at IS NOT NULL));

DELETE FROM data.vocabulary AS v
USING renamed AS r
WHERE v.list = r.list AND v.folded = r.folded;

INSERT INTO data.vocabulary AS v (list, folded, spelling, position)
SELECT k.list, k.folded, k.spelling, k.position
FROM kept AS k
WHERE EXISTS (SELECT FROM renamed AS r WHERE r.list = k.list AND r.spelling = k.spelling)
ON CONFLICT (list, folded) DO UPDATE SET position = least(v.position, excluded.position);
