"""Check roles, version and encoding of the server before anything is changed."""

import asyncio
import os
from getpass import getuser
from typing import Final

import asyncpg
from msgspec import Struct

from service.database.connect import CONNECT_TIMEOUT_S, asyncpg_arguments, cause
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
    """The server's description of a connection; behind a pooler the role may differ from the address's."""

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
    """No connection; `refused` when a server answered and rejected the login."""

    def __init__(self, sentence: str, *, refused: bool) -> None:
        super().__init__(sentence)
        self.refused = refused


def log_in(url: str) -> Login:
    """Connect and return the server's description of the connection. Raises `NoLogin`."""
    return asyncio.run(_log_in(url))


async def _log_in(url: str) -> Login:
    try:
        connection = await asyncpg.connect(**asyncpg_arguments(url, None), statement_cache_size=0)
        try:
            row = await connection.fetchrow(_WHO, timeout=CONNECT_TIMEOUT_S)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_S)
    except (*LOST_CONNECTION, asyncpg.PostgresError, ValueError) as error:
        raise NoLogin(
            f"cannot log in to the database at {where(url)}: {cause(error)}",
            refused=isinstance(error, REFUSED_LOGIN),
        ) from None
    assert row is not None, "one row"
    return Login(*row)


def refuse_unfit(owner: Login) -> None:
    """Raise `Stop` for a server version or a database encoding that Tally does not support."""
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
    """Reasons why the service is not ready yet; raises `Stop` for errors that waiting cannot fix."""
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
    """The role that the reader's address logs in as, and all roles that it can act as.

    The server tells both. While the login does not work yet, the address tells the role.
    """
    try:
        reader = log_in(reader_url)
    except NoLogin:
        name = parameters(reader_url).get("user") or os.environ.get("PGUSER") or getuser()
        return name, {name}
    return reader.session_user, {*reader.roles, *reader.member_of}
