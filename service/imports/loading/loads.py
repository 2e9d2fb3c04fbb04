# ruff: noqa: S608 (names come from the contracts, which are code; values are parameters)
"""Build the SQL after the checks from a contract: vocabularies, repeats, orphans, quarantine, loading.

Every statement works on the temporary tables of `checks`. Its docstring names its parameters. A row with a
`problem` is quarantined. All other rows are loaded.
"""

from service.imports.datasets import DATASETS, Dataset, DatasetColumn, Reason
from service.imports.loading.checks import GIVEN, checked, landing, literal, quoted, trimmed

SHOWN = 60
NUMBER_BYTES = 200
OF_THE_SHAPE: tuple[Reason, ...] = ("field-count", "unknown-column", "encoding", "conflict")


def _list(columns: tuple[str, ...], prefix: str = "") -> str:
    return ", ".join(prefix + quoted(name) for name in columns)


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(map(literal, words))


def _equal(columns: tuple[str, ...], left: str, right: str) -> str:
    return " AND ".join(f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in columns)


def _shown(columns: tuple[str, ...]) -> str:
    """A key as text: `id a, breakpoint lg`."""
    return " || ', ' || ".join(
        f"{literal(name + ' ')} || left(c.{quoted(name)}::text, {SHOWN})" for name in columns
    )


def all_columns(dataset: Dataset) -> tuple[str, ...]:
    return tuple(column.name for column in dataset.columns)


def parent(column: DatasetColumn) -> Dataset:
    return next(dataset for dataset in DATASETS if dataset.name == column.refers_to)


def children(dataset: Dataset) -> list[Dataset]:
    """Datasets whose orphans may be released, directly or through other datasets, in the order of release."""
    found: list[Dataset] = []
    for other in DATASETS:
        references = {dataset.name, *(child.name for child in found)}
        if any(column.refers_to in references for column in other.columns):
            found.append(other)
    return found


def land_waiting(dataset: Dataset, where: str) -> str:
    """Copy open quarantined rows to the landing table, oldest first. `where` filters `q` (`quarantine.row`).

    A row of the wrong shape stays quarantined: its cells may belong to other columns.
    """
    cells = ", ".join(f"q.cells ->> {literal(name)}" for name in all_columns(dataset))
    return f"""INSERT INTO {landing(dataset)} (
      line, quarantine_id, reason, message, {_list(all_columns(dataset))}
    )
    SELECT q.line, q.id::text, s.reason, s.message, {cells}
    FROM quarantine.row AS q
    LEFT JOIN LATERAL (
      SELECT q.reason, q.message WHERE q.reason IN ({_quoted(OF_THE_SHAPE)})
    ) AS s ON true
    WHERE q.dataset = {literal(dataset.name)} AND q.status = 'open' AND {where}
    ORDER BY q.import_number, q.line, q.id"""


def reference_exists(dataset: Dataset) -> str:
    """The condition for orphans whose reference now exists."""
    arrived = " OR ".join(
        f"q.waits_for = {literal(column.refers_to)} AND EXISTS ("
        f"SELECT FROM {parent(column).target} AS p "
        f"WHERE p.{quoted(parent(column).key[0])}::text = q.waits_key)"
        for column in dataset.columns
        if column.refers_to
    )
    return f"q.reason = 'orphan' AND ({arrived})"


def refuse_closed(dataset: Dataset) -> str:
    """Refuse rows whose quarantined row is discarded or unknown. A fact that was loaded is a repeat."""
    return f"""UPDATE {checked(dataset)} AS c
    SET quarantine_id = NULL, repeated = r.repeats,
      problem = CASE WHEN r.refused THEN {GIVEN} ELSE c.problem END,
      reason = CASE WHEN r.refused THEN 'conflict' END,
      message = CASE WHEN r.refused
        THEN 'quarantine_id: "' || left(c.quarantine_id, {SHOWN}) || '" is no open row of this dataset' END
    FROM (
      SELECT c.nth, coalesce(q.status = 'loaded', false) AND {"false" if dataset.key else "true"} AS repeats,
        c.problem IS NULL AND q.status IS DISTINCT FROM 'loaded' AS refused
      FROM {checked(dataset)} AS c
      LEFT JOIN quarantine.row AS q
        ON q.dataset = {literal(dataset.name)} AND q.id::text = lower(c.quarantine_id)
      WHERE c.quarantine_id IS NOT NULL AND q.status IS DISTINCT FROM 'open'
    ) AS r
    WHERE r.nth = c.nth"""


