"""`tally uninstall`: leave a database as it was before Tally."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import sql

from service.database.migrate import LOCK
from service.database.plain import select
from service.database.rights import LIST_READERS, Name, Revocation, is_made, revocations
from service.errors import Stop
from service.postgres_url import where
from service.setup.inspect import OWN_SCHEMAS, SQL
from service.setup.report import say

SOMEBODY_MUST_ACT: Final = 3
LOCK_TIMEOUT: Final = "10s"
ENDING_S: Final = 2.0


class Installation(Struct, frozen=True):
    """What Tally has in a database; `sessions` are connections of a running service."""

    metrics: int
    imports: int
    watched: int
    sessions: int


_LIST_OUTSIDE: Final = SQL.rows("list_outside_objects", Name)
_LIST_OWNER_GRANTS: Final = SQL.rows("list_owner_grants", Revocation)
_READ_INSTALLATION: Final = SQL.rows("read_installation", Installation)

Ask = Callable[[str], str]


def uninstall(owner_url: str, *, confirmed: bool, ask: Ask | None = None) -> int:
    """Drop Tally's schemas and triggers, and the reader with its rights; exit status 0.

    3 when somebody else must run the SQL on stdout. Raises `Stop` with nothing changed: without consent,
    while a service runs, or when objects of others depend on Tally's.
    """
    try:
        with psycopg.connect(owner_url, autocommit=True) as session:
            (there,) = session.execute("SELECT to_regclass('app.reader') IS NOT NULL").fetchone() or (False,)
            database = session.info.dbname
            if not there:
                say(f"there is no Tally in database {database}, or one to `migrate` first")
                return 0
            _consent(session, confirmed=confirmed, ask=ask)
            remaining = _leave(session)
    except psycopg.errors.InsufficientPrivilege as error:
        raise Stop(f"nothing was changed: {str(error).splitlines()[0]}; run it as Tally's owner") from None
    except psycopg.errors.LockNotAvailable:
        raise Stop("nothing was changed: a long transaction holds a table; try again") from None
    except psycopg.OperationalError as error:
        raise Stop(
            f"cannot reach the database at {where(owner_url)}: {str(error).splitlines()[-1]}"
        ) from None
    say("Tally is gone; its settings stay in .env or wherever they are set.")
    if not remaining:
        return 0
    say("Tally's owner may not undo the following, which others granted. Give it to an administrator:", "")
    print(f"-- In database {database}, as a superuser or as the owner of these objects:")
    print(*(f"{statement};" for statement in remaining), sep="\n", flush=True)
    return SOMEBODY_MUST_ACT


def _consent(session: psycopg.Connection, *, confirmed: bool, ask: Ask | None) -> None:
    (found,) = select(session, _READ_INSTALLATION, list(OWN_SCHEMAS))
    until = time.monotonic() + ENDING_S
    while found.sessions and time.monotonic() < until:  # those of a command that has just ended
        time.sleep(0.1)
        (found,) = select(session, _READ_INSTALLATION, list(OWN_SCHEMAS))
    if found.sessions:
        raise Stop(f"a Tally runs on this database ({found.sessions} connections): stop it first")
    readers = ", ".join(reader.name for reader in select(session, LIST_READERS)) or "none"
    say(
        f"Database {session.info.dbname} loses for good:",
        f"  schemas {', '.join(OWN_SCHEMAS)}: {found.metrics} metrics, the rows of {found.imports} imports",
        f"  the triggers of {found.watched} watched tables; the tables stay as they are",
        f"  the rights that Tally gave to the reader ({readers}), and the role if made for Tally",
    )
    if confirmed:
        return
    if ask is None:
        raise Stop("nothing was changed: --yes says that you mean it", exit_code=2)
    if ask(f"Type the name of the database to go on ({session.info.dbname}): ") != session.info.dbname:
        raise Stop("nothing was changed", exit_code=2)


def _leave(session: psycopg.Connection) -> list[str]:
    """Remove Tally; return the statements that somebody else must run."""
    session.execute("SELECT pg_advisory_lock(%s)", [LOCK])
    readers = [(reader, is_made(session, reader.name)) for reader in select(session, LIST_READERS)]
    owner_grants = [row.statement for row in select(session, _LIST_OWNER_GRANTS)]
    _drop_schemas(session)
    remaining: list[str] = []
    for reader, made in readers:
        remaining += _revoke(session, reader.name, set(reader.had))
        if made:
            remaining += _drop_role(session, reader.name)
    return remaining + owner_grants


def _drop_schemas(session: psycopg.Connection) -> None:
    """Drop the schemas with all that is in them, but nothing else than triggers outside of them."""
    own = list(OWN_SCHEMAS)
    with session.transaction():
        session.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
        before = {row.name for row in select(session, _LIST_OUTSIDE, own)}
        names = sql.SQL(", ").join(map(sql.Identifier, own))
        session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(names))
        lost = before - {row.name for row in select(session, _LIST_OUTSIDE, own)}
        if lost:
            shown = "; ".join(sorted(lost)[:5])
            raise Stop(f"nothing was changed: these depend on Tally's tables, drop them first: {shown}")


def _revoke(session: psycopg.Connection, reader: str, had: set[str]) -> list[str]:
    """Take from the reader what it did not have before; return what the owner may not take."""
    for statement in revocations(session, reader):
        if statement not in had:
            with suppress(psycopg.errors.InsufficientPrivilege):
                session.execute(statement.encode())
    return [statement for statement in revocations(session, reader) if statement not in had]


def _drop_role(session: psycopg.Connection, reader: str) -> list[str]:
    """Drop the role unless other databases use it."""
    role = sql.Identifier(reader)
    try:
        session.execute(sql.SQL("DROP ROLE {}").format(role))
    except psycopg.errors.InsufficientPrivilege:
        return [sql.SQL("DROP ROLE {}").format(role).as_string(None)]
    except psycopg.errors.DependentObjectsStillExist as error:
        detail = error.diag.message_detail or ""
        remaining = revocations(session, reader)
        if remaining:
            return [sql.SQL("DROP ROLE {}").format(role).as_string(None)]
        say(f"the role {reader} stays, something else needs it: {detail.splitlines()[0] if detail else ''}")
    return []
