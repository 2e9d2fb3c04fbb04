"""Lending: never more at once than there are, in turn, and nothing is lost whoever leaves when."""

import asyncio
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database.stored_sql import limiter as loans
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
        self.mark = None
        self.skip_reset = False
        self.closed = False

    def take_back(self):
        skip_reset, self.skip_reset = self.skip_reset, False
        return skip_reset and not self.closed

    def is_closed(self):
        return self.closed

    def get_server_pid(self):
        return id(self)


class Pool:
    """Opens at most as many as it may; one that waits for ever would show as a deadlock."""

    def __init__(self):
        self.out = set()
        self.lent = self.most = 0
        self.failing = False
        self.unheeding = set()
        self.ended = []

    async def acquire(self, *, timeout):  # noqa: ASYNC109 (the pool's signature)
        assert timeout == loans.QUEUE_WAIT_S
        await asyncio.sleep(0)
        if self.failing:
            raise ConnectionRefusedError
        connection = Connection()
        self.out.add(connection)
        self.lent += 1
        self.most = max(self.most, len(self.out))
        return connection

    async def release(self, connection, *, timeout):  # noqa: ASYNC109 (the pool's signature)
        assert timeout == loans.GRACE_S
        await asyncio.shield(self._close(connection))  # as asyncpg has it
        if id(connection) in self.unheeding and not connection.cap.exceeded:
            raise TimeoutError

    async def fetchval(self, query, backend, _mark):
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
def lender(pool):
    return ConnectionLimiter(
        pool, SETTINGS, SETTINGS.reader_pool_size, queue_limit=SETTINGS.reader_queue_limit
    )


async def borrow(lender, release, *, skip_reset=True, watch=None):
    async with lender.acquire(watch) as connection:
        connection.skip_reset = skip_reset
        await release
        return connection


def start(lender, **options):
    release = asyncio.get_running_loop().create_future()
    return asyncio.create_task(borrow(lender, release, **options)), release


async def turns(number=10):
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_spotless_connection_goes_straight_to_the_next(lender, pool):
    tasks = [start(lender) for _ in range(4)]
    await turns()
    assert len(pool.out) == 2
    for _, release in tasks:
        release.set_result(None)
    connections = [await task for task, _ in tasks]
    assert len(set(connections)) == pool.lent == 2


async def test_any_other_goes_back_to_the_pool_first(lender, pool):
    for _ in range(3):
        task, release = start(lender, skip_reset=False)
        release.set_result(None)
        await task
        assert not pool.out
    assert pool.lent == 3


async def test_after_an_error_it_goes_back_too(lender, pool):
    task, release = start(lender)
    release.set_exception(RuntimeError())
    with pytest.raises(RuntimeError):
        await task
    assert not pool.out


async def test_a_dead_one_at_hand_is_replaced(lender, pool):
    task, release = start(lender)
    release.set_result(None)
    dead = await task
    dead.closed = True
    task, release = start(lender)
    release.set_result(None)
    assert await task is not dead
    assert dead not in pool.out


async def test_past_the_queue_and_past_the_wait_is_busy(lender, monkeypatch):
    monkeypatch.setattr(loans, "QUEUE_WAIT_S", 0.0)
    holding = [start(lender) for _ in range(2)]
    await turns()
    waiting = [start(lender)[0] for _ in range(3)]
    await turns(1)
    refused, _ = start(lender)
    for task in (refused, *waiting):
        with pytest.raises(Busy):
            await task
    for task, release in holding:
        release.set_result(None)
        await task
    task, release = start(lender)
    release.set_result(None)
    await task


async def test_an_unreachable_server_is_unavailable_and_blocks_nobody(lender, pool):
    pool.failing = True
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await start(lender)[0]
    pool.failing = False
    task, release = start(lender)
    release.set_result(None)
    await task


@pytest.fixture
def quick(monkeypatch):
    for name in ("NOTICE_S", "LINGER_S", "CUT_S"):
        monkeypatch.setattr(loans, name, 0.0)
    for name in ("QUEUE_WAIT_S", "GRACE_S"):
        monkeypatch.setattr(loans, name, 0.05)


class Watched:
    """What hears of a statement that lingers, and refuses it from then on."""

    def __init__(self, refuses_after=10**9):
        self.times = 0
        self.refuses_after = refuses_after
        self.watch = Watch(self.check, self.lingered)

    def check(self):
        if self.times >= self.refuses_after:
            raise MetricSuspended

    async def lingered(self):
        self.times += 1


async def linger(lender, pool, watch=None, number=2):
    """Let so many statements run past their time that heed no cancellation."""
    tasks = [start(lender, watch=watch) for _ in range(number)]
    await turns()
    pool.unheeding |= {id(connection) for connection in pool.out}
    for task, release in tasks:
        release.set_exception(TimeoutError())
        with pytest.raises(QueryTimeout):
            await task
    await turns()