def refuse_unmended(dataset: Dataset) -> str:
    """Refuse rows of the wrong shape that return unchanged: their cells may belong to other columns."""
    same = " AND ".join(
        f"coalesce(q.cells ->> {literal(name)}, '') = coalesce(l.{quoted(name)}, '')"
        for name in all_columns(dataset)
    )
    return f"""UPDATE {checked(dataset)} AS c
    SET problem = {GIVEN}, reason = q.reason, message = q.message
    FROM {landing(dataset)} AS l
    JOIN quarantine.row AS q
      ON q.dataset = {literal(dataset.name)} AND q.id::text = lower(l.quarantine_id)
    WHERE c.nth = l.nth AND c.quarantine_id IS NOT NULL AND q.status = 'open'
      AND q.reason IN ({_quoted(OF_THE_SHAPE)}) AND {same}"""


def doubt_points(dataset: Dataset) -> list[str]:
    numbers = [column for column in dataset.columns if column.kind == "number"]
    commas = " OR ".join(_shows_commas(dataset, column) for column in numbers)
    return [_doubt_points(dataset, column, commas) for column in numbers]


def _shows_commas(dataset: Dataset, column: DatasetColumn) -> str:
    """Whether a cell of the column has a decimal comma or points between thousands. It may have a unit."""
    cell = f"o.{quoted(column.name)}"
    return rf"""EXISTS (
        SELECT FROM {landing(dataset)} AS o
        WHERE ({cell} LIKE '%,%' OR {cell} LIKE '%.%.%') AND octet_length({cell}) <= {NUMBER_BYTES} AND (
          {cell} ~ '^([^,]*[^,[:alpha:]])?,[0-9]+([eE][+-]?[0-9]+)?[^0-9.,]*$'
          OR {cell} ~ '^[^0-9]*[0-9]{{1,3}}(\.[0-9]{{3}}){{2,}}[^0-9]*$'
        )
      )"""


def _doubt_points(dataset: Dataset, column: DatasetColumn, commas: str) -> str:
    """Quarantine `1.234` if other numbers of the file have a decimal comma or points between thousands."""
    cell = trimmed(f"l.{quoted(column.name)}")
    return rf"""UPDATE {checked(dataset)} AS c
    SET problem = {GIVEN}, reason = 'conflict',
      message = {literal(column.name + ': "')} || {cell}
        || '" may be a decimal or thousands: other numbers of the file have a decimal comma'
    FROM {landing(dataset)} AS l
    WHERE c.nth = l.nth AND c.problem IS NULL AND l.{quoted(column.name)} LIKE '%.___%'
      AND {cell} ~ '^[+-]?[1-9][0-9]{{0,2}}\.[0-9]{{3}}$'
      AND ({commas})"""


def unify_spelling(dataset: Dataset) -> list[str]:
    """Give each word of a vocabulary one spelling."""
    columns = [column for column in dataset.columns if column.vocabulary]
    return [
        text for column in columns for text in (_add_words(dataset, column), _replace_words(dataset, column))
    ]


def _add_words(dataset: Dataset, column: DatasetColumn) -> str:
    """Add new words to a vocabulary in the order of their first appearance."""
    word, vocabulary = quoted(column.name), literal(column.vocabulary)
    return f"""INSERT INTO data.vocabulary (list, folded, spelling, position)
    SELECT {vocabulary}, n.folded, n.spelling,
      coalesce((SELECT max(position) FROM data.vocabulary WHERE list = {vocabulary}), 0)
        + row_number() OVER (ORDER BY n.nth)
    FROM (
      SELECT DISTINCT ON (lower(s.spelling)) lower(s.spelling) AS folded, s.spelling, s.nth
      FROM (
        SELECT {word} AS spelling, min(nth) AS nth FROM {checked(dataset)}
        WHERE problem IS NULL AND {word} IS NOT NULL GROUP BY {word}
      ) AS s
      ORDER BY lower(s.spelling), s.nth
    ) AS n
    WHERE NOT EXISTS (SELECT FROM data.vocabulary AS v WHERE v.list = {vocabulary} AND v.folded = n.folded)"""


