# ruff: noqa: S608 (names and values are quoted)
"""Rules over several rows: decimal commas, vocabularies, repeats, conflicts, orphans.

Each statement sets `problem`, `reason` and `message` of the checked rows that break its rule.
"""

from collections.abc import Iterator

from service.database.queries import literal, quoted
from service.imports.contracts import Dataset, DatasetColumn, Reason, Reference, TableRule
from service.imports.plan.cells import CHECKED, GIVEN, LANDED, trimmed

SHOWN = 60
NUMBER_BYTES = 200
OF_THE_SHAPE: tuple[Reason, ...] = ("field-count", "unknown-column", "encoding", "conflict", "cell-error")


def key_equals_stored(dataset: Dataset) -> str:
    """The condition that the checked row `c` and the stored row `t` have the same key."""
    return " AND ".join(f"t.{quoted(name)} = c.{dataset.cells[name]}" for name in dataset.key)


def compared(column: DatasetColumn, value: str) -> str:
    """The value in a form that can be compared. Some types (`json`, `point`) know no equality."""
    return value if column.comparable else f"{value}::text"


def doubt_points(dataset: Dataset) -> Iterator[str]:
    numbers = [column for column in dataset.columns if column.kind == "number"]
    commas = " OR ".join(map(_shows_commas, numbers))
    return (_doubt_points(column, commas) for column in numbers)


def _shows_commas(column: DatasetColumn) -> str:
    """Whether a cell of the column has a decimal comma or points between thousands. It may have a unit."""
    cell = f"o.{column.cell}"
    return rf"""EXISTS (
        SELECT FROM {LANDED} AS o
        WHERE ({cell} LIKE '%,%' OR {cell} LIKE '%.%.%') AND octet_length({cell}) <= {NUMBER_BYTES} AND (
          {cell} ~ '^([^,]*[^,[:alpha:]])?,[0-9]+([eE][+-]?[0-9]+)?[^0-9.,]*$'
          OR {cell} ~ '^[^0-9]*[0-9]{{1,3}}(\.[0-9]{{3}}){{2,}}[^0-9]*$'
        )
      )"""


def _doubt_points(column: DatasetColumn, commas: str) -> str:
    """Doubt `1.234` if other numbers of the file have a decimal comma or points between thousands."""
    cell = trimmed(f"l.{column.cell}")
    return rf"""UPDATE {CHECKED} AS c
    SET problem = {GIVEN}, reason = 'conflict',
      message = {literal(column.name + ': "')} || {cell}
        || '" may be a decimal or thousands: other numbers of the file have a decimal comma'
    FROM {LANDED} AS l
    WHERE c.nth = l.nth AND c.problem IS NULL AND l.{column.cell} LIKE '%.___%'
      AND {cell} ~ '^[+-]?[1-9][0-9]{{0,2}}\.[0-9]{{3}}$'
      AND ({commas})"""


def add_words(column: DatasetColumn) -> str:
    """Add new words to a vocabulary in the order of their first appearance."""
    word, vocabulary = column.cell, literal(column.vocabulary)
    return f"""INSERT INTO data.vocabulary (list, folded, spelling, position)
    SELECT {vocabulary}, n.folded, n.spelling,
      coalesce((SELECT max(position) FROM data.vocabulary WHERE list = {vocabulary}), 0)
        + row_number() OVER (ORDER BY n.nth)
    FROM (
      SELECT DISTINCT ON (lower(s.spelling)) lower(s.spelling) AS folded, s.spelling, s.nth
      FROM (
        SELECT {word} AS spelling, min(nth) AS nth FROM {CHECKED}
        WHERE problem IS NULL AND {word} IS NOT NULL GROUP BY {word}
      ) AS s
      ORDER BY lower(s.spelling), s.nth
    ) AS n
    WHERE NOT EXISTS (SELECT FROM data.vocabulary AS v WHERE v.list = {vocabulary} AND v.folded = n.folded)"""


def use_known_spelling(column: DatasetColumn) -> str:
    """Give each word its spelling in the vocabulary."""
    word = column.cell
    return f"""UPDATE {CHECKED} AS c SET {word} = k.spelling
    FROM (
      SELECT d.word, v.spelling
      FROM (SELECT DISTINCT {word} AS word FROM {CHECKED} WHERE {word} IS NOT NULL) AS d
      JOIN data.vocabulary AS v
        ON v.list = {literal(column.vocabulary)} AND v.folded = lower(d.word) AND v.spelling <> d.word
    ) AS k
    WHERE c.{word} = k.word"""


