"""A cancelled caller of the database ends, whatever else goes wrong at that moment."""

import asyncio

import asyncpg
import pytest

from service.database.gateway import Database
from service.database.queries import Command
from service.errors import DatabaseUnavailable

HANG = Command("hang", "HANG")


class Pool:
    """Gives one connection, whose first statement hangs. It is lost when it is given back."""

    def __init__(self):
        self.hangs = asyncio.Event()
        self.lost = False

    async def acquire(self):
        return self

    async def release(self, _connection, *, timeout):  # noqa: ASYNC109 (the pool's signature)
        assert timeout > 0
        if not self.lost:
            self.lost = True
            raise asyncpg.ConnectionDoesNotExistError("the connection was closed in the middle of operation")

    async def execute(self, _sql, **_options):
        if not self.hangs.is_set():
            self.hangs.set()
            await asyncio.Event().wait()
        return "OK"


class Full:
    """Has no connection to give."""

    def __init__(self):
        self.asked = asyncio.Event()

    async def acquire(self):
        self.asked.set()
        await asyncio.Event().wait()


async def retrying(database):
    """Tries until it works, as what keeps the catalogue does."""
    while True:
        try:
            return await database.write(HANG)
        except DatabaseUnavailable:
            await asyncio.sleep(0)


async def test_who_tries_again_until_it_works_can_be_cancelled_while_its_connection_is_lost():
    pool = Pool()
    task = asyncio.create_task(retrying(Database(pool)))
    await pool.hangs.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_without_a_cancellation_the_loss_is_told():
    pool = Pool()

    async def lost(_sql, **_options):
        raise ConnectionResetError

    pool.execute = lost
    with pytest.raises(DatabaseUnavailable):
        await Database(pool).write(HANG)


async def test_who_waits_for_a_connection_can_be_cancelled():
    pool = Full()
    task = asyncio.create_task(retrying(Database(pool)))
    await pool.asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_who_waits_too_long_for_a_connection_hears_that_there_is_none(monkeypatch):
    monkeypatch.setattr("service.database.gateway.CONNECT_TIMEOUT_S", 0.01)
    with pytest.raises(DatabaseUnavailable):
        await Database(Full()).write(HANG)
