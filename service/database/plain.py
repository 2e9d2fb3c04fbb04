"""Run named statements on a plain psycopg session, as commands do before there is a service."""

from typing import Any, TypeVar

import psycopg
from msgspec import Struct

from service.database.queries import Command, Statement

Row = TypeVar("Row", bound=Struct)


def select(session: psycopg.Connection, statement: Statement[Row], *args: Any) -> list[Row]:
    """The rows of a statement with `$1, $2` parameters."""
    return [statement.row(*record) for record in _cursor(session).execute(statement.sql.encode(), args)]


def run(session: psycopg.Connection, command: Command, *args: Any) -> None:
    _cursor(session).execute(command.sql.encode(), args)


def _cursor(session: psycopg.Connection) -> psycopg.RawCursor[Any]:
    return psycopg.RawCursor(session)
