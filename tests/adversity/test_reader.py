"""The reader at its limits, with dying connections and changing tables; straight and behind a pooler."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest

from service.database.stored_sql import limiter
from service.database.stored_sql.connection import HEAVY_STATEMENT, STATEMENT_BYTES
from service.database.stored_sql.describing import Description, ResultColumn
from service.database.stored_sql.reader import Reader, open_reader
from service.database.stored_sql.sessions import DESCRIBERS
from service.errors import (
    Busy,
    DatabaseUnavailable,
    InvalidInput,
    QueryFailed,
    QueryTimeout,
    ResultTooLarge,
)
from service.settings import Database as Settings
from tests.waiting import until

SETTINGS = "SELECT name, setting FROM pg_settings WHERE name !~ '^plpgsql' ORDER BY name"
# Behind a pooler each transaction has a name of its own, by which it is found when it lingers.
SESSION = SETTINGS.replace("WHERE", "WHERE name <> 'application_name' AND")
POOLERS = ("none", "transaction")


@pytest.fixture(params=POOLERS)
async def limits(request, addresses, tmp_path_factory) -> AsyncGenerator[Settings]:
    """A reader straight on Postgres, or in a pooler's mode: through PgBouncer where there is one."""
    own = msgspec.structs.replace(
        addresses, reader_pooler=request.param, reader_pool_size=2, row_limit=100, result_bytes_limit=1 << 20
    )
    if request.param == "none" or not (program := _pgbouncer()):
        yield own
        return
    async with _bouncing(program, own, tmp_path_factory.mktemp("bouncer")) as url:
        yield msgspec.structs.replace(own, reader_url=url)


@pytest.fixture
async def owner(addresses):
    connection = await asyncpg.connect(addresses.url)
    yield connection
    await connection.close()


