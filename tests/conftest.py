"""A real Postgres for every test: TEST_DATABASE_URL, else a container, else the embedded one.

One template database per worker; a test gets a transaction that is rolled back, or, where commits, roles or
NOTIFY matter, a clone of its own.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import psycopg
import pytest
from hypothesis import settings as hypothesis_settings
from litestar import Litestar
from msgspec import Struct

from service.app import configured, layered, routed
from service.auth import clients
from service.dashboard import assets
from service.database.embedded import running
from service.database.gateway import Database, Transaction, open_database
from service.database.migrate import migrate
from service.database.queries import Command
from service.database.stored_sql.reader import Reader, open_reader
from service.observe.events import Observe
from service.observe.log import set_up_logs
from service.settings import Auth, History, Logs, Settings
from service.settings import Database as DatabaseSettings
from tests.scheduling import (  # noqa: F401 (hooks of pytest)
    pytest_collection,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)
from tests.waiting import until

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
RUN = os.environ.setdefault("TALLY_TEST_RUN", uuid4().hex[:12])  # the workers inherit it
MAJOR = 16 if os.environ.get("PG") == "16" else 18

# Machines may be busy: no example has to end in time.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

MEMORY = Path("/dev/shm")  # noqa: S108 (each run makes a folder of its own there)
MEMORY_BYTES = 6 << 30


def _folder() -> str:
    """A folder for the databases and files of this run: in memory if there is room, for disks are slow."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    folder = (MEMORY if in_memory else Path(tempfile.gettempdir())) / f"tally-tests-{RUN}"
    folder.mkdir(mode=0o755)
    return str(folder)


FOLDER = Path(os.environ.get("TALLY_TEST_FOLDER") or os.environ.setdefault("TALLY_TEST_FOLDER", _folder()))
tempfile.tempdir = os.environ["TMPDIR"] = str(FOLDER)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or services of tests would ignore it too

IDLE: list[Litestar] = []
"""Built routes that no test uses now: building them takes longer than most tests."""


class Server(Struct, frozen=True):
    """A Postgres server that the tests may fill with databases and roles."""

    kind: str
    admin_url: str

    def url(self, database: str, user: str = "", password: str = "") -> str:
        parts = urlsplit(self.admin_url)
        netloc = parts.netloc
        if user:
            netloc = f"{user}:{password}@{netloc.rsplit('@', 1)[-1]}"
        return urlunsplit((parts.scheme, netloc, f"/{database}", parts.query, ""))


@contextmanager
def _server() -> Generator[Server]:
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield Server("TEST_DATABASE_URL", url)
    elif _docker_has(image := f"postgres:{MAJOR}"):
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer(image, driver=None) as container:
            yield Server("container", _quick_login(container.get_connection_url()))
    else:
        # All workers of a run share one server; the last one out stops it.
        with running(FOLDER, major=MAJOR, durable=False) as server:
            yield Server("embedded", _quick_login(server.owner_url))


def pytest_unconfigure() -> None:
    if WORKER == "main":  # the workers have ended
        shutil.rmtree(FOLDER, ignore_errors=True)


def _quick_login(url: str) -> str:
    """Hash passwords once, not 4,096 times: asyncpg does it in Python, and the tests log in often."""
    password = urlsplit(url).password
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")  # each worker does so
        connection.execute("ALTER ROLE CURRENT_USER SET scram_iterations = 1")
        connection.execute("SET scram_iterations = 1")
        connection.execute(f"ALTER ROLE CURRENT_USER PASSWORD '{password}'")
    return url