def _replace_words(dataset: Dataset, column: DatasetColumn) -> str:
    """Replace each word by its spelling in the vocabulary."""
    word = quoted(column.name)
    return f"""UPDATE {checked(dataset)} AS c SET {word} = k.spelling
    FROM (
      SELECT d.word, v.spelling
      FROM (SELECT DISTINCT {word} AS word FROM {checked(dataset)} WHERE {word} IS NOT NULL) AS d
      JOIN data.vocabulary AS v
        ON v.list = {literal(column.vocabulary)} AND v.folded = lower(d.word) AND v.spelling <> d.word
    ) AS k
    WHERE c.{word} = k.word"""


def repeats(dataset: Dataset) -> str:
    """In a file the first row of a key wins. An equal row is unchanged; a different row is a duplicate."""
    same = " AND ".join(
        f"{quoted(name)} IS NOT DISTINCT FROM first_value({quoted(name)}) OVER same_key"
        for name in dataset.values
    )
    return f"""UPDATE {checked(dataset)} AS c
    SET repeated = r.same,
      problem = CASE WHEN NOT r.same THEN {GIVEN} END,
      reason = CASE WHEN NOT r.same THEN 'duplicate' END,
      message = CASE WHEN NOT r.same
        THEN {_shown(dataset.key)} || ' is taken by line ' || r.first || ' with other content; the first wins'
      END
    FROM (
      SELECT nth, {same} AS same, row_number() OVER same_key AS turn, first_value(line) OVER same_key AS first
      FROM {checked(dataset)} WHERE problem IS NULL
      WINDOW same_key AS (PARTITION BY {_list(dataset.key)} ORDER BY nth)
    ) AS r
    WHERE r.nth = c.nth AND r.turn > 1"""


def refuse_conflicts(dataset: Dataset) -> str:
    """Refuse a row from quarantine if a row with the same key and other content was stored meanwhile."""
    return f"""UPDATE {checked(dataset)} AS c
    SET problem = {GIVEN}, reason = 'duplicate',
      message = {_shown(dataset.key)} || ' is taken by a stored row with other content'
    FROM {dataset.target} AS t
    WHERE c.problem IS NULL AND c.quarantine_id IS NOT NULL AND {_equal(dataset.key, "t", "c")}
      AND ({_list(dataset.values, "t.")}) IS DISTINCT FROM ({_list(dataset.values, "c.")})"""


def orphans(dataset: Dataset, column: DatasetColumn) -> str:
    cell, other = quoted(column.name), parent(column)
    return f"""UPDATE {checked(dataset)} AS c
    SET problem = {GIVEN}, reason = 'orphan', waits_for = {literal(other.name)}, waits_key = c.{cell}::text,
      message = {literal(column.name + ': "')} || left(c.{cell}::text, {SHOWN})
        || {literal(f'" is not among {other.name}; the row loads when it arrives')}
    WHERE c.problem IS NULL AND c.{cell} IS NOT NULL
      AND NOT EXISTS (SELECT FROM {other.target} AS p WHERE p.{quoted(other.key[0])} = c.{cell})"""


def close_valid(dataset: Dataset) -> str:
    """Close open quarantined rows of this source that are valid now. Parameter: source."""
    return f"""UPDATE quarantine.row AS q SET status = 'loaded', closed_at = now()
    FROM {checked(dataset)} AS c
    JOIN {landing(dataset)} AS l ON l.nth = c.nth
    WHERE c.problem IS NULL AND c.quarantine_id IS NULL AND q.dataset = {literal(dataset.name)}
      AND q.source = $1 AND q.status = 'open' AND q.cells = {_cells(dataset)}"""


