"""The schema that prompts may ask about: tables, columns, foreign keys and vocabularies."""

import re
from datetime import date
from typing import Literal

from msgspec import Struct

Kind = Literal["text", "integer", "number", "date", "timestamp", "boolean", "other"]

_KINDS: dict[str, Kind] = {
    "text": "text",
    "varchar": "text",
    "bpchar": "text",
    "citext": "text",
    "name": "text",
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "numeric": "number",
    "float4": "number",
    "float8": "number",
    "money": "number",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "bool": "boolean",
}
_SYNONYMS = re.compile(r"\bsynonyms?\s*:\s*([^.;\n]+)", re.IGNORECASE)
_ROW_NAMES = re.compile(r"\brows\s*:\s*([^.;\n]+)", re.IGNORECASE)
_SHORT_COMMENT_WORDS = 4


class Column(Struct, frozen=True, kw_only=True):
    """`type` is Postgres's name (`int8`, or the enum's). `values` is empty unless they are few and short.

    `partial`: many rows have NULL here, as when facts of several kinds share a table.
    `last` is the latest day of a date column. A month without a year means the last one up to that day.
    """

    name: str
    type: str
    comment: str = ""
    nullable: bool = True
    partial: bool = False
    values: tuple[str, ...] = ()
    last: date | None = None

    @property
    def kind(self) -> Kind:
        return "text" if self.values else _KINDS.get(self.type, "other")

    @property
    def numeric(self) -> bool:
        return self.kind in {"integer", "number"}

    @property
    def dated(self) -> bool:
        return self.kind in {"date", "timestamp"}


class ForeignKey(Struct, frozen=True, kw_only=True):
    columns: tuple[str, ...]
    schema: str
    table: str
    targets: tuple[str, ...]


class Table(Struct, frozen=True, kw_only=True):
    schema: str
    name: str
    columns: tuple[Column, ...]
    comment: str = ""
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.schema, self.name

    def column(self, name: str) -> Column:
        """Raise `KeyError` if there is none of that name."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def is_key(self, name: str) -> bool:
        """Whether the column identifies rows, of this or another table. Such numbers are never added."""
        return (
            name in self.primary_key
            or name == "id"
            or name.endswith("_id")
            or any(name in reference.columns for reference in self.foreign_keys)
        )


class Schema(Struct, frozen=True, kw_only=True):
    """`search_path` lists the schemas whose tables need no prefix in SQL, the first first."""

    tables: tuple[Table, ...]
    search_path: tuple[str, ...] = ("data",)

    def table(self, schema: str, name: str) -> Table | None:
        return next((table for table in self.tables if table.key == (schema, name)), None)


def row_names(comment: str) -> list[str]:
    """Names that a comment gives to the rows that fill its column: `rows: approvals, decisions`."""
    return [
        name.strip() for match in _ROW_NAMES.finditer(comment) for name in match[1].split(",") if name.strip()
    ]


def synonyms(comment: str) -> list[str]:
    """Further names that a comment gives: `synonyms: channel, medium`, or itself when it is a few words."""
    found = [name.strip() for match in _SYNONYMS.finditer(comment) for name in match[1].split(",")]
    plain = _ROW_NAMES.sub("", _SYNONYMS.sub("", comment)).strip(" .;\n")
    if plain and len(plain.split()) <= _SHORT_COMMENT_WORDS:
        found.append(plain)
    return [name for name in found if name]
