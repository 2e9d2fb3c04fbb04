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

from service.database.breaker import Breaker
from service.database.connect import asyncpg_arguments, cause
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

_MAY_USE: Final = """
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = ANY (%s) AND has_schema_privilege(oid, 'USAGE'))
"""


class ReaderLogin:
    """Whether stored SQL can be answered at all: the reader may log in and use a schema of DATA_SCHEMAS."""

    def __init__(
        self,
        url: str,
        schemas: tuple[str, ...],
        observe: Observe = ignore,
        breaker: Breaker | None = None,
    ) -> None:
        """`observe` gets each loss and return of the login, whatever the reason.

        `breaker` is that of the server that the address leads to. While it is open, no login is tried.
        """
        self._url = url
        self._breaker = breaker
        self._schemas = list(schemas)
        self._observe = observe
        self._state: str | None = None
        self._failure: Exception | None = None

    async def state(self) -> str:
        """`ok`, or why not; at most `PROBE_S` old while `watch` runs."""
        if self._state is None:
            await self._probe()
        return self._state or "unknown"

    async def watch(self, on_refused: Callable[[], Awaitable[None]]) -> None:
        """Call `on_refused` each time the reader's login is found refused; run until cancelled.

        Also if it was refused before: it may have been accepted in between, and results made then.
        """
        while True:
            await asyncio.sleep(PROBE_S)
            await self._probe()
            if isinstance(self._failure, REFUSED):
                await on_refused()

    async def _probe(self) -> None:
        # libpq logs in on a thread and does not block the event loop, but gives the reason as text only.
        # asyncpg gives the SQLSTATE, so we use it after a failure.
        usable = None
        if self._breaker is None or self._breaker.error is None:
            usable = await asyncio.to_thread(_may_use, self._url, self._schemas)
        failure = await _failure(self._url, self._breaker) if usable is None else None
        before, self._failure = self._failure, failure
        if self._failure is not None:
            self._state = "refused" if isinstance(self._failure, REFUSED) else "unreachable"
        else:
            self._state = "may use no schema of DATA_SCHEMAS: see `tally doctor`" if usable is False else "ok"
        if self._failure is not None and before is None:
            self._observe(ConnectionLost("reader", cause(self._failure)))
        elif self._failure is None and before is not None:
            self._observe(ConnectionRestored("reader"))


async def _failure(url: str, breaker: Breaker | None) -> Exception | None:
    """Why the reader cannot log in; None if it can."""
    try:
        arguments = asyncpg_arguments(url, None)
        arguments["timeout"] = TIMEOUT_S
        connection = await (asyncpg.connect if breaker is None else breaker.connect)(**arguments)
    except (*LOST_CONNECTION, asyncpg.PostgresError) as error:
        return error
    with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
        await connection.close(timeout=TIMEOUT_S)
    return None


def _may_use(url: str, schemas: list[str]) -> bool | None:
    """Whether the reader may use one of the schemas; None if it cannot log in."""
    with suppress(psycopg.Error), psycopg.connect(url, connect_timeout=TIMEOUT_S) as session:
        row = session.execute(_MAY_USE, [schemas]).fetchone()
        return row == (True,)
    return None
