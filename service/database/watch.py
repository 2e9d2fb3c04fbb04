"""`tally watch` and `unwatch`: the triggers by which a user's own table announces its changes."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql

from service.errors import Stop
from service.postgres_url import where

TRIGGERS: Final = ("tally_insert", "tally_update", "tally_delete", "tally_truncate")
LOCK_TIMEOUT: Final = "5s"
"""While the trigger waits for a long transaction of the table, all new writers wait behind it."""
# A partition can also be written to by its own name, so each member needs its own trigger.
# A name may come as we print it, without quotes.
_MEMBERS: Final = """
WITH RECURSIVE member AS (
    SELECT coalesce(to_regclass(%(table)s)::oid, (
        SELECT c.oid
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname || '.' || c.relname = %(table)s
        ORDER BY c.oid
        LIMIT 1
    )) AS oid
    UNION
    SELECT i.inhrelid FROM member JOIN pg_inherits AS i ON i.inhparent = member.oid
)
SELECT n.nspname, c.relname, c.relkind
FROM member
JOIN pg_class AS c ON c.oid = member.oid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY member.oid
"""


def watch(owner_url: str, table: str) -> list[str]:
    """Install the triggers on `schema.table` and all its partitions; return the tables that have them now.

    Raises `Stop`: with status 2 when there is no such table, with status 1 when the owner lacks the right,
    when the table is locked for long or the server cannot be reached.
    """
    with _session(owner_url, table) as session:
        members = _members(session, table)
        for schema, name, kind in members:
            if kind not in {"r", "p"}:
                raise Stop(
                    f"{schema}.{name} is no table and cannot announce changes: "
                    "watch the tables that it reads, or leave it to the poll of its counters",
                    exit_code=2,
                )
            session.execute(
                sql.SQL("SELECT app.watch({}::regclass)").format(
                    sql.Literal(sql.Identifier(schema, name).as_string(session))
                )
            )
        return [f"{schema}.{name}" for schema, name, _ in members]


def unwatch(owner_url: str, table: str) -> list[str]:
    """Remove the triggers from `schema.table` and all its partitions; return these tables. Raises `Stop`."""
    with _session(owner_url, table) as session:
        members = _members(session, table)
        for schema, name, _ in members:
            for trigger in TRIGGERS:
                session.execute(
                    sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                        sql.Identifier(trigger), sql.Identifier(schema, name)
                    )
                )
        return [f"{schema}.{name}" for schema, name, _ in members]


def _members(session: psycopg.Connection, table: str) -> list[tuple[str, str, str]]:
    members = session.execute(_MEMBERS, {"table": table}).fetchall()
    if not members:
        raise Stop(f"there is no table {table}: name it as schema.table", exit_code=2)
    return members


@contextmanager
def _session(owner_url: str, table: str) -> Generator[psycopg.Connection]:
    """One transaction as the owner; errors become sentences about the table."""
    try:
        with psycopg.connect(owner_url) as session:
            session.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            yield session
    except psycopg.errors.UndefinedFunction:
        raise Stop("the database is not migrated: run `tally migrate` first") from None
    except psycopg.errors.LockNotAvailable:
        raise Stop(f"{table} is locked by a long transaction: nothing was changed, try again") from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise Stop(
            f"{str(error).splitlines()[0]}: `watch` needs TRIGGER on {table} and USAGE on its schema,"
            " `unwatch` the table's owner"
        ) from None
    except (psycopg.errors.SyntaxError, psycopg.errors.InvalidName):
        raise Stop(f"{table!r} is not a table name: write schema.table", exit_code=2) from None
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise Stop(f"cannot reach the database at {where(owner_url)}: {reason}") from None
