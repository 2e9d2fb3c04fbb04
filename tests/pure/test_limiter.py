"""The limiter: never more connections than slots, first come first served, and no slot is ever lost."""

import asyncio
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database.stored_sql import limiter as module
from service.database.stored_sql.limiter import ConnectionLimiter, Watch
from service.errors import Busy, DatabaseUnavailable, MetricSuspended, QueryTimeout, ResultTooLarge
from service.settings import Database

SETTINGS = Database(url="", reader_url="", reader_pool_size=2, reader_queue_limit=3)


class Cap:
    exceeded = False

    def start(self, limit):
        self.limit = limit

    def stop(self):
        self.limit = None


class Connection:
    def __init__(self):
        self.cap = Cap()
        self.itself = self
        self.proxy = None
        self.session_name = None
        self.skip_reset = False
        self.closed = False

    def is_reusable(self):
        skip_reset, self.skip_reset = self.skip_reset, False
        return skip_reset and not self.closed

    def is_closed(self):
        return self.closed

    def get_server_pid(self):
        return id(self)


class Pool:
    """Counts its connections; a limiter that never releases one would show as a deadlock."""

    def __init__(self):
        self.out = set()
        self.opened = self.most = 0
        self.failing = False
        self.unheeding = set()
        self.ended = []

    async def acquire(self, *, timeout=None):  # noqa: ASYNC109 (the pool's signature)
        """A connection for a statement; without a timeout, the pool itself, for questions."""
        await asyncio.sleep(0)
        if timeout is None:
            return self
        assert timeout == module.QUEUE_WAIT_S
        if self.failing:
            raise ConnectionRefusedError
        connection = Connection()
        self.out.add(connection)
        self.opened += 1
        self.most = max(self.most, len(self.out))
        return connection

    async def release(self, connection, *, timeout):  # noqa: ASYNC109 (the pool's signature)
        if connection is self:
            return
        assert timeout == module.GRACE_S
        await asyncio.shield(self._close(connection))  # as asyncpg does
        if id(connection) in self.unheeding and not connection.cap.exceeded:
            raise TimeoutError

    async def fetchval(self, query, backend, _session_name):
        await asyncio.sleep(0)
        if self.failing:
            raise ConnectionRefusedError
        if "pg_terminate_backend" in query:
            self.ended.append(backend)
        return backend in self.unheeding

    async def _close(self, connection):
        await asyncio.sleep(0)
        self.out.discard(connection)


@pytest.fixture
def pool():
    return Pool()


@pytest.fixture
def limiter(pool):
    return ConnectionLimiter(
        pool, SETTINGS, SETTINGS.reader_pool_size, queue_limit=SETTINGS.reader_queue_limit
    )


async def hold(limiter, release, *, skip_reset=True, watch=None):
    async with limiter.acquire(watch) as connection:
        connection.skip_reset = skip_reset
        await release
        return connection


def start(limiter, **options):
    release = asyncio.get_running_loop().create_future()
    return asyncio.create_task(hold(limiter, release, **options)), release


async def turns(number=10):
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_connection_without_reset_goes_straight_to_the_next_caller(limiter, pool):
    tasks = [start(limiter) for _ in range(4)]
    await turns()
    assert len(pool.out) == 2
    for _, release in tasks:
        release.set_result(None)
    connections = [await task for task, _ in tasks]
    assert len(set(connections)) == pool.opened == 2


async def test_who_gets_a_connection_is_no_longer_on_the_way(limiter):
    """Else the next callers would be refused for somebody who waits for nothing."""
    watch = Watch(lambda: None, _lingered, "metric")
    for idle in (False, True):
        limiter.refuse("metric", runs=True)
        assert limiter._admission.expected.number == 1
        async with limiter.acquire(watch) as connection:
            assert limiter._admission.expected.number == 0, f"idle: {idle}"
            connection.skip_reset = True


async def _lingered():
    pass


async def test_a_connection_to_reset_goes_back_to_the_pool(limiter, pool):
    for _ in range(3):
        task, release = start(limiter, skip_reset=False)
        release.set_result(None)
        await task
        assert not pool.out
    assert pool.opened == 3


async def test_after_an_error_a_connection_goes_back_to_the_pool(limiter, pool):
    task, release = start(limiter)
    release.set_exception(RuntimeError())
    with pytest.raises(RuntimeError):
        await task
    assert not pool.out


async def test_a_closed_idle_connection_is_replaced(limiter, pool):
    task, release = start(limiter)
    release.set_result(None)
    dead = await task
    dead.closed = True
    task, release = start(limiter)
    release.set_result(None)
    assert await task is not dead
    assert dead not in pool.out