def _docker_has(image: str) -> bool:
    """Whether a container engine answers and holds the image, or can fetch it: offline it cannot."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").is_socket():
        return False
    from docker import DockerClient
    from docker.errors import DockerException, ImageNotFound

    try:  # DOCKER_HOST may be wrong, or name an engine that is gone
        with closing(DockerClient.from_env(version="1.41", timeout=2)) as engine:
            engine.ping()
            with suppress(ImageNotFound):
                return bool(engine.images.get(image))
        with closing(DockerClient.from_env(version="1.41", timeout=300)) as engine:
            return bool(engine.images.pull(image))
    except (DockerException, OSError):
        return False


@pytest.fixture(scope="session", autouse=True)
def computed_once() -> Generator[None]:
    """What each service and HTTP client needs at its start: a slow hash, the pages' files, certificates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "hash_chosen", cache(clients.hash_chosen))
        patch.setattr(assets, "_asset", cache(assets._asset))
        default = httpx._transports.default
        patch.setattr(default, "create_ssl_context", cache(default.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def server() -> Generator[Server]:
    with _server() as found:
        yield found


@pytest.fixture(scope="session")
async def template(server: Server) -> str:
    """Name of this worker's migrated database; nobody connects to it, so it can be cloned at any time."""
    name = f"tally_template_{RUN}_{WORKER}"
    await _admin(server, f'CREATE DATABASE "{name}"')
    await asyncio.to_thread(migrate, server.url(name), _reader_url(server, name), ("data",))
    return name


@pytest.fixture(scope="session")
async def shared_database(server: Server, template: str) -> AsyncGenerator[Database]:
    """A clone for tests that roll back."""
    async with _cloned(server, template) as settings, open_database(settings.url or "") as database:
        yield database


@pytest.fixture
async def tx(shared_database: Database) -> AsyncGenerator[Transaction]:
    """A transaction on the migrated database that is rolled back after the test."""

    class Undone(Exception):
        pass

    @asynccontextmanager
    async def undone() -> AsyncIterator[Transaction]:
        with suppress(Undone):
            async with shared_database.transaction() as transaction:
                yield transaction
                raise Undone

    async with held(undone()) as transaction:
        yield transaction


@pytest.fixture
async def addresses(server: Server, template: str) -> AsyncGenerator[DatabaseSettings]:
    """Settings of a database of this test's own."""
    async with _cloned(server, template) as settings:
        yield settings


@pytest.fixture(scope="module")
async def shared_addresses(server: Server, template: str) -> AsyncGenerator[DatabaseSettings]:
    """Settings of a database that the tests of a module share, for they leave it as they find it."""
    async with _cloned(server, template) as settings:
        yield settings


@pytest.fixture(scope="module")
async def shared_reader(shared_addresses: DatabaseSettings) -> AsyncGenerator[Reader]:
    """The reader's way to the shared database."""
    async with open_reader(shared_addresses.reader_url or "", shared_addresses) as opened:
        yield opened


@pytest.fixture
async def clone(addresses: DatabaseSettings) -> AsyncGenerator[Database]:
    """The owner's way to a database of this test's own."""
    async with open_database(addresses.url or "") as database:
        yield database


@pytest.fixture
async def reader(addresses: DatabaseSettings) -> AsyncGenerator[Reader]:
    """The reader's way to the same database as `clone`."""
    async with open_reader(addresses.reader_url or "", addresses) as opened:
        yield opened


@pytest.fixture
async def settings(addresses: DatabaseSettings, tmp_path: Path) -> Settings:
    return everybody(addresses, tmp_path)


def everybody(addresses: DatabaseSettings, data_dir: Path) -> Settings:
    """Everybody may do everything; tests of tokens set `auth`."""
    own = msgspec.structs.replace(addresses, data_dir=data_dir)
    return Settings(database=own, auth=Auth(mode="off"))


@pytest.fixture
async def client(settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    """HTTP on the whole service over the database of `clone`."""
    async with serving(settings) as opened:
        yield opened


@asynccontextmanager
async def serving(settings: Settings, observe: Observe | None = None) -> AsyncGenerator[httpx.AsyncClient]:
    """Run the service in this process, and speak HTTP with it."""
    async with opened_app(settings, observe) as app:
        transport = httpx.ASGITransport(app=layered(app), raise_app_exceptions=False)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as opened:
            opened.service = app  # type: ignore[attr-defined]
            yield opened


@asynccontextmanager
async def opened_app(settings: Settings, observe: Observe | None = None) -> AsyncGenerator[Litestar]:
    """The routes of a service that runs; its lifespan begins and ends in one task, as with a real server."""
    set_up_logs(Logs(level="error"))
    app = configured(IDLE.pop() if IDLE else routed(), settings, observe)
    try:
        async with held(app.lifespan()):
            yield app
    finally:
        IDLE.append(app)


@asynccontextmanager
async def held(manager: AbstractAsyncContextManager[Any]) -> AsyncGenerator[Any]:
    """Enter and leave `manager` in one task, which a fixture's own set-up and tear-down are not."""
    entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        try:
            async with manager as value:
                entered.set_result(value)
                await leave.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    task = asyncio.create_task(hold())
    try:
        yield await entered
    finally:
        leave.set()
        await task


@asynccontextmanager
async def _cloned(server: Server, template: str) -> AsyncGenerator[DatabaseSettings]:
    name = f"tally_{uuid4().hex[:16]}"
    await _admin(
        server,
        f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY',  # half the work of WAL_LOG
        f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC',  # not copied from the template
    )
    try:
        yield DatabaseSettings(url=server.url(name), reader_url=_reader_url(server, name))
    finally:
        await until(lambda: _dropped(server, name))


async def _dropped(server: Server, name: str) -> bool:
    """False while a statement in it heeds no termination."""
    try:
        await _admin(server, f'DROP DATABASE "{name}" WITH (FORCE)')
    except asyncpg.ObjectInUseError:
        return False
    return True


def _reader_url(server: Server, database: str) -> str:
    return server.url(database, f"tally_reader_{RUN}_{WORKER}", "reader")


async def _admin(server: Server, *statements: str) -> None:
    connection = await asyncpg.connect(server.admin_url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


class Running(Struct):
    """A whole service over a database of its own, for many tests of one module."""

    settings: DatabaseSettings
    database: Database
    client: httpx.AsyncClient

    async def store(self, *statements: str, trusted: bool = False) -> list[str]:
        """Store metrics straight in the tables, and wait until the service knows them; their ids."""
        async with self.database.transaction() as tx:
            ids = [await store_metric(tx, sql, trusted=trusted) for sql in statements]
        for metric_id in ids[-1:]:
            await visible(self.client, metric_id)
        return ids


@asynccontextmanager
async def whole_service(
    server: Server, template: str, history: History | None = None, **overrides: Any
) -> AsyncGenerator[Running]:
    """Run the service for a module; `overrides` are settings of its database."""
    async with _cloned(server, template) as addresses:
        settings = msgspec.structs.replace(addresses, **overrides)
        async with (
            open_database(settings.url or "") as database,
            serving(
                Settings(database=settings, auth=Auth(mode="off"), history=history or History())
            ) as client,
        ):
            yield Running(settings, database, client)


@pytest.fixture(scope="module")
async def shared_service(server: Server, template: str) -> AsyncGenerator[Running]:
    """The whole service over a database that the tests of a module share, for none minds the others."""
    async with held(whole_service(server, template)) as opened:
        yield opened


@pytest.fixture
async def make_metric(clone: Database, client: httpx.AsyncClient):
    """Store a metric straight in the tables, as an import or an operator would; its id."""

    async def make(sql: str, **fields: Any) -> str:
        metric_id = await store_metric(clone, sql, **fields)
        await visible(client, metric_id)
        return metric_id

    return make


async def store_metric(
    database: Database | Transaction, sql: str, *, trusted: bool = False, **fields: Any
) -> str:
    """Store a metric with a query of its own, past the API; its id."""
    metric_id, query_id = uuid4(), f"query-{uuid4().hex[:12]}"
    columns = {"id": metric_id, "query_id": query_id, **fields}
    marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    async with database.transaction() as tx:
        insert = Command("q", "INSERT INTO catalog.query (id, sql, trusted) VALUES ($1, $2, $3)")
        await tx.write(insert, query_id, sql, trusted)
        insert = Command("m", f"INSERT INTO catalog.metric ({', '.join(columns)}) VALUES ({marks})")
        await tx.write(insert, *columns.values())
    return str(metric_id)


async def visible(client: httpx.AsyncClient, metric_id: object) -> None:
    """Wait until the running service has heard of a metric."""

    async def found() -> bool:
        return (await client.get(f"/metrics/{metric_id}/versions")).status_code == 200

    await until(found)


@pytest.fixture
def decode():
    """JSON bytes to Python, exactly."""
    return msgspec.json.decode