def quarantine(dataset: Dataset, columns: tuple[str, ...]) -> str:
    """Quarantine the rows with a problem. A row that was quarantined before is not added again.

    `columns` are in the order of the file's headings. Parameters: source, import id, import number, the
    headings (null if every row has its own `raw`).
    """
    cells = ", ".join(f"coalesce(l.{quoted(name)}, '')" for name in columns)
    return f"""INSERT INTO quarantine.row AS q (dataset, id, source, line, raw, cells, reason, message,
      waits_for, waits_key, import_id, import_number)
    SELECT {literal(dataset.name)},
      md5(concat_ws(chr(31), {literal(dataset.name)}, $1::text, k.turn, k.raw))::uuid,
      $1, k.line, k.raw, k.cells, k.reason, k.message, k.waits_for, k.waits_key, $2, $3
    FROM (
      SELECT r.*, row_number() OVER (PARTITION BY r.raw ORDER BY r.nth) AS turn
      FROM (
        SELECT c.nth, c.line, c.reason, c.message, c.waits_for, c.waits_key, {_cells(dataset)} AS cells,
          coalesce(l.raw::jsonb, jsonb_object($4::text[], ARRAY[{cells}]::text[])) AS raw
        FROM {checked(dataset)} AS c
        JOIN {landing(dataset)} AS l ON l.nth = c.nth
        WHERE c.problem IS NOT NULL AND c.quarantine_id IS NULL
      ) AS r
    ) AS k
    ON CONFLICT (id, dataset) DO UPDATE
    SET reason = excluded.reason, message = excluded.message,
      waits_for = excluded.waits_for, waits_key = excluded.waits_key
    WHERE q.status = 'open' AND q.reason <> excluded.reason"""


def update_reasons(dataset: Dataset) -> str:
    """Update the reasons of rows from quarantine that are still invalid."""
    return f"""UPDATE quarantine.row AS q
    SET reason = c.reason, message = c.message, waits_for = c.waits_for, waits_key = c.waits_key
    FROM {checked(dataset)} AS c
    WHERE c.problem IS NOT NULL AND q.dataset = {literal(dataset.name)}
      AND q.id::text = lower(c.quarantine_id)
      AND (q.reason, q.message) IS DISTINCT FROM (c.reason, c.message)"""


def close(dataset: Dataset) -> str:
    """Mark valid rows from quarantine as loaded. A fixed row keeps its first `raw` as `original`."""
    return f"""UPDATE quarantine.row AS q
    SET status = 'loaded', closed_at = now(), raw = coalesce(l.raw::jsonb, q.raw),
      cells = {_cells(dataset)},
      original = CASE WHEN l.raw::jsonb <> q.raw THEN coalesce(q.original, q.raw) ELSE q.original END
    FROM {checked(dataset)} AS c
    JOIN {landing(dataset)} AS l ON l.nth = c.nth
    WHERE c.problem IS NULL AND q.dataset = {literal(dataset.name)} AND q.id::text = lower(c.quarantine_id)"""


def change(dataset: Dataset, present: set[str]) -> str:
    """Update stored rows from the file. `present` are the columns of the file."""
    values = [name for name in dataset.values if name in present]
    assigned = [f"{quoted(name)} = c.{quoted(name)}" for name in values]
    differs = [f"t.{quoted(name)} IS DISTINCT FROM c.{quoted(name)}" for name in values]
    if dataset.mirrored:
        assigned.append("gone_at = NULL")
        differs.append("t.gone_at IS NOT NULL")
    further = [dataset.row.on_update] if dataset.row.on_update else []
    return f"""UPDATE {dataset.target} AS t SET {", ".join(assigned + further)}
    FROM {checked(dataset)} AS c
    WHERE c.problem IS NULL AND NOT c.repeated AND {_equal(dataset.key, "t", "c")}
      AND ({" OR ".join(differs)})"""


def add(dataset: Dataset) -> str:
    columns = all_columns(dataset)
    return f"""INSERT INTO {dataset.target} ({_list(columns)})
    SELECT {_list(columns)} FROM {checked(dataset)} WHERE problem IS NULL AND NOT repeated
    ON CONFLICT ({_list(dataset.key)}) DO NOTHING"""


