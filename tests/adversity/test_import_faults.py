# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 (nothing else runs in this loop meanwhile)
"""Whatever kills an import, running it again ends where an undisturbed run ends, byte for byte."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from service.audit import Actor
from service.database.embedded import Server, running
from service.database.gateway import open_database
from service.database.migrate import migrate
from service.errors import DatabaseUnavailable
from service.imports.datasets import find
from service.imports.readers import Upload
from service.imports.run.imports import Options, Report, import_file
from tests.waiting import until

ROOT = Path(__file__).parents[2]
OPTIONS = Options(validate_sql=lambda sql: sql, bytes_limit=1 << 24, actor=Actor("test", None))
STATE = (
    "SELECT * FROM data.customers ORDER BY 1",
    "SELECT * FROM data.external_interactions ORDER BY 1, 2, 3",
    "SELECT * FROM data.vocabulary ORDER BY 1, 2",
    "SELECT to_jsonb(r) - 'created_at' - 'closed_at' FROM quarantine.row AS r ORDER BY id",
    "SELECT to_jsonb(r) - 'finished_at' FROM imports.run AS r ORDER BY id",
    "SELECT actor, action, target FROM app.audit ORDER BY id",
)
# The table that an import writes in the end: while it is locked, everything before has happened.
HOLD = "LOCK TABLE data.external_interactions IN SHARE MODE"
WAITING = """SELECT pid FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database() AND application_name = 'tally'"""


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that may be killed."""
    above = Path(tempfile.mkdtemp(prefix="tally-faults-"))
    above.chmod(0o755)
    with running(above / "data") as server:  # durable: what was committed must outlive the kill
        template = server.owner_url.rsplit("/", 1)[0] + "/template1"
        migrate(template, None, ("data",))
        yield server
    shutil.rmtree(above)


@pytest.fixture
def customers(tmp_path: Path) -> Upload:
    path = tmp_path / "customers.csv"
    path.write_text("customer_id,occupation,type\n" + "".join(f"{n},Cook,B2B\n" for n in range(1, 51)))
    return Upload(path, path.name)


@pytest.fixture
def interactions(tmp_path: Path) -> Upload:
    """20,000 rows, one of a hundred bad and some without their customer."""
    days = (f"{n % 28 + 1}/{n % 12 + 1}/2024 {n % 24}:{n % 60:02}:{n // 600 % 60:02}" for n in range(20_000))
    rows = [f"{day},Email,{n % 51 + 1}" if n % 100 else f"{day},,1" for n, day in enumerate(days)]
    path = tmp_path / "external_interactions.csv"
    path.write_text("date_start,interaction,customer_id\n" + "\n".join(rows) + "\n")
    return Upload(path, path.name)


@pytest.fixture
async def fresh(own_server: Server, customers: Upload) -> Callable[[], Awaitable[str]]:
    """Make a database with 50 customers; its address."""

    async def fresh() -> str:
        base, name = own_server.owner_url.rsplit("/", 1)[0], f"faults_{uuid4().hex[:12]}"
        connection = await asyncpg.connect(f"{base}/postgres")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        await run(f"{base}/{name}", customers, "customers")
        return f"{base}/{name}"

    return fresh


async def run(url: str, upload: Upload, dataset: str = "external_interactions") -> Report:
    found = find(dataset)
    assert found
    async with open_database(url) as database:
        return await import_file(database, upload, found, OPTIONS)


async def state(url: str) -> list[list[tuple]]:
    connection = await asyncpg.connect(url)
    try:
        return [[tuple(row) for row in await connection.fetch(sql)] for sql in STATE]
    finally:
        await connection.close()


