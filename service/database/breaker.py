"""Stop connecting to a server that does not answer, and probe it until it does.

Without this, each request of an outage would make a connection attempt of its own, wait for it, and all of
them would reach the server at once when it is back. While the breaker is open one probe after the other asks
the server. Everybody else gets the error of the last attempt at once.

Connections may also lead to the wrong server: a primary that has failed over leaves connections to a server
that takes no more writes. They are thrown away (`fail_over`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import asyncpg

from service.database.connect import CONNECT_TIMEOUT_S, asyncpg_arguments, cause
from service.database.driver import Pool, terminate_idle
from service.database.gateway import LOST_CONNECTION, raise_if_cancelled
from service.errors import DatabaseUnavailable
from service.observe.events import BreakerClosed, BreakerOpened, Observe, ignore
from service.postgres_url import hosts, parameters

AT_ONCE: Final = 4
"""Connections that are opened at the same time. Others wait, so that a server that is back is not flooded."""
PAUSE_S: Final = (0.05, 0.5)
"""Pauses between probes: the first, doubled up to the longest."""
PROBE_S: Final = 1.0
"""How long a probe waits for an answer, if the server once answered in half the time."""
PATIENT_PROBE: Final = 10
"""Each tenth probe waits longer: the way to the server may have become slow."""
HUNG_S: Final = 1.5
"""An attempt that is given up after this time counts as failed."""
FAIL_OVER_PAUSE_S: Final = 30.0
"""Connections are thrown away at most this often: a database may be read-only for long."""

_UP: Final = (asyncpg.TooManyConnectionsError,)
"""Errors of a server that answers."""

Connect = Callable[..., Awaitable[Any]]


class StandbyError(ConnectionError):
    """The address of the primary leads to a standby, or to a server that is one by now."""

    def __init__(self) -> None:
        super().__init__("the server takes no writes")


class Breaker:
    """Guards one server. `keep` has to run in the background, or it never closes.

    With `is_primary`, the server has to take writes, and `silence` says when it hangs. Otherwise a connection
    attempt that times out does.
    """

    def __init__(
        self,
        name: str,
        url: str,
        observe: Observe = ignore,
        *,
        is_primary: bool = True,
        connect: Connect = asyncpg.connect,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._url = url
        self._observe = observe
        self._is_primary = is_primary
        self._connect = connect
        self._clock = clock
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._attempts: set[asyncio.Timeout] = set()
        self._suspects: list[Callable[[], None]] = []
        self._error: Exception | None = None
        self._silent = False
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed.set()
        self._opened_at = 0.0
        self._failed_over_at: float | None = None
        self._answers_soon = False

    @property
    def error(self) -> Exception | None:
        """Why the breaker is open; None while it is closed."""
        return self._error

    def check(self) -> None:
        """Raise `DatabaseUnavailable` if existing connections are of no use, so that nobody waits for one."""
        if self._silent:
            raise DatabaseUnavailable(headers={"Retry-After": "2"}) from self._error

    async def closed(self) -> None:
        """Wait until the server can be reached."""
        await self._closed.wait()

    async def connect(self, *args: Any, **arguments: Any) -> Any:
        """Connect like `asyncpg.connect`. While the breaker is open, raises the error that opened it."""
        self._refuse()
        async with asyncio.timeout(None) as attempt:
            self._attempts.add(attempt)
            try:
                async with self._at_once:
                    self._refuse()
                    return await self._attempt(args, arguments)
            finally:
                self._attempts.discard(attempt)

    def watch(self, suspect: Callable[[], None]) -> None:
        """Call `suspect` when existing connections may be of no more use."""
        self._suspects.append(suspect)

    def watch_pool(self, pool: Pool) -> None:
        """Close the pool's idle connections when they may be of no more use, and the others on release."""

        def expire() -> None:
            terminate_idle(pool)

        self.watch(expire)

    def open(self, error: Exception, *, silent: bool = False) -> None:
        """Stop all connection attempts. `silent`: existing connections are of no use either."""
        began = self._error is None
        hangs = silent and not self._silent
        self._error, self._silent = error, self._silent or silent
        if began:
            self._opened_at = self._clock()
            self._closed.clear()
            self._opened.set()
        if began or hangs:
            self._observe(BreakerOpened(self._name, cause(error), hangs=self._silent))
            now = asyncio.get_running_loop().time()
            for attempt in self._attempts:
                attempt.reschedule(now)
        if hangs:
            self._suspect()

    def fail_over(self) -> None:
        """Throw all connections away, for they lead to a server that takes no writes any more.

        A probe has to find a primary at the address before others connect to it again.
        """
        now = self._clock()
        if self._failed_over_at is None or now - self._failed_over_at >= FAIL_OVER_PAUSE_S:
            self._failed_over_at = now
            self.open(StandbyError(), silent=True)

    async def keep(self) -> None:
        """Probe the server while the breaker is open; run until cancelled."""
        while True:
            await self._opened.wait()
            pause, longest = PAUSE_S
            probes = 0
            while self._error is not None:
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                probes += 1
                if await self._answers(patient=probes % PATIENT_PROBE == 0):
                    self._close(probes)

    def _refuse(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def _attempt(self, args: Any, arguments: dict[str, Any]) -> Any:
        began = self._clock()
        try:
            connection = await self._connect(*args, **arguments)
        except _UP:
            raise
        except LOST_CONNECTION as error:
            self.open(error, silent=isinstance(error, TimeoutError) and not self._is_primary)
            raise
        except asyncio.CancelledError:
            if self._error is None and self._clock() - began >= HUNG_S:
                self.open(TimeoutError(), silent=not self._is_primary)
            raise
        self._note_answer(began)
        return connection

    def _note_answer(self, began: float) -> None:
        self._answers_soon = self._answers_soon or self._clock() - began < PROBE_S / 2

    async def _answers(self, *, patient: bool) -> bool:
        """Probe the server once."""
        arguments = asyncpg_arguments(self._url, {"application_name": "tally probe"})
        limit_s = PROBE_S if self._answers_soon and not patient else CONNECT_TIMEOUT_S
        began = self._clock()
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._connect(**arguments)
                try:
                    if self._is_primary and await connection.fetchval("SELECT pg_is_in_recovery()"):
                        raise StandbyError
                finally:
                    connection.terminate()
        except _UP:
            return True
        except LOST_CONNECTION as error:
            raise_if_cancelled(error)
            self._error = error
            return False
        except asyncpg.PostgresError:  # it answers, though it does not let us in
            return True
        self._note_answer(began)
        return True

    def _close(self, probes: int) -> None:
        self._error, self._silent = None, False
        self._opened.clear()
        self._closed.set()
        self._observe(BreakerClosed(self._name, self._clock() - self._opened_at, probes))

    def _suspect(self) -> None:
        for suspect in self._suspects:
            with suppress(RuntimeError):  # the loop of a pool is closing
                suspect()


def same_server(one: str, other: str) -> bool:
    """Whether two addresses name the same server."""
    return hosts(parameters(one)) == hosts(parameters(other))
