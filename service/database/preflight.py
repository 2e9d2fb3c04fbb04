"""Who we are to a server, and whether Tally can live there: asked before anything changes."""

import asyncio
import os
from getpass import getuser
from typing import Final

import asyncpg
from msgspec import Struct

from service.database.connect import CONNECT_TIMEOUT_S, asyncpg_arguments
from service.database.gateway import LOST_CONNECTION, REFUSED_LOGIN
from service.errors import Stop
from service.postgres_url import parameters, where

OLDEST: Final = 16
_WHO: Final = """
SELECT session_user, current_user, current_database(), current_setting('server_version_num')::integer,
    current_setting('server_version'), current_setting('server_encoding'),
    ARRAY(SELECT rolname::text FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER'))
"""


class Login(Struct, frozen=True):
    """What the server says of a connection; its role may be another than the address's, behind a pooler."""

    session_user: str
    current_user: str
    database: str
    version_number: int
    version: str
    encoding: str
    member_of: list[str] = []
    """Roles that `SET ROLE` reaches, its own among them; a superuser reaches every role."""

    @property
    def roles(self) -> set[str]:
        return {self.session_user, self.current_user}


class NoLogin(Exception):  # noqa: N818 (it names what happened)
    """No connection: `refused` when a server answered and did not let us in."""

    def __init__(self, sentence: str, *, refused: bool) -> None:
        super().__init__(sentence)
        self.refused = refused


def log_in(url: str) -> Login:
    """Ask the server who we are. Raises `NoLogin`."""
    return asyncio.run(_log_in(url))


async def _log_in(url: str) -> Login:
    try:
        connection = await asyncpg.connect(**asyncpg_arguments(url, None), statement_cache_size=0)
        try:
            row = await connection.fetchrow(_WHO, timeout=CONNECT_TIMEOUT_S)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_S)
    except (*LOST_CONNECTION, asyncpg.PostgresError, ValueError) as error:
        said = str(error).strip() or type(error).__name__
        raise NoLogin(
            f"cannot log in to the database at {where(url)}: {said.splitlines()[0]}",
            refused=isinstance(error, REFUSED_LOGIN),
        ) from None
    assert row is not None, "one row"
    return Login(*row)


def refuse_unfit(owner: Login) -> None:
    """Raise `Stop` for a server or a database in which Tally's own tables and rules cannot stand."""
    if owner.version_number < OLDEST * 10_000:
        raise Stop(
            f"DATABASE_URL leads to Postgres {owner.version}; Tally needs {OLDEST} or newer", exit_code=2
        )
    if owner.encoding != "UTF8":
        raise Stop(
            f"DATABASE_URL leads to database {owner.database} of encoding {owner.encoding}; Tally needs UTF8:"
            " CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
            exit_code=2,
        )


def refuse_same_role(owner: Login, reader: set[str]) -> None:
    """Raise `Stop` when stored SQL would run as the role that owns the tables, or could become it."""
    if same := owner.roles & reader:
        raise Stop(
            f"READER_DATABASE_URL leads to the owner's role {min(same)}, or to a superuser or member of it:"
            " stored SQL needs a role of its own, which may only read",
            exit_code=2,
        )


def check_service(owner_url: str, reader_url: str) -> list[str]:
    """What keeps the service from being ready for now; raises `Stop` for what waiting cannot mend."""
    try:
        owner = log_in(owner_url)
        refuse_unfit(owner)
        refuse_same_role(owner, {*(reader := log_in(reader_url)).roles, *reader.member_of})
    except NoLogin as error:
        if error.refused:
            raise Stop(str(error)) from None
        return [str(error)]
    return []


def reader_roles(reader_url: str) -> tuple[str, set[str]]:
    """The role that the reader's address logs in as, and all that it can act as.

    The server tells; for a login that does not work yet, the address does.
    """
    try:
        reader = log_in(reader_url)
    except NoLogin:
        name = parameters(reader_url).get("user") or os.environ.get("PGUSER") or getuser()
        return name, {name}
    return reader.session_user, {*reader.roles, *reader.member_of}
