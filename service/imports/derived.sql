-- name: find_tables
-- Relations that a name means: exactly, quoted, or folded as Postgres folds unquoted names. The exact one first.
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN $1::text IN (n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname),
      '"' || n.nspname || '"."' || c.relname || '"', n.nspname || '."' || c.relname || '"') THEN 1
    WHEN lower($1) = n.nspname || '.' || c.relname THEN 2
    WHEN $1 IN (c.relname, '"' || c.relname || '"') THEN 3
    WHEN lower($1) = c.relname THEN 4
  END AS rank
) AS meant
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND meant.rank IS NOT NULL
ORDER BY meant.rank, 1, 2
LIMIT 20;

-- name: add_dataset
INSERT INTO imports.dataset (name, table_schema, table_name, key, vocabulary) VALUES ($1, $2, $3, $4, $5);

-- name: note_undo
UPDATE imports.dataset SET undo = $2 WHERE name = $1;

-- name: remove_dataset
DELETE FROM imports.dataset WHERE name = $1;

-- name: forget_runs
DELETE FROM imports.run WHERE dataset = $1;

-- name: forget_words
DELETE FROM data.vocabulary WHERE starts_with(list, $1 || '.');

-- name: undo_of
SELECT undo FROM imports.dataset WHERE name = $1;

-- name: count_open
SELECT count(*) AS rows FROM quarantine.row WHERE dataset = $1 AND status = 'open';

-- name: partition_name
-- Whether the schema `quarantine` has this name already.
SELECT to_regclass('quarantine.' || quote_ident($1)) IS NOT NULL AS taken;

-- name: limit_waiting
-- Others who hold the tables are not made to queue behind us.
SET LOCAL lock_timeout = '5s';

-- name: has_row_security
SELECT c.relrowsecurity AS secured
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2;

-- name: session_path
-- The search path of the role in a session of its own, for triggers that rely on it.
SELECT coalesce(
  (SELECT substring(each FROM 'search_path=(.*)')
   FROM pg_db_role_setting AS s, unnest(s.setconfig) AS each
   WHERE each LIKE 'search_path=%'
     AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
     AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
   ORDER BY s.setrole <> 0 AND s.setdatabase <> 0 DESC, s.setrole <> 0 DESC
   LIMIT 1),
  '"$user", public'
) AS path;

