"""Probe whether Postgres still accepts the reader's login.

Postgres checks the login of new connections only. Existing sessions continue after the role loses LOGIN,
its password changes or pg_hba.conf gets a new rule, so we open a new connection regularly.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import asyncpg
import psycopg

from service.database.connect import cause
from service.database.gateway import LOST_CONNECTION
from service.observe.events import ConnectionLost, ConnectionRestored, Observe, ignore

PROBE_S: Final = 2.5
TIMEOUT_S: Final = 2
# Errors that mean the reader may not log in; all other errors may be temporary.
REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)


async def watch_login(url: str, on_refused: Callable[[], Awaitable[None]], observe: Observe = ignore) -> None:
    """Call `on_refused` each time the reader's login is found refused; run until cancelled.

    Also if it was refused before: it may have been accepted in between, and results made then.

    `observe` gets each loss and return of the login, whatever the reason.
    """
    failure: Exception | None = None
    while True:
        await asyncio.sleep(PROBE_S)
        before, failure = failure, await _failure(url)
        if failure is not None and before is None:
            observe(ConnectionLost("reader", cause(failure)))
        elif failure is None and before is not None:
            observe(ConnectionRestored("reader"))
        if isinstance(failure, REFUSED):
            await on_refused()


async def _failure(url: str) -> Exception | None:
    """Why the reader cannot log in; None if it can."""
    # libpq logs in on a thread and does not block the event loop, but gives the reason as text only.
    # asyncpg gives the SQLSTATE, so we use it after a failure.
    if await asyncio.to_thread(_can_log_in, url):
        return None
    try:
        connection = await asyncpg.connect(url, timeout=TIMEOUT_S)
    except (*LOST_CONNECTION, asyncpg.PostgresError) as error:
        return error
    with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
        await connection.close(timeout=TIMEOUT_S)
    return None


def _can_log_in(url: str) -> bool:
    with suppress(psycopg.Error):
        psycopg.connect(url, connect_timeout=TIMEOUT_S).close()
        return True
    return False
