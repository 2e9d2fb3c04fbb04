"""One LISTEN connection per process: what other sessions announce, and when announcements may be missing."""

import asyncio
import select
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import asyncpg

from service.database.connect import asyncpg_arguments
from service.database.gateway import LOST_CONNECTION

HEARTBEAT_S: Final = 1.0
RECONNECT_S: Final = (0.05, 2.0)

Handler = Callable[[str], None]


class _Ear(asyncpg.Connection):
    """Hears an announcement as it is read.

    asyncpg's own way puts it at the end of the event loop's queue, and whoever stands before it there would
    get an answer that is no longer fresh, with nothing left on the socket to tell.
    """

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        for listener in self._listeners.get(channel, ()):
            listener.cb(self, pid, channel, payload)


class Listener:
    """Calls a channel's handler with each payload, and says when announcements may have been lost.

    `on_silence` runs when the connection is gone, `on_gap` after each (re)connect: what is held from before
    is suspect then. `connected` is set while announcements arrive.
    """

    def __init__(
        self,
        url: str,
        handlers: Mapping[str, Handler],
        *,
        on_gap: Callable[[], None],
        on_silence: Callable[[], None],
    ) -> None:
        self._url = url
        self._handlers = handlers
        self._on_gap = on_gap
        self._on_silence = on_silence
        self.connected = asyncio.Event()
        self._arrivals: select.poll | None = None
        self._looked = False

    def unread(self) -> bool:
        """Whether announcements have arrived that a busy event loop has not come to.

        One look, a system call, does for all who were in the loop's queue by then: what arrives after it
        is no older than they are.
        """
        if self._looked or self._arrivals is None:
            return False
        if self._arrivals.poll(0):
            return True
        self._looked = True
        asyncio.get_running_loop().call_soon(self._look_again)
        return False

    def _look_again(self) -> None:
        self._looked = False

    async def run(self) -> None:
        """Listen until cancelled; reconnects with a growing pause."""
        shortest, longest = RECONNECT_S
        pause = shortest
        while True:
            with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
                connection = await asyncpg.connect(
                    **asyncpg_arguments(self._url, {"application_name": "tally listen"}),
                    connection_class=_Ear,
                )
                try:
                    pause = shortest
                    await self._listen(connection)
                finally:
                    self._arrivals = None
                    self.connected.clear()
                    self._on_silence()
                    connection.terminate()
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _listen(self, connection: Any) -> None:
        closed = asyncio.Event()

        def close(_connection: object) -> None:
            self._arrivals = None
            closed.set()
            self._on_silence()

        connection.add_termination_listener(close)
        for channel in self._handlers:
            await connection.add_listener(channel, self._received)
        self._arrivals = select.poll()
        self._arrivals.register(connection._transport.get_extra_info("socket").fileno(), select.POLLIN)  # noqa: SLF001 (no public way)
        self.connected.set()
        self._on_gap()
        while not closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await closed.wait()
            if not closed.is_set():  # a peer that vanished without a word shows here
                await connection.fetchval("SELECT 1", timeout=HEARTBEAT_S)

    def _received(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._handlers[channel](str(payload))