def _pgbouncer() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@asynccontextmanager
async def _bouncing(program: str, settings: Settings, folder: Path) -> AsyncGenerator[str]:
    """PgBouncer in transaction mode, with one server connection for all: what leaks is seen."""
    target = urlsplit(settings.reader_url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    users = folder / "users.txt"
    users.write_text(f'"{target.username}" "{target.password}"\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host={target.hostname} port={target.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = scram-sha-256\nauth_file = {users}\n"
        "pool_mode = transaction\ndefault_pool_size = 2\nunix_socket_dir =\n"
    )
    for path in (folder.parent, folder, users, config):
        path.chmod(0o755)
    command = [program, *(["-u", "nobody"] if os.geteuid() == 0 else []), str(config)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: listens(port))
        netloc = f"{target.username}:{target.password}@127.0.0.1:{port}"
        yield urlunsplit(target._replace(netloc=netloc))
    finally:
        process.kill()
        await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def values(reader: Reader, sql: str) -> list:
    return [tuple(record) for record in (await reader.run(sql)).records]


async def settled(owner: asyncpg.Connection, text: str) -> None:
    """Wait until no statement with this text runs."""

    async def none_runs() -> bool:
        return not await _running(owner, text)

    await until(none_runs)


async def _running(owner: asyncpg.Connection, text: str) -> list:
    return await owner.fetch(
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
        " AND datname = current_database() AND query LIKE '%' || $1 || '%'",
        text,
    )


async def started(owner: asyncpg.Connection, text: str) -> int:
    """Wait until a statement with this text runs; its backend."""
    found = await until(lambda: _running(owner, text))
    return found[0]["pid"]


@pytest.mark.parametrize(("rows", "truncated"), [(0, False), (99, False), (100, False), (101, True)])
async def test_rows_stop_at_the_limit(limits, rows, truncated):
    async with open_reader(limits.reader_url, limits) as reader:
        result = await reader.run(f"SELECT i FROM generate_series(1, {rows}) AS i")
    assert len(result.records) == min(rows, 100)
    assert result.truncated is truncated


@pytest.mark.parametrize(
    "sql",
    ["SELECT repeat('x', 20000000)", "SELECT repeat('x', 100000) FROM generate_series(1, 90)"],
    ids=["one huge row", "many rows"],
)
async def test_bytes_stop_at_the_limit_and_the_next_caller_is_served(limits, sql):
    async with open_reader(limits.reader_url, limits) as reader:
        for _ in range(3):
            with pytest.raises(ResultTooLarge, match="1048576 bytes"):
                await reader.run(sql)
        assert await values(reader, "SELECT 1") == [(1,)]


async def test_bytes_of_a_plan_count_too(limits):
    async with open_reader(limits.reader_url, limits) as reader:
        with pytest.raises(ResultTooLarge):
            await reader.describe("SELECT repeat('x', 20000000)")
        assert (await reader.describe("SELECT 1 AS one")).columns[0].name == "one"


async def test_a_slow_statement_is_cancelled(limits, owner):
    quick = msgspec.structs.replace(limits, statement_timeout_ms=100)
    async with open_reader(quick.reader_url, quick) as reader:
        with pytest.raises(QueryTimeout, match="100 ms"):
            await reader.run("SELECT pg_sleep(600) AS too_slow")
        await settled(owner, "too_slow")
        assert await values(reader, "SELECT 1") == [(1,)]


# Folded while it is planned, for some tenths of a second, without a look at whether it was cancelled.
SLOW_TO_PLAN = "SELECT length(translate(repeat('a', 5000), repeat('b', 50000) || 'a', '')) AS n"
PLANNING = "EXPLAIN (VERBOSE"


async def test_planning_that_heeds_no_cancellation_ends_for_its_callers_and_stops_nobody_else(
    limits, owner, monkeypatch
):
    monkeypatch.setattr(limiter, "NOTICE_S", 0.05)
    monkeypatch.setattr(limiter, "LINGER_S", 0.1)
    quick = msgspec.structs.replace(limits, statement_timeout_ms=100)
    async with open_reader(quick.reader_url, quick) as reader:
        asked = [asyncio.create_task(reader.describe(f"{SLOW_TO_PLAN} -- {n}")) for n in range(8)]
        planning = await until(lambda: _running(owner, PLANNING))
        refused = {type(each) for each in await asyncio.gather(*asked, return_exceptions=True)}
        assert QueryTimeout in refused <= {QueryTimeout, Busy}
        most = DESCRIBERS + quick.reader_pool_size  # so many places are given back at most
        assert max(len(planning), len(await _running(owner, PLANNING))) <= most
        assert await values(reader, "SELECT 1") == [(1,)]
        await settled(owner, PLANNING)
        assert (await until(lambda: described(reader))).columns == (ResultColumn("n", "integer"),)


async def described(reader: Reader) -> Description | None:
    try:
        return await reader.describe("SELECT 1 AS n")
    except Busy:
        return None


async def test_a_lock_is_not_waited_for_long(limits, owner):
    await owner.execute("CREATE TABLE data.locked (a int)")
    quick = msgspec.structs.replace(limits, statement_timeout_ms=100)
    async with open_reader(quick.reader_url, quick) as reader:
        async with owner.transaction():
            await owner.execute("LOCK TABLE data.locked")
            with pytest.raises(QueryTimeout):
                await reader.run("SELECT * FROM locked")
        assert await values(reader, "SELECT * FROM locked") == []


async def test_past_the_queue_is_busy_at_once(limits, owner):
    narrow = msgspec.structs.replace(limits, reader_pool_size=1, reader_queue_limit=0)
    async with open_reader(narrow.reader_url, narrow) as reader:
        first = asyncio.create_task(reader.run("SELECT pg_sleep(600) AS first_in"))
        await started(owner, "first_in")
        with pytest.raises(Busy) as busy:
            await reader.run("SELECT 1")
        assert busy.value.headers == {"Retry-After": "1"}
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        assert await values(reader, "SELECT 1") == [(1,)]


async def test_a_cancelled_caller_cancels_the_sql(limits, owner):
    async with open_reader(limits.reader_url, limits) as reader:
        caller = asyncio.create_task(reader.run("SELECT pg_sleep(600) AS left_behind"))
        await started(owner, "left_behind")
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await settled(owner, "left_behind")
        assert await values(reader, "SELECT 1") == [(1,)]


async def test_a_killed_connection_fails_its_caller_alone(limits, owner):
    async with open_reader(limits.reader_url, limits) as reader:
        caller = asyncio.create_task(reader.run("SELECT pg_sleep(600) AS killed"))
        await owner.execute("SELECT pg_terminate_backend($1)", await started(owner, "killed"))
        with pytest.raises(DatabaseUnavailable) as gone:
            await caller
        assert gone.value.headers == {"Retry-After": "2"}
        assert await values(reader, "SELECT 1") == [(1,)]


async def test_idle_connections_that_died_are_replaced(limits, owner):
    async with open_reader(limits.reader_url, limits) as reader:
        await values(reader, "SELECT 1")
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        async with asyncio.timeout(10):
            while True:
                with suppress(DatabaseUnavailable):  # at most one caller learns of it
                    assert await values(reader, "SELECT 1") == [(1,)]
                    break


async def test_a_table_that_gains_a_column_shows_it(limits, owner):
    await owner.execute("CREATE TABLE data.grown AS SELECT 1 AS a")
    async with open_reader(limits.reader_url, limits) as reader:
        before = await reader.describe("SELECT * FROM grown")
        assert before.fits((await reader.run("SELECT * FROM grown")).shape)
        await owner.execute("ALTER TABLE data.grown ADD COLUMN b text DEFAULT 'x'")
        after = await reader.run("SELECT * FROM grown")
        assert [tuple(record) for record in after.records] == [(1, "x")]
        assert not before.fits(after.shape)
        await owner.execute("ALTER TABLE data.grown ALTER COLUMN a TYPE text")
        assert await values(reader, "SELECT * FROM grown") == [("1", "x")]
        await owner.execute("DROP TABLE data.grown")
        with pytest.raises(QueryFailed) as failed:
            await reader.run("SELECT * FROM grown")
        assert failed.value.members["sqlstate"] == "42P01"


async def test_statements_that_a_function_deallocated_are_prepared_again(limits, owner):
    await owner.execute(
        "CREATE FUNCTION data.forget() RETURNS void LANGUAGE plpgsql"
        " AS $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$"
    )
    one = msgspec.structs.replace(limits, reader_pool_size=1)
    async with open_reader(one.reader_url, one) as reader:
        assert await values(reader, "SELECT 1") == [(1,)]
        await reader.run("SELECT data.forget()")
        assert await values(reader, "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("SELECT set_config('transaction_read_only', 'off', true)", "25001"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "25001"),
        ("SELECT data.write_as_read_write()", "25001"),
        ("SELECT data.write_later()", "25006"),
        ("SELECT lo_create(0)", "25006"),
        ("SELECT 1; SELECT 2", "42601"),
        ("COMMIT; SELECT 2", "42601"),
    ],
)
async def test_read_only_cannot_be_left_inside_a_statement(limits, owner, sql, sqlstate):
    await owner.execute("""
        CREATE TABLE data.written (a int); GRANT INSERT ON data.written TO PUBLIC;
        CREATE FUNCTION data.write_as_read_write() RETURNS void LANGUAGE plpgsql AS $$BEGIN
            SET TRANSACTION READ WRITE; INSERT INTO data.written VALUES (1); END$$;
        CREATE FUNCTION data.write_later() RETURNS void LANGUAGE plpgsql AS $$BEGIN
            PERFORM set_config('default_transaction_read_only', 'off', false);
            INSERT INTO data.written VALUES (1); END$$""")
    async with open_reader(limits.reader_url, limits) as reader:
        for _ in range(2):
            with pytest.raises(QueryFailed) as failed:
                await reader.run(sql)
            assert failed.value.members["sqlstate"] == sqlstate
    assert await owner.fetchval("SELECT count(*) FROM data.written") == 0