async def test_a_full_queue_and_a_long_wait_are_busy(limiter, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_WAIT_S", 0.0)
    holding = [start(limiter) for _ in range(2)]
    await turns()
    waiting = [start(limiter)[0] for _ in range(3)]
    await turns(1)
    refused, _ = start(limiter)
    for task in (refused, *waiting):
        with pytest.raises(Busy):
            await task
    for task, release in holding:
        release.set_result(None)
        await task
    task, release = start(limiter)
    release.set_result(None)
    await task


async def test_an_unreachable_server_is_unavailable_and_blocks_nobody(limiter, pool):
    pool.failing = True
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await start(limiter)[0]
    pool.failing = False
    task, release = start(limiter)
    release.set_result(None)
    await task


@pytest.fixture
def quick(monkeypatch):
    for name in ("NOTICE_S", "LINGER_S", "CUT_S"):
        monkeypatch.setattr(module, name, 0.0)
    for name in ("QUEUE_WAIT_S", "GRACE_S"):
        monkeypatch.setattr(module, name, 0.05)


class Watched:
    """Counts lingering statements, and refuses to run more after `refuses_after` of them."""

    def __init__(self, refuses_after=10**9):
        self.times = 0
        self.refuses_after = refuses_after
        self.watch = Watch(self.check, self.lingered)

    def check(self):
        if self.times >= self.refuses_after:
            raise MetricSuspended

    async def lingered(self):
        self.times += 1


async def linger(limiter, pool, watch=None, number=2):
    """Let `number` statements time out that cannot be cancelled."""
    tasks = [start(limiter, watch=watch) for _ in range(number)]
    await turns()
    pool.unheeding |= {id(connection) for connection in pool.out}
    for task, release in tasks:
        release.set_exception(TimeoutError())
        with pytest.raises(QueryTimeout):
            await task
    await turns()


async def fill(limiter, number=2):
    tasks = [start(limiter) for _ in range(number)]
    await turns()
    for task, release in tasks:
        release.set_result(None)
        await task


async def test_a_lingering_statement_frees_its_slot(limiter, pool, quick):
    for times in (1, 2):
        watched = Watched()
        await linger(limiter, pool, watched.watch, number=1)
        assert watched.times == 1
        assert limiter.lingering == (times, times)
        await fill(limiter)
    pool.unheeding.clear()
    await turns()
    assert limiter.lingering == (0, 0)
    await fill(limiter)


async def test_above_the_limit_a_slot_stays_in_use_until_a_statement_ends(limiter, pool, quick):
    await linger(limiter, pool)
    assert limiter.lingering == (2, 2)
    await linger(limiter, pool)
    assert limiter.lingering == (4, 2)
    with pytest.raises(Busy):
        await start(limiter)[0]
    pool.unheeding.pop()
    await turns()
    assert limiter.lingering.statements == 3
    await fill(limiter, 1)
    pool.unheeding.clear()
    await turns()
    assert limiter.lingering == (0, 0)
    await fill(limiter)


async def test_an_unreachable_server_does_not_count_as_lingering(limiter, pool, quick):
    watched = Watched()
    tasks = [start(limiter, watch=watched.watch) for _ in range(2)]
    await turns()
    pool.unheeding |= {id(connection) for connection in pool.out}
    pool.failing = True
    for task, release in tasks:
        release.set_exception(TimeoutError())
        with pytest.raises(QueryTimeout):
            await task
    await turns()
    assert watched.times == 0
    with pytest.raises(Busy):
        await start(limiter)[0]
    pool.failing = False
    await turns()
    assert watched.times == 2
    await fill(limiter)


async def test_a_suspended_metric_is_refused_before_and_after_the_queue(limiter, pool, quick, monkeypatch):
    monkeypatch.setattr(module, "QUEUE_WAIT_S", 60.0)
    watched = Watched(refuses_after=2)
    tasks = [start(limiter, watch=watched.watch) for _ in range(2)]
    await turns()
    queued, _ = start(limiter, watch=watched.watch)
    pool.unheeding |= {id(connection) for connection in pool.out}
    for _, release in tasks:
        release.set_exception(TimeoutError())
    for task, _ in tasks:
        with pytest.raises(QueryTimeout):
            await task
    for refused in (queued, start(limiter, watch=watched.watch)[0]):
        with pytest.raises(MetricSuspended):
            await refused
    assert watched.times == 2
    await fill(limiter)


async def test_a_statement_lingers_after_its_caller_left(limiter, pool, quick):
    watched = Watched()
    task, _ = start(limiter, watch=watched.watch)
    await turns()
    pool.unheeding |= {id(connection) for connection in pool.out}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert watched.times == 1


async def test_a_statement_aborted_for_its_size_is_ended_in_postgres(limiter, pool, quick):
    watched = Watched()
    task, release = start(limiter, watch=watched.watch)
    await turns()
    (connection,) = pool.out
    connection.cap.exceeded = True
    pool.unheeding.add(id(connection))
    release.set_exception(ConnectionResetError())
    with pytest.raises(ResultTooLarge):
        await task
    await turns()
    assert pool.ended == [id(connection)]
    assert (watched.times, limiter.lingering) == (1, (1, 1))
    pool.unheeding.clear()
    await turns()
    await fill(limiter)


async def test_closing_returns_all_idle_connections(limiter, pool):
    tasks = [start(limiter) for _ in range(2)]
    await turns()
    for task, release in tasks:
        release.set_result(None)
        await task
    assert len(pool.out) == 2
    await limiter.close()
    assert not pool.out


STEPS = st.lists(st.tuples(st.sampled_from(("come", "soil", "end", "leave", "turn")), st.integers(0, 5)))


@given(STEPS)
def test_no_slot_is_lost_in_any_order_of_calls(steps):
    async def play():
        pool = Pool()
        limiter = ConnectionLimiter(
            pool, SETTINGS, SETTINGS.reader_pool_size, queue_limit=SETTINGS.reader_queue_limit
        )
        callers = []
        for what, number in steps:
            if what in {"come", "soil"}:
                callers.append(start(limiter, skip_reset=what == "come"))
            elif what == "turn" or not callers:
                await turns(1)
            else:
                task, release = callers[number % len(callers)]
                if what == "end" and not release.done():
                    release.set_result(None)
                elif what == "leave":
                    task.cancel()
        for task, release in callers:
            if not release.done():
                release.set_result(None)
            with suppress(Busy, asyncio.CancelledError):
                await task
        assert pool.most <= 2
        await turns()  # who left during a release gives its slot back a moment later
        last = [start(limiter) for _ in range(5)]  # all slots and the whole queue
        for task, release in last:
            release.set_result(None)
            await task
        await limiter.close()
        await turns()
        assert not pool.out

    with patch.object(module, "NOTICE_S", 0.0):  # check a cancelled release at once
        asyncio.run(play())