def refuse_repeats(dataset: Dataset) -> str:
    """In a file the first row of a key wins. An equal row is unchanged; a different row is a duplicate."""
    values = [compared(column, column.cell) for column in dataset.columns if not column.key]
    same = " AND ".join(f"{cell} IS NOT DISTINCT FROM first_value({cell}) OVER same_key" for cell in values)
    key = ", ".join(dataset.cells[name] for name in dataset.key)
    return f"""UPDATE {CHECKED} AS c
    SET repeated = r.same,
      problem = CASE WHEN NOT r.same THEN {GIVEN} END,
      reason = CASE WHEN NOT r.same THEN 'duplicate' END,
      message = CASE WHEN NOT r.same THEN {_shown(dataset, dataset.key)}
        || ' is taken by line ' || r.first || ' with other content; the first wins' END
    FROM (
      SELECT nth, {same} AS same, row_number() OVER same_key AS turn, first_value(line) OVER same_key AS first
      FROM {CHECKED} WHERE problem IS NULL
      WINDOW same_key AS (PARTITION BY {key} ORDER BY nth)
    ) AS r
    WHERE r.nth = c.nth AND r.turn > 1"""


def refuse_conflicts(dataset: Dataset) -> str:
    """Refuse a row from quarantine if a row with the same key and other content was stored meanwhile."""
    values = [column for column in dataset.columns if not column.key]
    stored = ", ".join(compared(column, f"t.{quoted(column.name)}") for column in values)
    given = ", ".join(compared(column, f"c.{column.cell}") for column in values)
    return f"""UPDATE {CHECKED} AS c
    SET problem = {GIVEN}, reason = 'duplicate',
      message = {_shown(dataset, dataset.key)} || ' is taken by a stored row with other content'
    FROM {dataset.target} AS t
    WHERE c.problem IS NULL AND c.quarantine_id IS NOT NULL AND {key_equals_stored(dataset)}
      AND ({stored}) IS DISTINCT FROM ({given})"""


def find_orphans(dataset: Dataset, reference: Reference) -> str:
    """Rows that refer to nothing wait until it arrives. A row of the same file may be what is referred to."""
    cells = [dataset.cells[name] for name in reference.columns]
    given = " AND ".join(f"c.{cell} IS NOT NULL" for cell in cells)
    found = " AND ".join(
        f"p.{quoted(name)} = c.{cell}" for name, cell in zip(reference.to_columns, cells, strict=True)
    )
    in_file = ""
    if reference.to == dataset.target and set(reference.to_columns) <= set(dataset.names):
        same = " AND ".join(
            f"p.{dataset.cells[name]} = c.{cell}"
            for name, cell in zip(reference.to_columns, cells, strict=True)
        )
        in_file = f"AND NOT EXISTS (SELECT FROM {CHECKED} AS p WHERE p.problem IS NULL AND {same})"
    waits_key = "concat_ws(', ', " + ", ".join(f"c.{cell}::text" for cell in cells) + ")"
    return f"""UPDATE {CHECKED} AS c
    SET problem = {GIVEN}, reason = 'orphan',
      waits_for = {literal(reference.to_name)}, waits_key = {waits_key},
      message = {literal(", ".join(reference.columns) + ': "')} || left({waits_key}, {SHOWN})
        || {literal(f'" is not among {reference.to_name}; the row loads when it arrives')}
    WHERE c.problem IS NULL AND {given}
      AND NOT EXISTS (SELECT FROM {reference.to} AS p WHERE {found}) {in_file}"""


def break_rule(dataset: Dataset, rule: TableRule) -> str:
    """Refuse rows that break a CHECK constraint, which the table itself would refuse one by one."""
    nth = "nth"
    while nth in dataset.names:
        nth += "_"
    named = ", ".join(f"{column.cell} AS {quoted(column.name)}" for column in dataset.columns)
    texts = {name: f"left(c.{dataset.cells[name]}::text, {SHOWN})" for name in rule.columns}
    shown = " || ', ' || ".join(
        f"{literal(f'{name}: ')} || coalesce('\"' || {text} || '\"', 'nothing')"
        for name, text in texts.items()
    )
    return f"""UPDATE {CHECKED} AS c
    SET problem = {GIVEN}, reason = 'out-of-range',
      message = {shown} || {literal(f" breaks {rule.name}: {rule.definition}")}
    WHERE c.nth IN (
      SELECT {nth}
      FROM (SELECT nth AS {nth}, {named} FROM {CHECKED} WHERE problem IS NULL) AS {quoted(dataset.table)}
      WHERE ({rule.expression}) IS FALSE
    )"""


def _shown(dataset: Dataset, columns: tuple[str, ...]) -> str:
    """A key as text: `id a, breakpoint lg`."""
    return " || ', ' || ".join(
        f"{literal(name + ' ')} || left(c.{dataset.cells[name]}::text, {SHOWN})" for name in columns
    )
