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

from service.database.gateway import LOST_CONNECTION

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

REFUSED_STATE: Final = "refused"
_MAY_USE: Final = """
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = ANY (%s) AND has_schema_privilege(oid, 'USAGE'))
"""


class ReaderLogin:
    """Whether stored SQL can be answered at all: the reader may log in and use a schema of DATA_SCHEMAS."""

    def __init__(self, url: str, schemas: tuple[str, ...]) -> None:
        self._url = url
        self._schemas = list(schemas)
        self._state: str | None = None

    async def state(self) -> str:
        """`ok`, or why not; at most `PROBE_S` old while `watch` runs."""
        if self._state is None:
            await self._probe()
        return self._state or "unknown"

    async def watch(self, on_refused: Callable[[], Awaitable[None]]) -> None:
        """Call `on_refused` each time the reader's login starts to be refused; run until cancelled."""
        while True:
            await asyncio.sleep(PROBE_S)
            before = self._state
            await self._probe()
            if self._state == REFUSED_STATE and before != REFUSED_STATE:
                await on_refused()

    async def _probe(self) -> None:
        # libpq logs in on a thread and does not block the event loop, but gives the reason as text only.
        # asyncpg gives the SQLSTATE, so we use it after a failure.
        usable = await asyncio.to_thread(_may_use, self._url, self._schemas)
        if usable is None:
            self._state = REFUSED_STATE if await _is_refused(self._url) else "unreachable"
        else:
            self._state = "ok" if usable else "may use no schema of DATA_SCHEMAS: see `tally doctor`"


async def _is_refused(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=TIMEOUT_S)
    except REFUSED:
        return True
    except (*LOST_CONNECTION, asyncpg.PostgresError):
        return False
    with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
        await connection.close(timeout=TIMEOUT_S)
    return False


def _may_use(url: str, schemas: list[str]) -> bool | None:
    """Whether the reader may use one of the schemas; None if it cannot log in."""
    with suppress(psycopg.Error), psycopg.connect(url, connect_timeout=TIMEOUT_S) as session:
        row = session.execute(_MAY_USE, [schemas]).fetchone()
        return row == (True,)
    return None
