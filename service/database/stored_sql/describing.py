"""Describe a stored statement as Postgres plans it, without running it."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from service.database.stored_sql.connection import SQL, Shape, shape_of
from service.database.stored_sql.dependencies import StatementDependencies, read_dependencies
from service.database.stored_sql.plans import Plan, read_plan
from service.errors import FieldError, InvalidInput

MEMORY_SINCE: Final = 17
"""The first Postgres version whose EXPLAIN reports the memory that planning used."""


NUMBER_TYPES: Final = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
"""Postgres's names of the types whose values are JSON numbers."""


class ResultColumn(Struct, frozen=True):
    """A column of a result: its unique name and Postgres's name for its type."""

    name: str
    type: str


class Description(Struct, frozen=True):
    """Postgres's description of a stored statement, obtained without running it.

    `parameters` are type names as in `pg_type` (`int4`, `date`, `int4[]`). `plan` holds the needed parts of
    EXPLAIN's generic plan. `json_columns` are the columns that the driver cannot decode exactly. `per_caller`
    is true if the rows may depend on the caller: the run needs `claims`, and only the same claims may share
    its result. `shape` is the shape that a run must still return.
    """

    parameters: tuple[str, ...]
    columns: tuple[ResultColumn, ...]
    plan: Plan
    json_columns: frozenset[int]
    dependencies: StatementDependencies
    shape: Shape

    @property
    def per_caller(self) -> bool:
        return self.dependencies.per_caller

    @property
    def head(self) -> str:
        """The SQL before the text of a statement with `json_columns`."""
        json_column = "ROW(to_json({0}), {0})"  # see `exact`
        columns = (
            json_column.format(name) if n in self.json_columns else name for n, name in enumerate(self._names)
        )
        return f"SELECT {', '.join(columns)} FROM (\n" if self.json_columns else ""  # noqa: S608 (validated)

    def runnable(self, sql: str) -> str:
        """The SQL to run for `sql`, which returns these columns."""
        if not self.json_columns:
            return sql
        names = ", ".join(self._names)
        # Postgres refuses lists of unequal length, so we notice a column that `SELECT *` gained.
        return f"{self.head}{sql}\n) AS tally({names}) WHERE true OR EXISTS (VALUES (tally.*), ({names}))"

    @property
    def _names(self) -> list[str]:
        return [f"c{number}" for number in range(len(self.columns))]

    def trimmed(self) -> "Description":
        """A copy without the plan's texts, which only `read_dependencies` needs."""
        plan = msgspec.structs.replace(self.plan, texts=())
        return msgspec.structs.replace(self, plan=plan)

    def fits(self, shape: Shape) -> bool:
        """Whether a run still returned the columns that are described here."""
        return bool(self.json_columns) or shape == self.shape


class _Names(Struct, frozen=True):
    names: list[str]


_TYPE_NAMES: Final = SQL.rows("list_type_names", _Names)


async def describe(connection: Any, statement: Any, name: str, sql: str) -> Description:
    attributes = statement.get_attributes()
    parameters = tuple(kind.name for kind in statement.get_parameters())
    types = await connection.fetchval(_TYPE_NAMES.sql, [attribute.type.oid for attribute in attributes])
    columns = tuple(map(ResultColumn, _unique(attribute.name for attribute in attributes), types))
    _refuse_control_characters(columns)
    json_columns = frozenset(
        n for n, attribute in enumerate(attributes) if attribute.type.oid in connection.json_columns
    )
    # A generic plan: a plan for the bound NULLs could leave tables out.
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    nulls = f"({', '.join(['NULL'] * len(parameters))})" if parameters else ""
    memory = ", MEMORY" if connection.get_server_version().major >= MEMORY_SINCE else ""
    explained = await connection.fetchval(f'EXPLAIN (VERBOSE, FORMAT JSON{memory}) EXECUTE "{name}"{nulls}')
    plan = read_plan(bytes(explained), sql, len(columns))
    dependencies = await read_dependencies(connection, sql, plan)
    return Description(parameters, columns, plan, json_columns, dependencies, shape_of(attributes))


def _refuse_control_characters(columns: Iterable[ResultColumn]) -> None:
    """Raise `InvalidInput` for invisible characters in names, which appear in every record and heading."""
    for number, column in enumerate(columns, 1):
        if _CONTROL.search(column.name):
            message = f"the name of column {number} holds control characters: name it with AS"
            raise InvalidInput(f"{message[0].upper()}{message[1:]}.", errors=(FieldError("sql", message),))


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _unique(names: Iterable[str]) -> Iterator[str]:
    """Number repeated names: `a, a` becomes `a, a_2`, or the next number whose name is free."""
    used: set[str] = set()
    for name in names:
        candidate, number = name, 2
        while candidate in used:
            candidate, number = f"{name}_{number}", number + 1
        used.add(candidate)
        yield candidate