-- name: read_tables
-- Each derived dataset with what the catalogue says of its table, as JSON; null where there is no such table.
WITH RECURSIVE plain AS (
  -- Every type with the type below its domains.
  SELECT t.oid, t.oid AS base, t.typbasetype AS next, false AS is_domain, t.typnotnull AS required
  FROM pg_type AS t
  UNION ALL
  SELECT p.oid, t.oid, t.typbasetype, true, p.required OR t.typnotnull
  FROM plain AS p JOIN pg_type AS t ON t.oid = p.next
  WHERE p.next <> 0
)
SELECT d.name, d.table_schema, d.table_name, c.relkind::text AS kind, obj_description(c.oid, 'pg_class') AS comment,
  d.key, d.vocabulary, d.undo <> '{}' AS mirrored,
  (
    SELECT jsonb_agg(jsonb_build_object(
      'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
      'base', b.typname, 'category', b.typcategory,
      -- Other types raise errors for some values: xml, jsonpath, regclass ...
      'known', NOT p.is_domain AND (b.typtype = 'e' OR bn.nspname = 'pg_catalog' AND b.typname ~ (
        '^_?(int[248]|numeric|float[48]|bool|text|varchar|bpchar|name|char|date|(time|timestamp)(tz)?|interval|uuid'
        '|jsonb?|money|bytea|(var)?bit|inet|cidr|macaddr8?|point|line|lseg|box|path|polygon|circle|oid|xid8?'
        '|(int4|int8|num|ts|tstz|date)(multi)?range)$')),
      'domain', p.is_domain,
      'required', a.attnotnull OR p.required,
      'default', coalesce(pg_get_expr(f.adbin, f.adrelid), t.typdefault),
      'generated', a.attgenerated <> '' OR a.attidentity <> '',
      'length', CASE WHEN b.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
      'comment', col_description(a.attrelid, a.attnum),
      'choices', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = b.oid),
      'comparable', b.typtype IN ('e', 'r', 'm') OR b.typname = 'varchar' OR EXISTS (
        SELECT FROM pg_opclass AS o
        WHERE o.opcdefault AND o.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree') AND o.opcintype = CASE WHEN b.typcategory = 'A' THEN b.typelem ELSE b.oid END)
        OR b.typcategory = 'A' AND EXISTS (
          SELECT FROM pg_type AS e WHERE e.oid = b.typelem AND (e.typtype = 'e' OR e.typname = 'varchar')),
      'schema', tn.nspname
    ) ORDER BY a.attnum)
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    JOIN pg_namespace AS tn ON tn.oid = t.typnamespace
    JOIN plain AS p ON p.oid = a.atttypid AND p.next = 0
    JOIN pg_type AS b ON b.oid = p.base
    JOIN pg_namespace AS bn ON bn.oid = b.typnamespace
    LEFT JOIN pg_attrdef AS f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  ) AS columns,
  (
    SELECT jsonb_agg(jsonb_build_object(
      'name', k.conname, 'kind', k.contype, 'deferrable', k.condeferrable OR coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false),
      'columns', (SELECT jsonb_agg(a.attname ORDER BY u.nth) FROM unnest(k.conkey) WITH ORDINALITY AS u(num, nth)
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.num),
      'expression', pg_get_expr(k.conbin, k.conrelid), 'definition', pg_get_constraintdef(k.oid),
      'to_schema', fn.nspname, 'to_table', fc.relname,
      'to_columns', (SELECT jsonb_agg(a.attname ORDER BY u.nth) FROM unnest(k.confkey) WITH ORDINALITY AS u(num, nth)
        JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.num)
    ) ORDER BY k.contype <> 'p', k.conname)
    FROM pg_constraint AS k
    LEFT JOIN pg_class AS fc ON fc.oid = k.confrelid
    LEFT JOIN pg_namespace AS fn ON fn.oid = fc.relnamespace
    WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c')
      AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
      -- For a partitioned table that is referred to, each partition has a constraint of its own.
      AND NOT EXISTS (SELECT FROM pg_constraint AS u WHERE u.oid = k.conparentid AND u.conrelid = k.conrelid)
  ) AS constraints,
  (
    SELECT array_agg(x.needed)
    FROM (
      SELECT format('GRANT TEMPORARY ON DATABASE %I TO %I;', current_database(), current_user) AS needed
      WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
      UNION ALL
      SELECT format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, current_user)
      WHERE NOT has_schema_privilege(n.oid, 'USAGE')
      UNION ALL
      SELECT format('GRANT SELECT, INSERT, UPDATE ON %I.%I TO %I;', n.nspname, c.relname, current_user)
      WHERE NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
        AND has_table_privilege(c.oid, 'UPDATE'))
      UNION ALL
      SELECT format('GRANT USAGE ON SEQUENCE %s TO %I;', s.refobjid::regclass, current_user)
      FROM pg_attrdef AS f
      JOIN pg_depend AS s ON s.classid = 'pg_attrdef'::regclass AND s.objid = f.oid AND s.refclassid = 'pg_class'::regclass
      JOIN pg_class AS sc ON sc.oid = s.refobjid
      WHERE f.adrelid = c.oid AND CASE WHEN sc.relkind = 'S' THEN NOT has_sequence_privilege(sc.oid, 'USAGE') END
    ) AS x
  ) AS missing_grants
FROM imports.dataset AS d
LEFT JOIN (pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace)
  ON n.nspname = d.table_schema AND c.relname = d.table_name
ORDER BY d.added_at, d.name;
