"""One LISTEN connection per process: receive notifications, and report when some may have been lost.

Nodes that share results also need to know where the server stands. The same connection tells it, so that
announcements and positions come from one server.
"""

import asyncio
import secrets
import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
from msgspec import Struct

from service.database.breaker import Breaker, StandbyError
from service.database.connect import asyncpg_arguments
from service.database.driver import ListenConnection
from service.database.gateway import LOST_CONNECTION, NOT_MIGRATED
from service.database.queries import SqlFile
from service.database.snapshots import Lineage, Position, parse_snapshot

HEARTBEAT_S: Final = 1.0
ANSWER_S: Final = 2.0
"""How long a heartbeat may take: a server that is busy with other work is not taken for one that hangs."""
_HEARTBEAT: Final = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
RECONNECT_S: Final = (0.05, 2.0)
SECRET_BYTES: Final = 32

_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))


class _PositionRow(Struct, frozen=True):
    """The columns of `read_position`."""

    snapshot: str
    server: str
    clock: float
    wal: int | None


class _Incarnation(Struct, frozen=True):
    secret: bytes


_READ_POSITION: Final = _SQL.rows("read_position", _PositionRow)
_READ_LINEAGE: Final = _SQL.rows("read_lineage", Lineage)
_MAKE_INCARNATION: Final = _SQL.command("make_incarnation")
_READ_INCARNATION: Final = _SQL.rows("read_incarnation", _Incarnation)


class Positions(Struct, frozen=True):
    """Who wants to know where the server stands: after each connect, then at each heartbeat.

    `asking` runs before each question and numbers it. `seen` gets this number, the position, and the secret
    of the server's present incarnation. `wal`: whether the WAL position is needed too.
    """

    asking: Callable[[], int]
    seen: Callable[[int, Position, bytes], None]
    wal: bool = False


class Handlers(Struct, frozen=True):
    """What a listener calls.

    `announced` takes each payload. `silent` runs when the connection is lost. `heard` runs after each connect
    or reconnect: what was cached before it may be stale. `positions` is who wants to know positions.
    """

    announced: Callable[[str], None]
    silent: Callable[[], None]
    heard: Callable[[], None]
    positions: Positions | None = None


class Listener:
    """Hears announcements, and reports when some may have been lost.

    `connected` is set while notifications arrive.
    """

    def __init__(self, url: str, breaker: Breaker | None = None) -> None:
        """`breaker` is that of the primary, which the address leads to; it is told when the server hangs."""
        self._url = url
        self._breaker = breaker
        self._connect: Any = asyncpg.connect if breaker is None else breaker.connect
        self._lost = asyncio.Event()
        if breaker is not None:
            breaker.watch(self._renew)
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
                connection = await self._connect(
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
            if self._breaker is not None and self._breaker.error is not None:
                await self._breaker.closed()
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _listen(self, connection: Any, channels: Iterable[str], handlers: Handlers) -> None:
        lost = self._lost = asyncio.Event()

        def close(_connection: object) -> None:
            self._poll = None
            lost.set()
            handlers.silent()

        def received(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            handlers.announced(str(payload))

        connection.add_termination_listener(close)
        is_standby, was_read_only = await connection.fetchrow(_HEARTBEAT, timeout=HEARTBEAT_S)
        if is_standby and self._breaker is not None:
            self._breaker.open(StandbyError(), silent=True)
            return
        for channel in channels:
            await connection.add_listener(channel, received)
        self._poll = select.poll()
        self._poll.register(connection.file_number(), select.POLLIN)
        self.connected.set()
        handlers.heard()
        about = _About()
        await about.tell_position(connection, handlers.positions)
        while not lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await lost.wait()
            if not lost.is_set() and not await self._takes_writes(connection) and not was_read_only:
                if self._breaker is not None:
                    self._breaker.fail_over()
                return
            if not lost.is_set():
                await about.tell_position(connection, handlers.positions)

    async def _takes_writes(self, connection: Any) -> bool:
        """Whether the connection leads to a server that takes writes.

        This also detects a server that hangs, or vanished without closing the connection.
        """
        try:
            is_standby, is_read_only = await connection.fetchrow(_HEARTBEAT, timeout=ANSWER_S)
        except TimeoutError as error:
            if self._breaker is not None:
                self._breaker.open(error, silent=True)
            raise
        return not is_standby and not is_read_only

    def _renew(self) -> None:
        self._lost.set()


class _About:
    """What stays the same while a connection lasts: losing the secret takes a crash of the server."""

    def __init__(self) -> None:
        self._secret: bytes | None = None
        self._tells_wal = True
        self._lineage: Lineage | None = None

    async def tell_position(self, connection: Any, positions: Positions | None) -> None:
        """Tell the server's position, if it can tell one."""
        if positions is None:
            return
        number = positions.asking()
        try:
            wal = positions.wal and self._tells_wal
            if self._secret is None:
                await self._get_to_know(connection, wal=wal)
            row = await connection.fetchrow(_READ_POSITION.sql, wal, timeout=HEARTBEAT_S)
        except asyncpg.PostgresError as error:
            if isinstance(error, LOST_CONNECTION):
                raise
            # Not migrated, or another kind of Postgres: nothing is shared, or no standby is asked.
            self._tells_wal = isinstance(error, NOT_MIGRATED)
            return
        snapshot, server, clock, wal = row
        if self._secret is not None:
            position = Position(server, parse_snapshot(snapshot), clock, wal, self._lineage)
            positions.seen(number, position, self._secret)

    async def _get_to_know(self, connection: Any, *, wal: bool) -> None:
        if wal:
            with suppress(asyncpg.InsufficientPrivilegeError):  # without it no standby is asked
                row = await connection.fetchrow(_READ_LINEAGE.sql, timeout=HEARTBEAT_S)
                self._lineage = Lineage(*row)
        await connection.execute(_MAKE_INCARNATION.sql, secrets.token_bytes(SECRET_BYTES))
        self._secret = await connection.fetchval(_READ_INCARNATION.sql, timeout=HEARTBEAT_S)
