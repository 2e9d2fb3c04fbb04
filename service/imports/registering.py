"""Make a user's table a dataset, and undo it. Nothing of the table changes except what the answer tells."""

import re
from typing import Final

from msgspec import Struct

from service import audit
from service.audit import Actor
from service.database.gateway import Database, Transaction
from service.database.queries import Command, literal, quoted
from service.errors import Conflict, FieldError, InvalidInput, NotFound
from service.imports.contracts import Dataset, find_among, fold
from service.imports.derived import GONE, SQL, TABLES, read_datasets
from service.imports.run.pipeline import TAKE_TURN

OWN_SCHEMAS: Final = {"app", "catalog", "imports", "quarantine"}
NAME: Final = re.compile(r"\w[\w-]*")
NAME_BYTES: Final = 60
REGISTER: Final = ""
"""The name whose lock registrations take: no dataset has it."""
KINDS: Final = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


class NewDataset(Struct, frozen=True, forbid_unknown_fields=True):
    """`key` names columns of a primary key or unique constraint; an empty list makes the rows facts.

    Words of `vocabulary` columns keep one spelling. `mirror` adds a column that marks rows as gone.
    """

    table: str
    name: str | None = None
    key: list[str] | None = None
    vocabulary: list[str] = []
    mirror: bool = False


class AddedDataset(Struct, frozen=True):
    """`added` tells what was added to the database, and to the table itself."""

    name: str
    table: str
    description: str
    key: tuple[str, ...]
    added: list[str]


class _Table(Struct, frozen=True):
    schema: str
    name: str
    kind: str


class _Taken(Struct, frozen=True):
    taken: bool


class _Rows(Struct, frozen=True):
    rows: int


class _Undo(Struct, frozen=True):
    undo: list[str]


class _Secured(Struct, frozen=True):
    secured: bool


FIND_TABLES: Final = SQL.rows("find_tables", _Table)
LIMIT_WAITING: Final = SQL.command("limit_waiting")
PARTITION_NAME: Final = SQL.rows("partition_name", _Taken)
ADD_DATASET: Final = SQL.command("add_dataset")
NOTE_UNDO: Final = SQL.command("note_undo")
REMOVE_DATASET: Final = SQL.command("remove_dataset")
FORGET_RUNS: Final = SQL.command("forget_runs")
FORGET_WORDS: Final = SQL.command("forget_words")
UNDO_OF: Final = SQL.rows("undo_of", _Undo)
COUNT_OPEN: Final = SQL.rows("count_open", _Rows)
HAS_ROW_SECURITY: Final = SQL.rows("has_row_security", _Secured)


async def add_dataset(
    database: Database | Transaction, new: NewDataset, reader: str, actor: Actor
) -> AddedDataset:
    """Raises `NotFound` for the table, `Conflict` if it or the name is taken, else `InvalidInput`."""
    _refuse_bad_text(new)
    async with database.transaction() as tx:
        await tx.write(LIMIT_WAITING)
        await tx.read_one(TAKE_TURN, REGISTER)
        table = await _table(tx, new.table)
        datasets = await read_datasets(tx)
        name = new.name or _default_name(table, datasets)
        await _refuse_taken(tx, table, name, datasets)
        await tx.write(ADD_DATASET, name, table.schema, table.name, new.key, new.vocabulary)
        dataset = find_among(await read_datasets(tx), name)
        assert dataset, "stored above"
        _refuse_unfit(dataset, new)
        added = [await add_quarantine(tx, dataset.name)]
        for column in dataset.columns:
            if column.vocabulary:
                await tx.write(_add_words(dataset, column.name, column.vocabulary))
                added.append(f"words of {column.name} in data.vocabulary, as the list {column.vocabulary}")
        if new.mirror:
            added += await _add_mirror(tx, dataset, reader)
        await audit.record(tx, actor, "datasets.create", name)
    shown = f"{table.schema}.{table.name}"
    return AddedDataset(name, shown, dataset.description, dataset.key, added)


