"""Plan an import: from a dataset and a file's columns to the statements of the import, in their order.

A plan is made once the rows have landed, and is then only run (`run/pipeline.py`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import Struct

from service.database.queries import Command, SqlFile, Statement
from service.imports.contracts import Dataset, DatasetColumn
from service.imports.plan import cells, keeping, rules, storing, tables
from service.imports.plan.cells import CHECKED
from service.imports.readers.tables import Table

SQL: Final = SqlFile(Path(__file__).parents[1] / "queries.sql")
REFUSE_CLOSED: Final = SQL.command("refuse_closed")
UPDATE_REASONS: Final = SQL.command("update_reasons")
TRY_RULE: Final = SQL.command("try_rule")


class Run(Struct, frozen=True):
    """An import in the history of its dataset. The id is derived from dataset, number and file."""

    id: UUID
    number: int
    source: str
    file_hash: str


class SqlText(Struct, frozen=True):
    """A stored SQL text to validate, and the row that holds it."""

    nth: int
    sql: str


class Stored(Struct, frozen=True):
    """How many rows a table of the user took."""

    rows: int


class Step(Struct, frozen=True):
    """A statement. `adds_to` names the figure of the report that its rows add to.

    A step that `repeats` runs until it changes no row: a row that waits may make others wait.
    """

    command: Command | Statement[Stored]
    args: tuple[Any, ...] = ()
    adds_to: Literal["inserted", "updated", "gone"] | None = None
    repeats: bool = False


class ImportPlan(Struct, frozen=True):
    """The steps of an import into one dataset. A `Statement` reads SQL texts that the service validates.

    `announces` names a table that may lack the triggers which announce its changes.
    """

    dataset: str
    steps: tuple[Step | Statement[SqlText], ...]
    announces: tuple[str, str] | None = None


def plan_import(dataset: Dataset, run: Run, table: Table, *, mirror: bool) -> ImportPlan:
    """Plan the import of a file whose rows have landed."""
    headings = list(table.headings) or None
    columns = table.columns if table.headings else ()
    return ImportPlan(
        dataset.name,
        (
            *_checks(dataset),
            *(_refuse_returned(dataset) if table.returns else ()),
            *_rules(dataset, table.present, returns=table.returns),
            *_store(dataset, table.present),
            _step("close_equal", keeping.close_equal(dataset), run.source),
            _step(
                "quarantine",
                keeping.quarantine(dataset, columns),
                run.source,
                run.id,
                run.number,
                headings,
            ),
            *(_keep_returned(dataset) if table.returns else ()),
            *([Step(_command("mark_gone", storing.mark_gone(dataset)), adds_to="gone")] if mirror else ()),
        ),
        _announced(dataset),
    )


def plan_return(dataset: Dataset) -> ImportPlan:
    """Plan another try of rows from quarantine. Rows that are still invalid stay there."""
    return ImportPlan(
        dataset.name,
        (
            *_checks(dataset),
            _step("refuse_errors", keeping.refuse_errors(dataset)),
            *_rules(dataset, None, returns=True),
            *_store(dataset, None),
            *_keep_returned(dataset),
        ),
        _announced(dataset),
    )


def _announced(dataset: Dataset) -> tuple[str, str] | None:
    return (dataset.schema, dataset.table) if dataset.derived else None


def _checks(dataset: Dataset) -> Iterator[Step]:
    yield _step("check", cells.check(dataset))


def _refuse_returned(dataset: Dataset) -> Iterator[Step]:
    """Refuse rows that name a quarantined row which they may not close."""
    yield Step(REFUSE_CLOSED, (dataset.name, not dataset.key))
    yield _step("refuse_unmended", keeping.refuse_unmended(dataset))
    yield _step("refuse_errors", keeping.refuse_errors(dataset))


def _rules(
    dataset: Dataset, present: set[str] | None, *, returns: bool
) -> Iterator[Step | Statement[SqlText]]:
    for sql in rules.doubt_points(dataset):
        yield _step("doubt_points", sql)
    for column in dataset.columns:
        if column.vocabulary:
            yield _step("add_words", rules.add_words(column))
            yield _step("use_known_spelling", rules.use_known_spelling(column))
    if dataset.key and len(dataset.key) < len(dataset.columns):
        yield _step("refuse_repeats", rules.refuse_repeats(dataset))
        if returns:
            yield _step("refuse_conflicts", rules.refuse_conflicts(dataset))
    yield from (_sql_to_validate(column) for column in dataset.columns if column.kind == "sql")
    for rule in dataset.rules:
        if present is None or present.issuperset(rule.columns):
            yield Step(TRY_RULE, (rules.break_rule(dataset, rule),))
    for reference in dataset.references:
        command = _command("find_orphans", rules.find_orphans(dataset, reference))
        yield Step(command, repeats=reference.to == dataset.target)
    yield _step("explain", cells.explain(dataset))


def _store(dataset: Dataset, present: set[str] | None) -> Iterator[Step]:
    if dataset.derived:
        yield from _store_in_table(dataset, present)
        return
    present = set(dataset.names) if present is None else present
    if not dataset.key:
        yield _step("number_facts", storing.number_facts(dataset))
        yield Step(_command("insert_facts", storing.insert_facts(dataset)), adds_to="inserted")
        yield Step(_command("unmark_facts", storing.unmark_facts(dataset)), adds_to="updated")
        return
    if dataset.mirrored or present - set(dataset.key):
        yield Step(_command("update_changed", storing.update_changed(dataset, present)), adds_to="updated")
    yield Step(_command("insert_new", storing.insert_new(dataset)), adds_to="inserted")


def _store_in_table(dataset: Dataset, present: set[str] | None) -> Iterator[Step]:
    if present == set():
        return  # no row of the file has a column, so none is valid
    if not dataset.key:
        yield _step("choose_facts", tables.choose_facts(dataset, present))
    elif dataset.mirrored or (present or set(dataset.names)) - set(dataset.key):
        update = tables.update_changed(dataset, present or set(dataset.names))
        yield Step(Statement("update_changed", tables.store(update), Stored), adds_to="updated")
    insert = tables.insert_new(dataset, present)
    yield Step(Statement("insert_new", tables.store(insert), Stored), adds_to="inserted")


def _keep_returned(dataset: Dataset) -> Iterator[Step]:
    yield Step(UPDATE_REASONS, (dataset.name,))
    yield _step("close_returned", keeping.close_returned(dataset))


def _sql_to_validate(column: DatasetColumn) -> Statement[SqlText]:
    """Read a page of SQL texts. Parameters: the last row number read, the number of rows."""
    sql = f"""SELECT nth, {column.cell} AS sql FROM {CHECKED}
    WHERE problem IS NULL AND {column.cell} IS NOT NULL AND nth > $1 ORDER BY nth LIMIT $2"""  # noqa: S608
    return Statement("sql_to_validate", sql, SqlText)


def _step(name: str, sql: str, *args: Any) -> Step:
    return Step(_command(name, sql), args)


def _command(name: str, sql: str) -> Command:
    return Command(name, sql)
