"""One LISTEN connection per process: receive notifications, and report when some may have been lost."""

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


class _ListenConnection(asyncpg.Connection):
    """Calls the listeners as soon as a notification is read.

    asyncpg schedules them at the end of the event loop's queue instead. Requests before them in that queue
    would then be served stale results, and the socket would already be empty.
    """

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        for listener in self._listeners.get(channel, ()):
            listener.cb(self, pid, channel, payload)


class Listener:
    """Calls a channel's handler with each payload, and reports when notifications may have been lost.

    `on_silence` runs when the connection is lost. `on_gap` runs after each connect or reconnect: entries
    that were cached before it may be stale. `connected` is set while notifications arrive.
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
        self._poll: select.poll | None = None
        self._checked = False

    def unread(self) -> bool:
        """Whether notifications have arrived that a busy event loop has not yet read.

        One check (a system call) is enough for all callbacks that were in the loop's queue at that time:
        notifications that arrive later are newer than these callbacks.
        """
        if self._checked or self._poll is None:
            return False
        if self._poll.poll(0):
            return True
        self._checked = True
        asyncio.get_running_loop().call_soon(self._reset_check)
        return False

    def _reset_check(self) -> None:
        self._checked = False

    async def run(self) -> None:
        """Listen until cancelled; reconnect with a growing pause."""
        shortest, longest = RECONNECT_S
        pause = shortest
        while True:
            with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
                connection = await asyncpg.connect(
                    **asyncpg_arguments(self._url, {"application_name": "tally listen"}),
                    connection_class=_ListenConnection,
                )
                try:
                    pause = shortest
                    await self._listen(connection)
                finally:
                    self._poll = None
                    self.connected.clear()
                    self._on_silence()
                    connection.terminate()
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _listen(self, connection: Any) -> None:
        closed = asyncio.Event()

        def close(_connection: object) -> None:
            self._poll = None
            closed.set()
            self._on_silence()

        connection.add_termination_listener(close)
        for channel in self._handlers:
            await connection.add_listener(channel, self._received)
        self._poll = select.poll()
        self._poll.register(connection._transport.get_extra_info("socket").fileno(), select.POLLIN)  # noqa: SLF001 (no public way)
        self.connected.set()
        self._on_gap()
        while not closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await closed.wait()
            if not closed.is_set():  # detects a server that vanished without closing the connection
                await connection.fetchval("SELECT 1", timeout=HEARTBEAT_S)

    def _received(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self._handlers[channel](str(payload))