def number_facts(dataset: Dataset) -> str:
    """Identify each valid fact by the hash of its content and the number of its occurrence.

    Facts from quarantine are numbered after all stored facts and all facts of the file.
    """
    content = ", ".join(
        f"{literal(c.name)}, {'trim_scale(' if c.kind == 'number' else '('}{quoted(c.name)})"
        for c in dataset.columns
    )
    return f"""CREATE TEMPORARY TABLE "facts_{dataset.name}" ON COMMIT DROP AS
    SELECT f.*, CASE WHEN f.back THEN f.turn - f.plain + greatest(f.plain, (
        SELECT max(t.occurrence) FROM {dataset.target} AS t WHERE t.content_hash = f.content_hash
      )) ELSE f.turn END::integer AS occurrence
    FROM (
      SELECT nth, {_list(all_columns(dataset))}, content_hash, back,
        row_number() OVER (PARTITION BY content_hash ORDER BY back, nth) AS turn,
        count(*) FILTER (WHERE NOT back) OVER (PARTITION BY content_hash) AS plain
      FROM (
        SELECT *, quarantine_id IS NOT NULL AS back,
          md5(jsonb_strip_nulls(jsonb_build_object({content}))::text)::uuid AS content_hash
        FROM {checked(dataset)} WHERE problem IS NULL AND NOT repeated
      ) AS h
    ) AS f"""


def facts(dataset: Dataset) -> str:
    return f'pg_temp."facts_{dataset.name}"'


def add_facts(dataset: Dataset) -> str:
    columns = _list((*all_columns(dataset), "content_hash", "occurrence"))
    return f"""INSERT INTO {dataset.target} ({columns}) SELECT {columns} FROM {facts(dataset)} ORDER BY nth
    ON CONFLICT (content_hash, occurrence) DO NOTHING"""


def return_facts(dataset: Dataset) -> str:
    """Unmark facts that were gone and are in the file again."""
    return f"""UPDATE {dataset.target} AS t SET gone_at = NULL FROM {facts(dataset)} AS f
    WHERE t.gone_at IS NOT NULL AND {_equal(("content_hash", "occurrence"), "t", "f")}"""


def mark_gone(dataset: Dataset) -> str:
    """Mark stored rows that the file lacks as gone. An invalid row of the file still counts as present."""
    if not dataset.key:
        return f"""UPDATE {dataset.target} AS t SET gone_at = now()
        WHERE t.gone_at IS NULL AND t.content_hash IS NOT NULL AND NOT EXISTS (
          SELECT FROM {facts(dataset)} AS f WHERE {_equal(("content_hash", "occurrence"), "t", "f")}
        )"""
    as_text = " AND ".join(f"btrim(l.{quoted(name)}) = t.{quoted(name)}::text" for name in dataset.key)
    return f"""UPDATE {dataset.target} AS t SET gone_at = now()
    WHERE t.gone_at IS NULL
      AND NOT EXISTS (SELECT FROM {checked(dataset)} AS c
        WHERE c.problem IS NULL AND {_equal(dataset.key, "t", "c")})
      AND NOT EXISTS (SELECT FROM {checked(dataset)} AS c JOIN {landing(dataset)} AS l ON l.nth = c.nth
        WHERE c.problem IS NOT NULL AND {as_text})"""


def drop(dataset: Dataset) -> list[str]:
    """Drop the temporary tables, because the transaction may continue, such as after a savepoint."""
    return [f"DROP TABLE IF EXISTS {name}" for name in (landing(dataset), checked(dataset), facts(dataset))]


def count_rows(dataset: Dataset) -> str:
    return f"SELECT count(*) AS number FROM {dataset.target}"


def count_checked(dataset: Dataset) -> str:
    """Count rows by reason. Valid rows have no reason."""
    return f"SELECT reason, count(*) AS rows FROM {checked(dataset)} GROUP BY reason"


def sql_to_validate(dataset: Dataset, column: DatasetColumn) -> str:
    """Read a page of SQL to validate. Parameters: the last row number read, the number of rows."""
    return f"""SELECT nth, {quoted(column.name)} AS sql FROM {checked(dataset)}
    WHERE problem IS NULL AND {quoted(column.name)} IS NOT NULL AND nth > $1 ORDER BY nth LIMIT $2"""


def refuse(dataset: Dataset) -> str:
    """Refuse rows whose SQL is invalid. Parameters: row numbers and messages, as arrays of equal length."""
    return f"""UPDATE {checked(dataset)} AS c
    SET problem = {GIVEN}, reason = 'sql-refused', message = r.message
    FROM unnest($1::bigint[], $2::text[]) AS r(nth, message) WHERE c.nth = r.nth"""


def _cells(dataset: Dataset) -> str:
    cells = ", ".join(f"{literal(name)}, l.{quoted(name)}" for name in all_columns(dataset))
    return f"jsonb_strip_nulls(jsonb_build_object({cells}))"