@asynccontextmanager
async def stuck(url: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Let no import finish; gives a wait for one that is all but done, and its backend."""
    connection = await asyncpg.connect(url)
    watcher = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    await connection.execute(HOLD)

    async def wait() -> int:
        return await until(lambda: watcher.fetchval(WAITING))

    try:
        yield wait
    finally:
        connection.terminate()
        watcher.terminate()


async def gone(url: str) -> None:
    """Wait until no import is at work any more, the server being up again."""

    async def none_left() -> bool:
        try:
            connection = await asyncpg.connect(url)
            left = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tally'"
            )
            await connection.close()
        except (OSError, asyncpg.PostgresError):
            return False
        return left == 0

    await until(none_left, within_s=60)


@pytest.fixture
async def undisturbed(fresh, interactions: Upload) -> list[list[tuple]]:
    url = await fresh()
    await run(url, interactions)
    return await state(url)


async def test_a_killed_import_leaves_nothing_and_runs_again(fresh, interactions: Upload, undisturbed):
    url = await fresh()
    before = await state(url)
    async with stuck(url) as all_but_done:
        command = [sys.executable, "-m", "service", "import", "external_interactions", interactions.path]
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, stdout=subprocess.DEVNULL
        )
        await all_but_done()
        process.send_signal(signal.SIGKILL)
        process.wait()
    await gone(url)
    assert await state(url) == before
    await run(url, interactions)
    assert await state(url) == undisturbed


@pytest.mark.parametrize("how", ["connection dropped", "postgres killed"])
async def test_a_lost_server_leaves_nothing_and_the_import_runs_again(
    fresh, interactions: Upload, undisturbed, how: str
):
    url = await fresh()
    before = await state(url)

    async def disturb() -> None:
        async with stuck(url) as all_but_done:
            backend = await all_but_done()
            if how == "postgres killed":
                os.kill(backend, signal.SIGKILL)  # the postmaster then restarts all of the server
            else:
                other = await asyncpg.connect(url)
                await other.execute("SELECT pg_terminate_backend($1)", backend)
                await other.close()

    disturbing = asyncio.create_task(disturb())
    with pytest.raises(DatabaseUnavailable):
        await run(url, interactions)
    await disturbing
    await gone(url)
    assert await state(url) == before
    await run(url, interactions)
    assert await state(url) == undisturbed


async def test_a_full_disk_is_told_and_the_import_runs_again(
    own_server: Server, fresh, interactions: Upload, undisturbed
):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small disk needs root and mount")
    url = await fresh()
    disk = Path(tempfile.mkdtemp(prefix="tally-disk-"))
    disk.chmod(0o755)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], check=False).returncode:
        pytest.skip("mount is not allowed here")
    try:
        place = disk / "space"
        place.mkdir()
        nobody = pwd.getpwnam("nobody")
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
        connection = await asyncpg.connect(url)
        await connection.execute(f"CREATE TABLESPACE tiny LOCATION '{place}'")
        before = await state(url)
        await connection.execute("ALTER TABLE data.external_interactions SET TABLESPACE tiny")
        with pytest.raises(DatabaseUnavailable, match="no disk"):
            await run(url, interactions)
        assert await state(url) == before
        await connection.execute("ALTER TABLE data.external_interactions SET TABLESPACE pg_default")
        await connection.execute("DROP TABLESPACE tiny")
        await connection.close()
        await run(url, interactions)
        assert await state(url) == undisturbed
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()


async def test_two_importers_of_one_file_load_it_once(fresh, interactions: Upload, undisturbed):
    url = await fresh()
    first, second = await asyncio.gather(run(url, interactions), run(url, interactions))
    assert sorted([first.inserted, second.inserted]) == [0, max(first.inserted, second.inserted)]
    assert first.quarantined == second.quarantined
    assert (await state(url))[:4] == undisturbed[:4]


async def test_importers_of_datasets_that_need_each_other_never_lock_each_other_out(
    fresh, customers: Upload, interactions: Upload, tmp_path: Path
):
    url = await fresh()
    more = tmp_path / "more.csv"
    more.write_text("customer_id,occupation,type\n51,Smith,B2B\n1,Miller,B2B\n")
    async with asyncio.timeout(120):
        for _ in range(3):
            await asyncio.gather(
                run(url, Upload(more, more.name), "customers"),
                run(url, interactions),
                run(url, customers, "customers"),
            )
    connection = await asyncpg.connect(url)
    waiting = await connection.fetchval(
        "SELECT count(*) FROM quarantine.row WHERE status = 'open' AND reason = 'orphan'"
    )
    await connection.close()
    assert waiting == 0