async def remove_dataset(database: Database | Transaction, name: str, actor: Actor, *, force: bool) -> None:
    """Undo `add_dataset`. Raises `NotFound`, and `Conflict` if rows wait in quarantine and not `force`."""
    datasets = await read_datasets(database)
    dataset = find_among(datasets, name)
    if dataset is None:
        known = ", ".join(each.name for each in datasets if each.derived) or "none"
        raise NotFound(f"There is no dataset {name[:60]!r}; those that can be removed are: {known}.")
    if not dataset.derived:
        raise Conflict(f"The dataset {dataset.name} is built in and cannot be removed.")
    async with database.transaction() as tx:
        await tx.write(LIMIT_WAITING)
        await tx.read_one(TAKE_TURN, REGISTER)
        await tx.read_one(TAKE_TURN, dataset.name)
        undo = await tx.read_one(UNDO_OF, dataset.name)
        if undo is None:
            raise NotFound(f"There is no dataset {dataset.name!r}.")
        waiting = await tx.read_one(COUNT_OPEN, dataset.name)
        if waiting and waiting.rows and not force:
            raise Conflict(
                f"{waiting.rows} rows of {dataset.name} wait in quarantine and would be lost: export them "
                f"(GET /api/v1/quarantine/export?dataset={dataset.name}), or remove it with force."
            )
        for statement in undo.undo:
            await tx.write(Command("undo", statement))
        await tx.write(Command("drop_quarantine", f"DROP TABLE quarantine.{quoted(dataset.name)}"))
        for command in (REMOVE_DATASET, FORGET_RUNS, FORGET_WORDS):
            await tx.write(command, dataset.name)
        await audit.record(tx, actor, "datasets.delete", dataset.name)


def _refuse_bad_text(new: NewDataset) -> None:
    texts = {"table": [new.table], "key": new.key or [], "vocabulary": new.vocabulary}
    wrong = [field for field, values in texts.items() if any("\0" in value for value in values)]
    if wrong:
        raise InvalidInput(errors=tuple(FieldError(field, "holds NUL") for field in wrong))
    if new.name is not None and not _is_name(new.name):
        raise InvalidInput(
            errors=(FieldError("name", f"letters, digits, _ and -, at most {NAME_BYTES} bytes"),)
        )


def _is_name(name: str) -> bool:
    return bool(NAME.fullmatch(name) and fold(name)) and len(name.encode()) <= NAME_BYTES


def _default_name(table: _Table, datasets: tuple[Dataset, ...]) -> str:
    """The table's name, with its schema if another dataset is named so."""
    name = re.sub(r"\W+", "_", table.name.lower()).strip("_")
    if find_among(datasets, name):
        name = re.sub(r"\W+", "_", f"{table.schema}_{table.name}".lower()).strip("_")
    if not _is_name(name):
        raise InvalidInput(
            errors=(FieldError("name", f"the table {table.name!r} gives none: name the dataset"),)
        )
    return name


async def _table(tx: Transaction, wanted: str) -> _Table:
    """Find the one table that is meant. Raises `NotFound` and `InvalidInput`."""
    found = await tx.read(FIND_TABLES, wanted)
    if not found:
        raise NotFound(f"There is no table {wanted[:130]}: name it as schema.table.")
    if len(found) > 1:
        several = ", ".join(f"{quoted(each.schema)}.{quoted(each.name)}" for each in found)
        raise InvalidInput(errors=(FieldError("table", f"several tables are named so: {several}"),))
    table = found[0]
    if table.kind not in TABLES:
        raise InvalidInput(errors=(FieldError("table", f"{wanted} is {KINDS[table.kind]}, not a table"),))
    if table.schema in OWN_SCHEMAS:
        raise InvalidInput(errors=(FieldError("table", f"{wanted} is one of Tally's own tables"),))
    return table


async def _refuse_taken(tx: Transaction, table: _Table, name: str, datasets: tuple[Dataset, ...]) -> None:
    """Raises `Conflict` if the table or the name belongs to a dataset."""
    target = f"{quoted(table.schema)}.{quoted(table.name)}"
    for other in datasets:
        if other.target == target:
            raise Conflict(f"{table.schema}.{table.name} is the dataset {other.name} already.")
        if fold(other.name) == fold(name):
            raise Conflict(f"There is a dataset {other.name} already, of {other.target}: give another name.")
    taken = await tx.read_one(PARTITION_NAME, name)
    if taken and taken.taken:
        raise Conflict(f"The name {name} is taken in the schema quarantine: give another name.")