async def test_what_a_statement_changes_in_the_session_ends_with_it(limits, owner):
    one = msgspec.structs.replace(limits, reader_pool_size=1, row_limit=1000)
    changes = (
        "set_config('default_transaction_read_only', 'off', false),"
        "set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false),"
        "set_config('search_path', 'app', false), set_config('timezone', 'Asia/Tokyo', false),"
        "set_config('work_mem', '64kB', false), set_config('role', session_user, false),"
        "set_config('datestyle', 'German', false), pg_advisory_lock(7)"
    )
    async with open_reader(one.reader_url, one) as reader:
        before = await values(reader, SESSION)
        await reader.run(f"SELECT {changes}")
        assert await values(reader, SESSION) == before
    assert (
        await owner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7") == 0
    )


async def test_claims_and_rows_go_together_behind_a_pooler(limits):
    async with open_reader(limits.reader_url, limits) as reader:
        ask = "SELECT current_setting('request.claims', true)"
        assert [tuple(row) for row in (await reader.run(ask, claims='{"sub":"a"}')).records] == [
            ('{"sub":"a"}',)
        ]
        assert await values(reader, ask) in ([(None,)], [("",)])


async def prepared(reader: Reader) -> list[str]:
    found = await values(reader, "SELECT statement FROM pg_prepared_statements ORDER BY statement")
    return [statement for (statement,) in found]


