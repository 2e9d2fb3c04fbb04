"""Derived datasets: the contract of a user's own table, read from the catalogue of Postgres each time.

Columns and types are the table's. NOT NULL without default is required; the primary key, else a unique
constraint, is the natural key; foreign keys are references; CHECK, enum, domain and length are rules.
Generated and identity columns are not imported.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database, Transaction
from service.database.queries import SqlFile, quoted
from service.imports.contracts import Dataset, DatasetColumn, Kind, Reference, TableRule
from service.imports.datasets import DATASETS

SQL: Final = SqlFile(Path(__file__).parent / "derived.sql")
GONE: Final = "gone_at"
CHOICES_SHOWN: Final = 100
TABLES: Final = {"r", "p"}
KINDS: Final[dict[str, Kind]] = {
    "int2": "integer", "int4": "integer", "int8": "integer", "numeric": "number", "float4": "number",
    "float8": "number", "bool": "flag", "text": "text", "varchar": "text", "bpchar": "text", "citext": "text",
    "timestamp": "moment", "date": "day", "timestamptz": "instant", "time": "clock", "timetz": "zoned-clock",
    "uuid": "uuid", "json": "json", "jsonb": "json",
}  # fmt: skip
JSON_TYPES: Final[dict[Kind, dict[str, Any]]] = {
    "text": {"type": "string"}, "integer": {"type": "integer"}, "number": {"type": "number"},
    "flag": {"type": "boolean"}, "day": {"type": "string", "format": "date"}, "moment": {"type": "string"},
    "instant": {"type": "string", "format": "date-time"}, "clock": {"type": "string"},
    "zoned-clock": {"type": "string"}, "uuid": {"type": "string", "format": "uuid"},
    "array": {"type": ["array", "string"]}, "json": {}, "other": {"type": "string"},
}  # fmt: skip
INTEGER_BITS: Final = {"int2": 15, "int4": 31, "int8": 63}


class _Column(Struct, frozen=True):
    """A column as the catalogue has it. `base` is the type below domains."""

    name: str
    type: str
    base: str
    category: str
    known: bool
    domain: bool
    required: bool
    default: str | None
    generated: bool
    length: int | None
    comment: str | None
    choices: list[str] | None
    comparable: bool
    schema: str


class _Constraint(Struct, frozen=True):
    """`kind` is p, u, f or c, as in `pg_constraint`."""

    name: str
    kind: str
    deferrable: bool
    columns: list[str] | None
    expression: str | None
    definition: str
    to_schema: str | None
    to_table: str | None
    to_columns: list[str] | None


class TableFacts(Struct, frozen=True):
    """A derived dataset with what the catalogue says of its table. `kind` is null without a table."""

    name: str
    table_schema: str
    table_name: str
    kind: str | None
    comment: str | None
    key: list[str] | None
    vocabulary: list[str]
    mirrored: bool
    columns: Any
    constraints: Any
    missing_grants: list[str] | None


class _Path(Struct, frozen=True):
    path: str


READ_TABLES: Final = SQL.rows("read_tables", TableFacts)
SESSION_PATH: Final = SQL.rows("session_path", _Path)


async def read_datasets(database: Database | Transaction) -> tuple[Dataset, ...]:
    """All datasets: the built-in ones, then the derived ones in the order in which they were added."""
    tables = await database.read(READ_TABLES)
    if not tables:
        return DATASETS
    names = {dataset.target: dataset.name for dataset in DATASETS}
    names |= {_target(table.table_schema, table.table_name): table.name for table in tables}
    session = await database.read_one(SESSION_PATH)
    path = session.path if session else ""
    return (*DATASETS, *(_derive(table, names, path) for table in tables))


def _derive(table: TableFacts, names: dict[str, str], path: str) -> Dataset:
    """Turn a table into a dataset. `names` holds the dataset of each quoted table."""
    found = msgspec.convert(table.columns or [], list[_Column])
    columns = [each for each in found if not each.generated and not (table.mirrored and each.name == GONE)]
    importable = {column.name for column in columns}
    constraints = msgspec.convert(table.constraints or [], list[_Constraint])
    keys = [each for each in constraints if each.kind in "pu" and each.columns and not each.deferrable]
    key, fault = _key(table, keys, importable)
    references = tuple(_references(constraints, names, importable))
    shown = f"{table.table_schema}.{table.table_name}"
    contract = tuple(_columns(columns, table, key, references))
    schemas = sorted({column.schema for column in columns} - {"pg_catalog"})
    return Dataset(
        name=table.name,
        description=table.comment or f"Rows of {shown}.",
        json_schema=_json_schema(table, columns, contract),
        schema=table.table_schema,
        table=table.table_name,
        columns=contract,
        references=references,
        mirrored=table.mirrored,
        derived=True,
        rules=tuple(_rules(constraints, importable)),
        search_path=", ".join(["pg_catalog", path, *map(quoted, schemas)]) if path else "pg_catalog",
        fault=_fault(table, shown, columns) or fault,
    )


def _fault(table: TableFacts, shown: str, columns: list[_Column]) -> str:
    if table.kind is None:
        return f"there is no table {shown} any more"
    if table.kind not in TABLES:
        return f"{shown} is no table any more"
    if table.missing_grants:
        grants = " ".join(table.missing_grants)
        return f"the role of DATABASE_URL may not import into {shown}; let its owner run: {grants}"
    return "" if columns else f"{shown} has no column that can be imported"


def _key(table: TableFacts, keys: list[_Constraint], importable: set[str]) -> tuple[tuple[str, ...], str]:
    """The natural key, and why there is none although one was named. Facts have none."""
    usable = [each.columns for each in keys if each.columns and importable.issuperset(each.columns)]
    if table.key is None:
        return tuple(usable[0]) if usable else (), ""
    named = next((columns for columns in usable if set(columns) == set(table.key)), None)
    if named is None and table.key:
        listed = ", ".join(map(quoted, table.key))
        return (), (
            f"no primary key or unique constraint of {table.table_schema}.{table.table_name} is ({listed}); "
            f"add one: ALTER TABLE {_target(table.table_schema, table.table_name)} ADD UNIQUE ({listed});"
        )
    return tuple(named or ()), ""


def _references(
    constraints: list[_Constraint], names: dict[str, str], importable: set[str]
) -> Iterator[Reference]:
    """Foreign keys over imported columns. The others are left to the table itself."""
    for each in constraints:
        if each.kind == "f" and each.columns and importable.issuperset(each.columns):
            to = _target(each.to_schema or "", each.to_table or "")
            yield Reference(
                columns=tuple(each.columns),
                to=to,
                to_columns=tuple(each.to_columns or ()),
                to_name=names.get(to, f"{each.to_schema}.{each.to_table}"),
            )


def _rules(constraints: list[_Constraint], importable: set[str]) -> Iterator[TableRule]:
    for each in constraints:
        if each.kind == "c" and each.columns and each.expression and importable.issuperset(each.columns):
            yield TableRule(
                name=each.name,
                columns=tuple(each.columns),
                expression=each.expression,
                definition=each.definition,
            )


def _columns(
    columns: list[_Column], table: TableFacts, key: tuple[str, ...], references: tuple[Reference, ...]
) -> Iterator[DatasetColumn]:
    parents = {name: each.to_name for each in references for name in each.columns}
    for number, column in enumerate(columns, 1):
        in_key = column.name in key
        needed = column.required and column.default is None
        yield DatasetColumn(
            name=column.name,
            cell=f"c{number}",
            kind="array" if column.category == "A" else KINDS.get(column.base, "other"),
            type=column.type,
            needs_heading=needed or in_key,
            needs_value=needed or in_key,
            default=column.default,
            key=in_key,
            refers_to=parents.get(column.name, ""),
            vocabulary=f"{table.name}.{column.name}" if column.name in table.vocabulary else "",
            aliases=(),
            choices=tuple(column.choices or ()) if not column.domain else (),
            least=None,
            most=None,
            longest=column.length,
            declared=True,
            nullable=not column.required,
            known=column.known,
            comparable=column.comparable,
            base=column.base,
        )


def _json_schema(
    table: TableFacts, columns: list[_Column], contract: tuple[DatasetColumn, ...]
) -> dict[str, Any]:
    """The contract as JSON Schema, in the form of the built-in ones."""
    properties = {
        column.name: _property(column, made) for column, made in zip(columns, contract, strict=True)
    }
    shown = {
        "title": table.name,
        "description": table.comment or f"Rows of {table.table_schema}.{table.table_name}.",
        "type": "object",
        "properties": properties,
        "required": [column.name for column in contract if column.needs_heading],
    }
    return {"$ref": f"#/$defs/{table.name}", "$defs": {table.name: shown}}


def _property(column: _Column, made: DatasetColumn) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": column.comment} if column.comment else {}
    shown |= JSON_TYPES[made.kind]
    if made.choices:
        shown["enum"] = list(made.choices[:CHOICES_SHOWN])
    if bits := INTEGER_BITS.get(column.base):
        shown |= {"minimum": -(2**bits), "maximum": 2**bits - 1}
    if column.length is not None:
        shown["maxLength"] = column.length
    shown["x-type"] = column.type
    if made.key:
        shown["x-key"] = True
    if made.refers_to:
        shown["x-refers-to"] = made.refers_to
    if made.vocabulary:
        shown["x-vocabulary"] = made.vocabulary
    if column.default is not None:
        shown["x-default"] = column.default
    nullable = not column.required and not made.key
    return {"anyOf": [shown, {"type": "null"}]} if nullable else shown


def _target(schema: str, table: str) -> str:
    return f"{quoted(schema)}.{quoted(table)}"
