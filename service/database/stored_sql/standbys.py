"""Hot standbys that run stored SQL, if they have replayed what a run must show.

A standby that lags is waited for, for a moment. Then another one is asked, or the primary. The same holds
for one that is away, was promoted, cancels the statement because of a conflict with recovery, or reports any
other error: only the primary's word on an error counts.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, Literal

import asyncpg
from msgspec import Struct

from service.database.driver import Pool
from service.database.gateway import LOST_CONNECTION
from service.database.snapshots import Lineage, Requirement, Seen, Snapshot
from service.database.stored_sql.connection import SQL, ReaderConnection
from service.database.stored_sql.limiter import ConnectionLimiter
from service.database.stored_sql.sessions import make_pool
from service.errors import (
    Busy,
    DatabaseUnavailable,
    MetricSuspended,
    Problem,
    QueryFailed,
    QueryTimeout,
)
from service.observe.events import ConnectionLost, ConnectionRestored, Observe
from service.postgres_url import where
from service.settings import Database as DatabaseSettings

Needs = Callable[[], Requirement | None]
"""What a standby must show now; None if only the primary will do."""

CATCH_UP_S: Final = 0.1
"""How long a run waits for a standby that did not lag before."""
LOOK_S: Final = 0.004
CHECK_S: Final = 0.5
PROBE_S: Final = 1.0
LINEAGE_S: Final = 5.0


class _Replay(Struct, frozen=True):
    """The columns of `read_standby`."""

    standby: bool
    xmin: int
    replayed: int | None
    missing: int


_READ_STANDBY: Final = SQL.rows("read_standby", _Replay)
_READ_LINEAGE: Final = SQL.rows("read_standby_lineage", Lineage)


class NotThere(Exception):  # noqa: N818 (it names what happens)
    """The standby cannot run this statement now. Its state is `lags`, `unknown` or that it is lost."""

    def __init__(self, why: str, state: Literal["lags", "unknown", "lost"] = "lost") -> None:
        super().__init__(why)
        self.state = state


class Standby:
    """One standby. It is asked while it is not `away`; `lags` means that nobody waits for it."""

    def __init__(self, where: str, pool: Pool, limiter: ConnectionLimiter) -> None:
        self.where = where
        self.pool = pool
        self.limiter = limiter
        self.away: str | None = "not asked yet"
        self.lags = False

    @property
    def load(self) -> int:
        usage = self.limiter.usage
        return usage.used + usage.waiting

    async def check(self, connection: ReaderConnection, needs: Needs) -> Seen:
        """What the next statement sees, if that is enough. Raises `NotThere`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (0.0 if self.lags else CATCH_UP_S)
        while True:
            required = needs()
            if required is None:
                raise NotThere("the primary has not told its position", "unknown")
            if required.lineage is None:
                raise NotThere("the owner may not read pg_control_system() on the primary")
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._check_lineage(connection, required.lineage)
                    wanted = [str(each) for each in required.transactions]
                    row = (await connection.fetch_limited(_READ_STANDBY.sql, (wanted,), 1))[0]
            except TimeoutError:
                raise NotThere("no answer in time") from None
            replay = _Replay(*row)
            if not replay.standby or replay.replayed is None:
                raise NotThere("it is no standby any more")
            if replay.replayed >= required.wal and not replay.missing:
                self.lags = False
                shown = frozenset(required.transactions)
                return Seen(
                    required.server,
                    Snapshot(replay.xmin, replay.xmin, shown=shown, replayed=replay.replayed),
                )
            if loop.time() >= until:
                self.lags = True
                raise NotThere("it lags", "lags")
            await asyncio.sleep(LOOK_S)

    async def _check_lineage(self, connection: ReaderConnection, primary: Lineage) -> None:
        """Numbers of transactions mean something only within one history."""
        now = asyncio.get_running_loop().time()
        if now < connection.lineage_known_until:
            return
        (row,) = await connection.fetch_limited(_READ_LINEAGE.sql, (), 1)
        found = Lineage(*row)
        if found.system != primary.system:
            raise NotThere("it belongs to another cluster")
        if found.timeline > primary.timeline:
            raise NotThere("it follows another primary")
        connection.lineage_known_until = now + LINEAGE_S

    async def confirm(self, connection: ReaderConnection) -> None:
        """Check after the run that it was a standby all the time."""
        try:
            async with asyncio.timeout(CHECK_S):
                row = (await connection.fetch_limited(_READ_STANDBY.sql, ([],), 1))[0]
        except TimeoutError:
            raise NotThere("no answer in time") from None
        if not row[0]:
            raise NotThere("it is no standby any more")


class Standbys:
    """All standbys, in the order in which a run tries them."""

    def __init__(self, standbys: list[Standby], observe: Observe) -> None:
        self._standbys = standbys
        self._observe = observe

    def __len__(self) -> int:
        return len(self._standbys)

    def choose(self) -> Iterator[Standby]:
        """Those that answer, the least busy first; those that lag last."""
        there = [each for each in self._standbys if each.away is None]
        random.shuffle(there)
        there.sort(key=lambda each: (each.lags, each.load))
        yield from there

    @property
    def any_there(self) -> bool:
        return any(each.away is None for each in self._standbys)

    @property
    def states(self) -> dict[str, str]:
        """For each standby `ok`, or why it is not asked."""
        return {each.where: each.away or ("it lags" if each.lags else "ok") for each in self._standbys}

    def lose(self, standby: Standby, why: str) -> None:
        if standby.away is None:
            self._observe(ConnectionLost(f"standby {standby.where}", why))
        standby.away = why

    async def keep(self, needs: Needs) -> None:
        """Try again those that are away, until cancelled."""
        while self._standbys:
            for standby in self._standbys:
                if standby.away is not None or standby.lags:
                    await self._probe(standby, needs)
            await asyncio.sleep(PROBE_S)

    async def _probe(self, standby: Standby, needs: Needs) -> None:
        try:
            async with asyncio.timeout(PROBE_S), standby.limiter.acquire() as connection:
                await standby.check(connection, needs)
        except NotThere as reason:
            if reason.state == "lost":
                self.lose(standby, str(reason))
            if reason.state != "lags":
                return
        except (Problem, TimeoutError, asyncpg.PostgresError, *LOST_CONNECTION):
            self.lose(standby, "no connection")
            return
        if standby.away is not None:
            standby.away = None
            self._observe(ConnectionRestored(f"standby {standby.where}"))

    async def retire(self) -> None:
        for standby in self._standbys:
            await standby.pool.expire_connections()
            await standby.limiter.retire()

    async def close(self) -> None:
        for standby in self._standbys:
            with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
                await standby.limiter.close()
                await standby.pool.close()


def is_asked_elsewhere(problem: Problem) -> bool:
    """Whether another server may have an answer. A statement that took too long would take as long there."""
    if isinstance(problem, QueryTimeout):
        return not isinstance(problem.__cause__, asyncpg.QueryCanceledError)
    return isinstance(problem, QueryFailed | DatabaseUnavailable | Busy) and not isinstance(
        problem, MetricSuspended
    )


async def open_standbys(settings: DatabaseSettings, observe: Observe) -> Standbys:
    """The standbys of REPLICA_DATABASE_URLS, each with as many connections as the primary, opened later."""
    standbys: list[Standby] = []
    for url in settings.replica_urls:
        pool = await make_pool(url, settings)
        limiter = ConnectionLimiter(
            pool,
            settings,
            settings.reader_pool_size,
            queue_limit=settings.reader_queue_limit,
            observe=observe,
        )
        standbys.append(Standby(where(url), pool, limiter))
    return Standbys(standbys, observe)
