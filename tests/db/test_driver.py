"""What the driver says that is no fault stays out of the log. Lost connections keep no place in a pool."""

import ast
import asyncio
import logging
from pathlib import Path

import asyncpg
import msgspec
import pytest
from asyncpg.connect_utils import TLSUpgradeProto

import service.database
from service.database.breaker import Breaker
from service.database.driver import ignore_cancelled_connects
from service.database.gateway import acquire, open_database, translated
from service.database.queries import Command
from service.database.stored_sql.limiter import ConnectionLimiter
from service.database.stored_sql.sessions import make_pool
from service.errors import Busy, Conflict, DatabaseUnavailable, InvalidInput, NotFound, Problem


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
        async with acquire(pool, timeout_s=5) as connection:
            backend, protocol = connection._con.get_server_pid(), connection._con._protocol
        protocol.data_received(FAREWELL)
        assert await limiter._is_running((backend, None), 0) is None
        assert await limiter._is_running((backend, None), 0) is False
    await pool.close()


_FIELDS = b"SFATAL\0VFATAL\0C57P01\0Mgoodbye\0\0"
FAREWELL = b"E" + (4 + len(_FIELDS)).to_bytes(4) + _FIELDS


def test_internals_of_the_driver_are_used_in_one_file_only():
    """An upgrade of asyncpg has to be compared with that file alone; see its note."""
    folder = Path(service.database.__file__).parent
    assert {path.name for path in folder.rglob("*.py") if _looks_inside(path)} == {"driver.py"}


def _looks_inside(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=attribute) if owner not in {"self", "cls"}:
                name = attribute
            case ast.Attribute(value=ast.Attribute(), attr=attribute):
                name = attribute
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(attribute)), *_]):
                name = attribute
            case _:
                continue
        if name.startswith("_") and not name.startswith("__"):
            return True
    return False


@pytest.mark.parametrize(
    ("error", "problem", "detail", "retry"),
    [
        (asyncpg.LockNotAvailableError("x"), Busy, "Others work on the same tables right now.", "5"),
        (asyncpg.InsufficientPrivilegeError("no {0}"), DatabaseUnavailable, "lacks a right: no {0}", None),
        (asyncpg.RaiseError("no {x}"), Conflict, "no {x}", None),
        (asyncpg.CharacterNotInRepertoireError("x"), InvalidInput, "remove them", None),
        (asyncpg.UndefinedTableError("x"), DatabaseUnavailable, "run `tally migrate`", None),
        (asyncpg.DiskFullError("x"), DatabaseUnavailable, "no disk or memory", "30"),
        (asyncpg.ReadOnlySQLTransactionError("x"), DatabaseUnavailable, "takes no writes", "2"),
        (asyncpg.InvalidPasswordError("x"), DatabaseUnavailable, "refuses the service's login", "10"),
        (TimeoutError("x"), DatabaseUnavailable, "cannot be reached", "2"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_an_error_of_the_driver_becomes_the_problem_of_its_kind(
    error: Exception, problem: type[Problem], detail: str, retry: str | None
):
    with pytest.raises(problem) as raised, translated():
        raise error
    assert type(raised.value) is problem
    assert detail in raised.value.detail
    assert raised.value.headers.get("Retry-After") == retry
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("x"), asyncpg.UndefinedFunctionError("x"), NotFound("x")])
async def test_other_errors_pass_through_unchanged(error: Exception):
    with pytest.raises(type(error)) as raised, translated():
        raise error
    assert raised.value is error
    assert raised.value.__cause__ is None