async def test_a_statement_with_a_large_plan_is_not_kept_prepared(addresses):
    one = msgspec.structs.replace(addresses, reader_pool_size=1)
    async with open_reader(one.reader_url, one) as reader:
        for large in (
            "SELECT repeat('x', 1000000) AS t",
            "VALUES (repeat('x', 400000)), (repeat('y', 400000))",
        ):
            weight = (await reader.describe(large)).plan.weight
            assert weight > HEAVY_STATEMENT
            await reader.run(large, weight=weight, skip_reset=True)
            assert large not in await prepared(reader)
        small = "SELECT 1 AS small"
        await reader.run(small, weight=(await reader.describe(small)).plan.weight, skip_reset=True)
        assert small in await prepared(reader)


async def test_what_is_kept_prepared_is_bounded_in_bytes(addresses):
    one = msgspec.structs.replace(addresses, reader_pool_size=1)
    async with open_reader(one.reader_url, one) as reader:
        for number in range(40):
            rows = await reader.run(f"SELECT {number} AS n", weight=HEAVY_STATEMENT, skip_reset=True)
            assert [tuple(record) for record in rows.records] == [(number,)]
            assert len(await prepared(reader)) <= 2 + STATEMENT_BYTES // HEAVY_STATEMENT
        rows = await reader.run("SELECT 0 AS n", weight=HEAVY_STATEMENT, skip_reset=True)
        assert [tuple(record) for record in rows.records] == [(0,)]


async def test_a_folded_constant_is_not_kept_of_a_plan_and_may_have_said_anything(limits):
    wide = msgspec.structs.replace(limits, result_bytes_limit=8 << 20)
    async with open_reader(wide.reader_url, wide) as reader:
        described = await reader.describe("SELECT repeat('\"', 3900000) AS t")
    assert described.plan.cut
    assert sum(map(len, described.plan.texts)) < 1000
    assert described.per_caller
    assert not described.dependencies.built_in


@pytest.mark.parametrize("character", ["\n", "\t", "\x01", "\x7f", "\x85"], ids=repr)
async def test_a_column_name_with_a_control_character_is_refused(limits, character):
    async with open_reader(limits.reader_url, limits) as reader:
        with pytest.raises(InvalidInput, match="column 2 holds control characters"):
            await reader.describe(f'SELECT 1 AS "é", 2 AS "a{character}b"')
