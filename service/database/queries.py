"""Named SQL: each feature keeps its statements in `queries.sql` and gives each one the Struct of its rows.

A file is a sequence of blocks, each `-- name: <name>` and one statement with `$1, $2` parameters.
"""

import re
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

Row = TypeVar("Row", bound=Struct)

_HEADER = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


class Command(NamedTuple):
    """A statement that returns no rows."""

    name: str
    sql: str


class Statement(NamedTuple, Generic[Row]):
    """A statement whose columns are the fields of `row`, in that order."""

    name: str
    sql: str
    row: type[Row]


class SqlFile:
    """The statements of one `queries.sql`; an unknown name raises `KeyError`."""

    def __init__(self, path: Path) -> None:
        _, *parts = _HEADER.split(path.read_text())
        self._texts = dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))

    def rows(self, name: str, row: type[Row]) -> Statement[Row]:
        return Statement(name, self._texts[name], row)

    def command(self, name: str) -> Command:
        return Command(name, self._texts[name])


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"
