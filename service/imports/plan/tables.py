# ruff: noqa: S608 (names and values are quoted)
"""Store the valid rows of a derived dataset: the table itself has the last word on each row.

Its own constraints, triggers and defaults hold. `imports.store_rows` runs each statement here over a range of
row numbers ($1 to $2) and finds the rows that the table refuses. `present` are the columns of the file, None
for rows from quarantine: what their file had is not known.
"""

from service.database.queries import literal, quoted
from service.imports.contracts import Dataset, DatasetColumn
from service.imports.plan.cells import CHECKED
from service.imports.plan.rules import compared, key_equals_stored

FACTS = "pg_temp.facts"
RANGE = "c.problem IS NULL AND NOT c.repeated AND c.nth BETWEEN $1 AND $2"


def update_changed(dataset: Dataset, present: set[str]) -> str:
    """Update what differs. An empty cell of a column that cannot be empty leaves the stored value."""
    values = [column for column in dataset.columns if not column.key and column.name in present]
    pairs = [(column, f"t.{quoted(column.name)}", _kept(column)) for column in values]
    assigned = [f"{quoted(column.name)} = {given}" for column, _, given in pairs]
    differs = [
        f"{compared(column, stored)} IS DISTINCT FROM {compared(column, f'({given})')}"
        for column, stored, given in pairs
    ]
    if dataset.mirrored:
        assigned.append("gone_at = NULL")
        differs.append("t.gone_at IS NOT NULL")
    return f"""UPDATE {dataset.target} AS t SET {", ".join(assigned)}
    FROM {CHECKED} AS c
    WHERE {RANGE} AND {key_equals_stored(dataset)} AND ({" OR ".join(differs)})"""


def insert_new(dataset: Dataset, present: set[str] | None) -> str:
    """Insert the rows whose key is new, or all numbered facts."""
    columns = [column for column in dataset.columns if present is None or column.name in present]
    names = ", ".join(quoted(column.name) for column in columns)
    values = ", ".join(_given(column) for column in columns)
    key = ", ".join(map(quoted, dataset.key))
    new = f"ON CONFLICT ({key}) DO NOTHING" if key else ""
    only = "" if key else f"AND c.nth IN (SELECT nth FROM {FACTS})"
    return f"""INSERT INTO {dataset.target} ({names})
    SELECT {values} FROM {CHECKED} AS c WHERE {RANGE} {only} ORDER BY c.nth {new}"""


def choose_facts(dataset: Dataset, present: set[str] | None) -> str:
    """Choose the facts to insert: those that the table does not hold as often as the file does.

    Facts are compared by the file's columns. A fact from quarantine is always new.
    """
    columns = [column for column in dataset.columns if present is None or column.name in present]
    given = _content(columns, [_given(column) for column in columns])
    stored = _content(columns, [f"t.{quoted(column.name)}" for column in columns])
    return f"""CREATE TEMPORARY TABLE facts ON COMMIT DROP AS
    WITH given AS (
      SELECT c.nth, c.quarantine_id IS NOT NULL AS back, {given} AS content
      FROM {CHECKED} AS c WHERE c.problem IS NULL AND NOT c.repeated
    ), stored AS (
      SELECT s.content, count(*) AS times
      FROM (SELECT {stored} AS content FROM {dataset.target} AS t) AS s
      WHERE s.content IN (SELECT content FROM given WHERE NOT back)
      GROUP BY s.content
    )
    SELECT g.nth
    FROM (
      SELECT nth, back, content, row_number() OVER (PARTITION BY content, back ORDER BY nth) AS turn
      FROM given
    ) AS g
    LEFT JOIN stored AS s ON s.content = g.content
    WHERE g.back OR g.turn > coalesce(s.times, 0)"""


def store(statement: str) -> str:
    return f"SELECT imports.store_rows({literal(statement)}) AS rows"


def _content(columns: list[DatasetColumn], cells: list[str]) -> str:
    """A hash of these values. Trailing zeros of a number say nothing."""
    plain = [
        f"trim_scale({cell})" if column.type.startswith("numeric") else cell
        for column, cell in zip(columns, cells, strict=True)
    ]
    return f"md5(ROW({', '.join(plain)})::text)::uuid"


def _given(column: DatasetColumn) -> str:
    """The cell to insert. The table's default stands for an empty cell that may not be empty.

    It also stands for the empty cells of a row from quarantine, whose file may have lacked the column.
    """
    cell = f"c.{column.cell}"
    if column.default is None:
        return cell
    default = f"coalesce({cell}, {column.default})"
    return f"CASE WHEN c.quarantine_id IS NULL THEN {cell} ELSE {default} END" if column.nullable else default


def _kept(column: DatasetColumn) -> str:
    cell = f"c.{column.cell}"
    return cell if column.nullable else f"coalesce({cell}, t.{quoted(column.name)})"