async def fill(lender, number=2):
    tasks = [start(lender) for _ in range(number)]
    await turns()
    for task, release in tasks:
        release.set_result(None)
        await task


async def test_what_heeds_no_cancellation_gives_its_place_back(lender, pool, quick):
    for times in (1, 2):
        watched = Watched()
        await linger(lender, pool, watched.watch, number=1)
        assert watched.times == 1
        assert lender.lingering == (times, times)
        await fill(lender)
    pool.unheeding.clear()
    await turns()
    assert lender.lingering == (0, 0)
    await fill(lender)


async def test_past_the_limit_a_place_stays_taken_until_one_ends(lender, pool, quick):
    await linger(lender, pool)
    assert lender.lingering == (2, 2)
    await linger(lender, pool)
    assert lender.lingering == (4, 2)
    with pytest.raises(Busy):
        await start(lender)[0]
    pool.unheeding.pop()
    await turns()
    assert lender.lingering.statements == 3
    await fill(lender, 1)
    pool.unheeding.clear()
    await turns()
    assert lender.lingering == (0, 0)
    await fill(lender)


async def test_nobody_to_ask_does_not_mean_that_it_lingers(lender, pool, quick):
    watched = Watched()
    tasks = [start(lender, watch=watched.watch) for _ in range(2)]
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
        await start(lender)[0]
    pool.failing = False
    await turns()
    assert watched.times == 2
    await fill(lender)


async def test_what_lingered_enough_is_refused_before_and_after_the_queue(lender, pool, quick, monkeypatch):
    monkeypatch.setattr(loans, "QUEUE_WAIT_S", 60.0)
    watched = Watched(refuses_after=2)
    tasks = [start(lender, watch=watched.watch) for _ in range(2)]
    await turns()
    queued, _ = start(lender, watch=watched.watch)
    pool.unheeding |= {id(connection) for connection in pool.out}
    for _, release in tasks:
        release.set_exception(TimeoutError())
    for task, _ in tasks:
        with pytest.raises(QueryTimeout):
            await task
    for refused in (queued, start(lender, watch=watched.watch)[0]):
        with pytest.raises(MetricSuspended):
            await refused
    assert watched.times == 2
    await fill(lender)


async def test_a_caller_who_leaves_does_not_hide_that_it_lingers(lender, pool, quick):
    watched = Watched()
    task, _ = start(lender, watch=watched.watch)
    await turns()
    pool.unheeding |= {id(connection) for connection in pool.out}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await turns()
    assert watched.times == 1


async def test_what_was_cut_for_its_size_is_ended_in_postgres(lender, pool, quick):
    watched = Watched()
    task, release = start(lender, watch=watched.watch)
    await turns()
    (connection,) = pool.out
    connection.cap.exceeded = True
    pool.unheeding.add(id(connection))
    release.set_exception(ConnectionResetError())
    with pytest.raises(ResultTooLarge):
        await task
    await turns()
    assert pool.ended == [id(connection)]
    assert (watched.times, lender.lingering) == (1, (1, 1))
    pool.unheeding.clear()
    await turns()
    await fill(lender)


async def test_closing_gives_all_at_hand_back(lender, pool):
    tasks = [start(lender) for _ in range(2)]
    await turns()
    for task, release in tasks:
        release.set_result(None)
        await task
    assert len(pool.out) == 2
    await lender.close()
    assert not pool.out


STEPS = st.lists(st.tuples(st.sampled_from(("come", "soil", "end", "leave", "turn")), st.integers(0, 5)))


@given(STEPS)
def test_whoever_comes_and_leaves_nothing_is_lost(steps):
    async def play():
        pool = Pool()
        lender = ConnectionLimiter(
            pool, SETTINGS, SETTINGS.reader_pool_size, queue_limit=SETTINGS.reader_queue_limit
        )
        people = []
        for what, number in steps:
            if what in {"come", "soil"}:
                people.append(start(lender, skip_reset=what == "come"))
            elif what == "turn" or not people:
                await turns(1)
            else:
                task, release = people[number % len(people)]
                if what == "end" and not release.done():
                    release.set_result(None)
                elif what == "leave":
                    task.cancel()
        for task, release in people:
            if not release.done():
                release.set_result(None)
            with suppress(Busy, asyncio.CancelledError):
                await task
        assert pool.most <= 2
        last = [start(lender) for _ in range(5)]  # all that there are, and the whole queue
        for task, release in last:
            release.set_result(None)
            await task
        await lender.close()
        await turns()
        assert not pool.out

    with patch.object(loans, "NOTICE_S", 0.0):  # a release that was cut off is looked after
        asyncio.run(play())
