"""Whether Postgres still lets the reader in, which it asks of new connections only.

A role that may no longer log in, a new password, a rule in pg_hba.conf: the sessions that stand go on as if
nothing had happened, so now and then somebody has to knock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import asyncpg
import psycopg

from service.database.gateway import LOST_CONNECTION

KNOCK_S: Final = 2.5
TIMEOUT_S: Final = 2
# Refused as one who has no right to come in; all else may be a matter of the moment.
REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)


async def watch_login(url: str, on_refused: Callable[[], Awaitable[None]]) -> None:
    """Call `on_refused` whenever the reader is no longer let in, until cancelled."""
    refused = False
    while True:
        await asyncio.sleep(KNOCK_S)
        before, refused = refused, await _is_refused(url)
        if refused and not before:
            await on_refused()


async def _is_refused(url: str) -> bool:
    # libpq logs in without holding up the event loop; why it could not, it tells in words only.
    if await asyncio.to_thread(_knock, url):
        return False
    try:
        connection = await asyncpg.connect(url, timeout=TIMEOUT_S)
    except REFUSED:
        return True
    except (*LOST_CONNECTION, asyncpg.PostgresError):
        return False
    with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
        await connection.close(timeout=TIMEOUT_S)
    return False


def _knock(url: str) -> bool:
    with suppress(psycopg.Error):
        psycopg.connect(url, connect_timeout=TIMEOUT_S).close()
        return True
    return False
