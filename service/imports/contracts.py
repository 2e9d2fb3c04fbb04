"""What an import knows of a dataset: its table, its columns, their rules, and what they refer to.

Contracts come from code (`datasets.py`) or from the catalogue of Postgres (`derived.py`). Everything behind
this module sees only these Structs.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from service.database.queries import quoted

Kind = Literal[
    "text", "sql", "integer", "number", "flag", "moment", "month", "uuid",
    "day", "instant", "clock", "zoned-clock", "array", "json", "other",
]  # fmt: skip
Reason = Literal[
    "field-count", "missing-value", "wrong-type", "out-of-range", "unknown-column", "duplicate",
    "conflict", "orphan", "encoding", "too-large", "sql-refused", "cell-error",
]  # fmt: skip


class DatasetColumn(Struct, frozen=True, kw_only=True):
    """A column of the table, for the readers and the plan.

    `cell` is its name in the temporary tables of an import, where any name of a user could be taken. `type`
    is its SQL type, `default` an SQL expression. `refers_to` names the dataset that must hold the value.
    `declared` types are those of a user's table: Postgres itself has the last word on each value, by
    `pg_input_is_valid` for types that are `known` to report errors, else by a function that catches them.
    `base` is the type below domains, named as in `pg_type`.
    """

    name: str
    cell: str
    kind: Kind
    type: str
    needs_heading: bool
    needs_value: bool
    default: str | None
    key: bool
    refers_to: str
    vocabulary: str
    aliases: tuple[str, ...]
    choices: tuple[str, ...]
    least: int | None
    most: int | None
    longest: int | None
    declared: bool = False
    nullable: bool = True
    known: bool = True
    comparable: bool = True
    base: str = ""

    @property
    def headings(self) -> frozenset[str]:
        """Accepted headings, folded."""
        return frozenset(map(fold, (self.name, *self.aliases)))


class TableRule(Struct, frozen=True, kw_only=True):
    """A CHECK constraint of a user's table. `expression` names the columns as the table does."""

    name: str
    columns: tuple[str, ...]
    expression: str
    definition: str


class Reference(Struct, frozen=True, kw_only=True):
    """A foreign key. `to` is the quoted table that must have a row with these values in `to_columns`."""

    columns: tuple[str, ...]
    to: str
    to_columns: tuple[str, ...]
    to_name: str


class Dataset(Struct, frozen=True, kw_only=True):
    """A named contract. `mirrored` rows can be marked as gone; rows without a key are facts.

    `json_part` is the key that holds the rows if a JSON document is an object. `also_in` names the dataset
    whose JSON files hold rows of this one too. `on_update` are further assignments for a changed row.
    `json_schema` shows the contract to callers.

    The contract of a `derived` dataset is read from a table of the user: the table itself has the last word
    on each row, others write to it too, and its types and triggers need `search_path`. `fault` tells why it
    cannot be imported into now.
    """

    name: str
    description: str
    json_schema: dict[str, Any]
    schema: str
    table: str
    columns: tuple[DatasetColumn, ...]
    references: tuple[Reference, ...] = ()
    json_part: str = "items"
    also_in: str = ""
    on_update: str = ""
    mirrored: bool = False
    derived: bool = False
    rules: tuple[TableRule, ...] = ()
    search_path: str = "pg_catalog"
    fault: str = ""

    @property
    def target(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.table)}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def key(self) -> tuple[str, ...]:
        """Columns that identify a row. Facts have none."""
        return tuple(column.name for column in self.columns if column.key)

    @property
    def cells(self) -> dict[str, str]:
        """Where the temporary tables hold each column."""
        return {column.name: column.cell for column in self.columns}

    @property
    def headings(self) -> dict[str, DatasetColumn]:
        """The column of each accepted heading. Headings are folded; one of several columns is left out."""
        counts = Counter(heading for column in self.columns for heading in column.headings)
        return {
            heading: column for column in self.columns for heading in column.headings if counts[heading] == 1
        }

    @property
    def column_of(self) -> Callable[[str], DatasetColumn | None]:
        """Finds the column of a heading: by its exact name first, as columns may differ in case alone."""
        exact, folded = {column.name: column for column in self.columns}, self.headings
        return lambda heading: exact.get(heading.strip()) or folded.get(fold(heading))


def fold(heading: str) -> str:
    """Fold a heading, sheet name or file name for comparison: to its letters and digits, if it has any."""
    folded = heading.casefold()
    return "".join(part for part in folded if part.isalnum()) or folded.strip()


def find_among(datasets: tuple[Dataset, ...], name: str) -> Dataset | None:
    """Find a dataset by name, in any case, with spaces or dashes for `_`."""
    return next((dataset for dataset in datasets if fold(dataset.name) == fold(name)), None)


def children(dataset: Dataset, datasets: tuple[Dataset, ...]) -> list[Dataset]:
    """Datasets with orphans that may wait for rows of this one. A table may refer to itself."""
    return [other for other in datasets if any(each.to == dataset.target for each in other.references)]


def concerned(dataset: Dataset, datasets: tuple[Dataset, ...]) -> list[str]:
    """The datasets that an import may write to, in the order of their locks: itself and all descendants."""
    found = {dataset.name}
    waiting = [dataset]
    while waiting:
        for child in children(waiting.pop(), datasets):
            if child.name not in found:
                found.add(child.name)
                waiting.append(child)
    order = [other.name for other in datasets]
    return sorted(found, key=lambda name: order.index(name) if name in order else -1)
