"""What the driver says that is no fault stays out of the log. Lost connections keep no place in a pool."""

import asyncio
import logging

import asyncpg
import msgspec
import pytest
from asyncpg.connect_utils import TLSUpgradeProto

from service.database.breaker import Breaker
from service.database.driver import ignore_cancelled_connects
from service.database.gateway import lend, open_database
from service.database.queries import Command
from service.database.stored_sql.limiter import ConnectionLimiter
from service.database.stored_sql.sessions import make_pool
from service.errors import DatabaseUnavailable


@pytest.mark.parametrize(("given_up", "logged"), [(True, 0), (False, 1)])
async def test_a_connection_that_was_given_up_is_no_error(given_up, logged, caplog):
    """The first happens when Postgres answers after the caller has left; the second is a fault."""
    ignore_cancelled_connects()
    loop = asyncio.get_running_loop()
    protocol = TLSUpgradeProto(loop, "127.0.0.1", 5432, None, ssl_is_advisory=False)
    protocol.on_data.cancel() if given_up else protocol.on_data.set_result(None)
    shown = protocol if given_up else "another protocol"
    with pytest.raises(asyncio.InvalidStateError) as caught:
        protocol.data_received(b"S")
    context = {"message": "Fatal error: protocol.data_received() call failed.", "protocol": shown}
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.default_exception_handler({**context, "exception": caught.value})
    assert len(caplog.records) == logged


class Losing:
    """Connects; each connection is lost at once, before the pool lends it."""

    def __init__(self):
        self.loses = True

    async def connect(self, *args, **arguments):
        connection = await asyncpg.connect(*args, **arguments)
        if self.loses:
            connection.terminate()
        return connection


async def test_the_owners_pool_gets_the_place_of_a_connection_back_that_is_lost_at_once(shared_addresses):
    losing = Losing()

    async def init(connection):
        pass

    async with open_database(shared_addresses.url, size=1) as database:
        database._pool._init, database._pool._connect = init, losing.connect
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await database.write(Command("one", "SELECT 1"))
        losing.loses = False
        assert await database.write(Command("one", "SELECT 1")) == 1


async def test_the_readers_pool_does_so_too(shared_addresses):
    losing = Losing()
    settings = msgspec.structs.replace(shared_addresses, reader_pool_size=1)
    breaker = Breaker("primary", shared_addresses.reader_url, connect=losing.connect)
    pool = await make_pool(shared_addresses.reader_url, settings, breaker)
    for _ in range(4):
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await pool.acquire(timeout=5)
    losing.loses = False
    async with pool.acquire(timeout=5) as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


async def test_a_connection_that_postgres_ends_between_two_statements_gives_its_place_back(shared_addresses):
    """The driver closes it at the next statement, if that comes before the end of the stream."""
    one = Command("one", "SELECT 1")
    async with open_database(shared_addresses.url, size=1) as database:
        for _ in range(3):
            async with database._borrow() as connection:
                protocol = connection._con._protocol
            protocol.data_received(FAREWELL)
            with pytest.raises(DatabaseUnavailable):
                await database.write(one)
            assert await database.write(one) == 1


async def test_the_limiters_own_questions_give_their_places_back_too(shared_addresses):
    """It asks whether a cancelled statement still runs, on a connection that takes no slot."""
    settings = msgspec.structs.replace(shared_addresses, reader_pool_size=1)
    pool = await make_pool(shared_addresses.reader_url, settings)
    limiter = ConnectionLimiter(pool, settings, 1, queue_limit=1)
    for _ in range(4):  # more often than the pool has connections
        async with lend(pool, timeout_s=5) as connection:
            backend, protocol = connection._con.get_server_pid(), connection._con._protocol
        protocol.data_received(FAREWELL)
        assert await limiter._is_running((backend, None), 0) is None
        assert await limiter._is_running((backend, None), 0) is False
    await pool.close()


_FIELDS = b"SFATAL\0VFATAL\0C57P01\0Mgoodbye\0\0"
FAREWELL = b"E" + (4 + len(_FIELDS)).to_bytes(4) + _FIELDS
