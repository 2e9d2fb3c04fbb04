"""`tally watch`: install triggers by which a user's own table announces its changes."""

from typing import Final

import psycopg
from psycopg import sql

from service.errors import Stop
from service.postgres_url import where

# A partition can also be written to by its own name, so each member needs its own trigger.
_MEMBERS: Final = """
WITH RECURSIVE member AS (
    SELECT to_regclass(%s)::oid AS oid
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

    Raises `Stop`: with status 2 when there is no such table, with status 1 when the owner lacks the right
    or the server cannot be reached.
    """
    try:
        with psycopg.connect(owner_url) as session:
            members = session.execute(_MEMBERS, [table]).fetchall()
            if not members:
                raise Stop(f"there is no table {table}: name it as schema.table", exit_code=2)
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
    except psycopg.errors.UndefinedFunction:
        raise Stop("the database is not migrated: run `tally migrate` first") from None
    except psycopg.errors.InsufficientPrivilege:
        raise Stop(f"the owner role may not create triggers on {table}: GRANT TRIGGER ON it first") from None
    except (psycopg.errors.SyntaxError, psycopg.errors.InvalidName):
        raise Stop(f"{table!r} is not a table name: write schema.table", exit_code=2) from None
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise Stop(f"cannot reach the database at {where(owner_url)}: {reason}") from None