def _refuse_unfit(dataset: Dataset, new: NewDataset) -> None:
    """Raises `InvalidInput` for a table that cannot be imported, or not so."""
    if dataset.fault:
        raise InvalidInput(dataset.fault)
    columns = {column.name: column for column in dataset.columns}
    for field, names in (("key", new.key or []), ("vocabulary", new.vocabulary)):
        for name in names:
            if name not in columns:
                known = ", ".join(columns)
                raise InvalidInput(
                    errors=(FieldError(field, f"no column {name!r} to import; there are {known}"),)
                )
    for name in new.vocabulary:
        if columns[name].kind != "text":
            raise InvalidInput(errors=(FieldError("vocabulary", f"{name} is {columns[name].type}, no text"),))
    if new.mirror and not dataset.key:
        raise InvalidInput(errors=(FieldError("mirror", "rows without a key cannot be mirrored"),))
    if new.mirror and GONE in columns:
        raise InvalidInput(errors=(FieldError("mirror", f"the table has a column {GONE} of its own"),))


async def add_quarantine(tx: Transaction, dataset: str) -> str:
    """Add the table of a dataset's quarantined rows. Returns what was added.

    Attached, not created as a partition: so running imports are not waited for.
    """
    name = f"quarantine.{quoted(dataset)}"
    await tx.write(Command("create_quarantine", f'CREATE TABLE {name} (LIKE quarantine."row" INCLUDING ALL)'))
    attach = f'ALTER TABLE quarantine."row" ATTACH PARTITION {name} FOR VALUES IN ({literal(dataset)})'
    await tx.write(Command("attach_quarantine", attach))
    return f"table {name}, where rows wait that break the contract"


async def _add_mirror(tx: Transaction, dataset: Dataset, reader: str) -> list[str]:
    """Add the column that marks rows as gone, and a policy that hides them from the reader alone."""
    table, role = dataset.target, quoted(reader)
    secured = await tx.read_one(HAS_ROW_SECURITY, dataset.schema, dataset.table)
    statements = [
        f"ALTER TABLE {table} ADD COLUMN {GONE} timestamptz",
        f"CREATE POLICY tally_present ON {table} AS RESTRICTIVE FOR SELECT TO {role} USING ({GONE} IS NULL)",
    ]
    undo = [
        f"DROP POLICY IF EXISTS tally_present ON {table}",
        f"ALTER TABLE IF EXISTS {table} DROP COLUMN IF EXISTS {GONE}",
    ]
    if secured and not secured.secured:
        statements += [
            f"CREATE POLICY tally_everybody ON {table} USING (true) WITH CHECK (true)",
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        ]
        undo += [
            f"ALTER TABLE IF EXISTS {table} DISABLE ROW LEVEL SECURITY",
            f"DROP POLICY IF EXISTS tally_everybody ON {table}",
        ]
    for statement in statements:
        await tx.write(Command("add_mirror", statement))
    await tx.write(NOTE_UNDO, dataset.name, undo)
    return statements


def _add_words(dataset: Dataset, column: str, vocabulary: str) -> Command:
    """Learn the spellings that the table has, the most frequent one of each word."""
    word = quoted(column)
    sql = f"""INSERT INTO data.vocabulary (list, folded, spelling, position)
    SELECT {literal(vocabulary)}, folded, spelling, row_number() OVER (ORDER BY folded)
    FROM (
      SELECT DISTINCT ON (lower({word})) lower({word}) AS folded, {word} AS spelling
      FROM {dataset.target} WHERE {word} IS NOT NULL
      GROUP BY {word} ORDER BY lower({word}), count(*) DESC, {word}
    ) AS words"""  # noqa: S608 (names and values are quoted)
    return Command("add_words", sql)
