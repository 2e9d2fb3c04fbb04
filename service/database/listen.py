"""One LISTEN connection per process: receive notifications, and report when some may have been lost."""

import asyncio
import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import asyncpg
from msgspec import Struct

from service.database.connect import asyncpg_arguments
from service.database.driver import ListenConnection
from service.database.gateway import LOST_CONNECTION

HEARTBEAT_S: Final = 1.0
RECONNECT_S: Final = (0.05, 2.0)


class Handlers(Struct, frozen=True):
    """What a listener calls.

    `announced` takes each payload. `silent` runs when the connection is lost. `heard` runs after each connect
    or reconnect: what was cached before it may be stale.
    """

    announced: Callable[[str], None]
    silent: Callable[[], None]
    heard: Callable[[], None]


class Listener:
    """Hears announcements, and reports when some may have been lost.

    `connected` is set while notifications arrive.
    """

    def __init__(self, url: str) -> None:
        self._url = url
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

    async def run(self, channels: Iterable[str], handlers: Handlers) -> None:
        """Listen until cancelled; reconnect with a growing pause."""
        shortest, longest = RECONNECT_S
        pause = shortest
        while True:
            with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
                connection = await asyncpg.connect(
                    **asyncpg_arguments(self._url, {"application_name": "tally listen"}),
                    connection_class=ListenConnection,
                )
                try:
                    pause = shortest
                    await self._listen(connection, channels, handlers)
                finally:
                    self._poll = None
                    self.connected.clear()
                    handlers.silent()
                    connection.terminate()
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _listen(self, connection: Any, channels: Iterable[str], handlers: Handlers) -> None:
        closed = asyncio.Event()

        def close(_connection: object) -> None:
            self._poll = None
            closed.set()
            handlers.silent()

        def received(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            handlers.announced(str(payload))

        connection.add_termination_listener(close)
        for channel in channels:
            await connection.add_listener(channel, received)
        self._poll = select.poll()
        self._poll.register(connection.file_number(), select.POLLIN)
        self.connected.set()
        handlers.heard()
        while not closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await closed.wait()
            if not closed.is_set():  # detects a server that vanished without closing the connection
                await connection.fetchval("SELECT 1", timeout=HEARTBEAT_S)
