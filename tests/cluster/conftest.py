"""Several nodes on one machine: real servers on loopback, each test's own."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from service.observe.events import Event, QueryRun
from service.settings import Auth, Nodes, Settings
from tests.conftest import serving, store_metric, visible
from tests.processes import free_port
from tests.programs import program
from tests.waiting import eventually, until


class Store:
    """A server of Redis or Valkey that a test can stop, kill and start again.

    `further` are arguments of the server. With a `ca` it speaks TLS only.
    """

    def __init__(
        self, folder: Path, *further: str, server: str = "redis-server", ca: Path | None = None
    ) -> None:
        self.folder = folder
        self.server = server
        self.further = further
        self.ca = ca
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        tls = "" if self.ca is None else f"?ssl_ca_certs={self.ca}"
        return f"redis{'s' if self.ca else ''}://:word@127.0.0.1:{self.port}/0{tls}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        port = ["--port"] if self.ca is None else ["--port", "0", "--tls-port"]
        command = [program(self.server), *port, str(self.port), "--bind", "127.0.0.1", *self.further]
        command += ["--requirepass", "word", "--masterauth", "word", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        eventually(self._answers)

    def ask(self, *command: str | int):
        """What the server answers to one command."""
        import redis

        options = {} if self.ca is None else {"ssl": True, "ssl_ca_certs": str(self.ca)}
        with redis.Redis("127.0.0.1", self.port, password="word", decode_responses=True, **options) as client:
            return client.execute_command(*command)

    def _answers(self) -> bool:
        import redis

        try:
            return bool(self.ask("PING"))
        except redis.RedisError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def halt(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_store(folder: Path, *further: str, **options) -> Generator[Store]:
    store = Store(folder, *further, **options)
    try:
        store.start()
        yield store
    finally:
        store.kill()


@pytest.fixture
def store(tmp_path: Path) -> Generator[Store]:
    with running_store(tmp_path) as started:
        yield started


@pytest.fixture
async def redis(store: Store) -> AsyncGenerator[Redis]:
    client = Redis.from_url(store.url)
    yield client
    await client.aclose()


class Node:
    """One service in this process, and how often it ran stored SQL."""

    def __init__(self, client: httpx.AsyncClient, events: list[Event]) -> None:
        self.client = client
        self.events = events

    @property
    def runs(self) -> int:
        return sum(isinstance(event, QueryRun) and event.problem is None for event in self.events)

    async def result(self, metric: str, **options) -> httpx.Response:
        answer = await self.client.get(f"/metrics/{metric}", **options)
        assert answer.status_code == 200, answer.text
        return answer

    async def value(self, metric: str, **options):
        """The value that is marked fresh; None if the answer is marked stale."""
        answer = await self.result(metric, **options)
        return None if is_stale(answer) else answer.json()["records"][0]["value"]

    async def sharing(self) -> str:
        """What the node says of sharing."""
        return (await self.client.get("/health")).json()["checks"]["sharing"]


def is_stale(answer: httpx.Response) -> bool:
    return "detail=stale" in answer.headers["Cache-Status"]


@asynccontextmanager
async def running_nodes(settings: Settings, number: int = 2) -> AsyncGenerator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(number):
            events: list[Event] = []
            nodes.append(Node(await stack.enter_async_context(serving(settings, events.append)), events))
        for node in nodes:
            if settings.nodes.redis_url is not None:
                await until(lambda node=node: shares(node))
        yield nodes


async def shares(node: Node) -> bool:
    return await node.sharing() == "ok"


def clustered(settings: Settings, **nodes: object) -> Settings:
    return msgspec.structs.replace(settings, auth=Auth(mode="off"), nodes=Nodes(**nodes))


@pytest.fixture
async def nodes(settings: Settings, store: Store) -> AsyncGenerator[list[Node]]:
    async with running_nodes(clustered(settings, redis_url=store.url)) as started:
        yield started


async def stored(nodes: list[Node], clone, sql: str, **fields: object) -> str:
    """Store a metric, and wait until each node knows it."""
    metric = await store_metric(clone, sql, **fields)
    await asyncio.gather(*(visible(node.client, metric) for node in nodes))
    return metric
