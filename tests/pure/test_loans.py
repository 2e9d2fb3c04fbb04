"""Lending: never more at once than there are, in turn, and nothing is lost whoever leaves when."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database.stored_sql import loans
from service.database.stored_sql.loans import Loans
from service.errors import Busy, DatabaseUnavailable, QueryTimeout
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
        self.spotless = False
        self.closed = False

    def take_back(self):
        spotless, self.spotless = self.spotless, False
        return spotless and not self.closed

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
        if id(connection) in self.unheeding:
            raise TimeoutError

    async def fetchval(self, _query, backend):
        await asyncio.sleep(0)
        if self.failing:
            raise ConnectionRefusedError
        return backend in self.unheeding

    async def _close(self, connection):
        await asyncio.sleep(0)
        self.out.discard(connection)


@pytest.fixture
def pool():
    return Pool()


@pytest.fixture
def lender(pool):
    return Loans(pool, SETTINGS, SETTINGS.reader_pool_size, queue_limit=SETTINGS.reader_queue_limit)


async def borrow(lender, release, *, spotless=True):
    async with lender.lend() as connection:
        connection.spotless = spotless
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
        task, release = start(lender, spotless=False)
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


async def test_a_place_stays_taken_while_postgres_heeds_no_cancellation(lender, pool, monkeypatch):
    monkeypatch.setattr(loans, "LINGER_S", 0.0)
    monkeypatch.setattr(loans, "QUEUE_WAIT_S", 0.0)
    tasks = [start(lender) for _ in range(2)]
    await turns()
    pool.unheeding |= {id(connection) for connection in pool.out}
    for task, release in tasks:
        release.set_exception(TimeoutError())
        with pytest.raises(QueryTimeout):
            await task
    for _ in range(2):
        with pytest.raises(Busy):
            await start(lender)[0]
        pool.failing = not pool.failing  # nobody to ask does not mean that it is through
        await turns()
    pool.unheeding.clear()
    await turns()
    ready = [start(lender) for _ in range(2)]
    for task, release in ready:
        release.set_result(None)
        await task


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
        lender = Loans(pool, SETTINGS, SETTINGS.reader_pool_size, queue_limit=SETTINGS.reader_queue_limit)
        people = []
        for what, number in steps:
            if what in {"come", "soil"}:
                people.append(start(lender, spotless=what == "come"))
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

    asyncio.run(play())
