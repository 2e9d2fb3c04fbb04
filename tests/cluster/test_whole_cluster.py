"""Everything at once: nginx, two nodes as processes, Redis, PgBouncer, a primary and its standby."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import httpx
import psycopg
import pytest

from service.database.gateway import open_database
from service.database.migrate import migrate
from tests.cluster.conftest import is_stale, running_store
from tests.cluster.poolers import pooling
from tests.cluster.servers import replicated
from tests.conftest import store_metric
from tests.nginx import Nginx
from tests.processes import free_port, open_folder, start, until_ready
from tests.waiting import until

ADD = "INSERT INTO data.customers (customer_id, occupation, type) VALUES (%s, 'x', 'y')"
COUNT = "SELECT count(*) AS value FROM customers"
POLL_S = 0.01
SLOW = "SELECT count(*) AS value, (SELECT pg_sleep(2))::text AS slept FROM customers"


class Whole:
    def __init__(self, servers, environment, nginx, ports, store) -> None:
        self.primary, self.standby = servers
        self.environment = environment
        self.nginx = nginx
        self.ports = ports
        self.store = store
        self.nodes: dict[int, subprocess.Popen[str]] = {}

    def start(self, port: int) -> None:
        self.nodes[port] = start(subprocess.DEVNULL, PORT=port, **self.environment)

    def kill(self, port: int) -> None:
        os.killpg(self.nodes[port].pid, signal.SIGKILL)
        self.nodes[port].wait()

    def write(self, *numbers: int) -> None:
        with psycopg.connect(self.primary.url(), autocommit=True) as owner:
            for number in numbers:
                owner.execute(ADD, (number,))


@pytest.fixture
async def whole() -> AsyncGenerator[Whole]:
    async with _whole() as started:
        yield started


@asynccontextmanager
async def _whole() -> AsyncGenerator[Whole]:
    with open_folder() as folder, replicated(folder / "servers") as servers:
        (folder / "store").mkdir()
        (folder / "pooler").mkdir()
        primary, standby = servers
        primary.ask("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        primary.ask("CREATE DATABASE tally")
        reader = primary.url("reader", "reader")
        await asyncio.to_thread(migrate, primary.url(), reader, ("data",))
        await asyncio.to_thread(standby.caught_up, primary)
        ports = [free_port(), free_port()]
        async with pooling(folder / "pooler", primary.url(), reader) as pooler:
            with running_store(folder / "store") as store:
                environment = {
                    "DATABASE_URL": pooler.through(primary.url()),
                    "LISTEN_DATABASE_URL": primary.url(),
                    "READER_DATABASE_URL": pooler.through(reader),
                    "READER_POOLER": "transaction",
                    "REPLICA_DATABASE_URLS": standby.url("reader", "reader"),
                    "REDIS_URL": store.url,
                    "DATA_DIR": folder / "data",
                }
                whole = Whole(servers, environment, None, ports, store)
                try:
                    for port in ports:
                        whole.start(port)
                    for port in ports:
                        await asyncio.to_thread(until_ready, port)
                    with Nginx(folder, ports) as whole.nginx:
                        yield whole
                finally:
                    for port, node in whole.nodes.items():
                        if node.poll() is None:
                            whole.kill(port)


class Callers:
    """Those who poll through nginx, and what was marked fresh for them."""

    def __init__(self, client: httpx.AsyncClient, metric: str) -> None:
        self.client = client
        self.metric = metric
        self.ended = asyncio.Event()
        self.committed = 0
        self.seen: list[int] = []

    async def value(self, metric: str) -> int | None:
        """The value that is marked fresh; None for every other answer."""
        try:
            answer = await self.client.get(f"/metrics/{metric}")
        except httpx.TransportError:
            return None
        if answer.status_code != 200 or is_stale(answer):
            return None
        return answer.json()["records"][0]["value"]

    async def poll(self) -> None:
        while not self.ended.is_set():
            found = await self.value(self.metric)
            if found is not None:
                assert found <= self.committed + 1
                self.seen.append(found)
            with suppress(TimeoutError):  # the pace of a poller, who ends at once
                await asyncio.wait_for(self.ended.wait(), POLL_S)

    async def shown(self, number: int) -> None:
        """Wait until every node shows the change: ten answers in a row."""

        async def is_shown() -> bool:
            return {await self.value(self.metric) for _ in range(10)} == {number}

        await until(is_shown)


async def change(whole: Whole, callers: Callers) -> None:
    callers.committed += 1
    await asyncio.to_thread(whole.write, callers.committed)
    await callers.shown(callers.committed)


async def fail_store_and_standby(whole: Whole, callers: Callers) -> None:
    whole.store.kill()
    await change(whole, callers)
    await asyncio.to_thread(whole.store.start)
    await change(whole, callers)
    await asyncio.to_thread(whole.standby.pause)
    await change(whole, callers)
    whole.standby.resume()
    await change(whole, callers)


async def kill_a_node_that_executes(whole: Whole, callers: Callers, slow: str) -> None:
    """Both nodes are asked, and one of them leads: whichever dies, the other one answers."""
    first, second = whole.ports
    asked = [asyncio.create_task(callers.value(slow)) for _ in range(4)]
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%'"
    await until(lambda: whole.standby.ask(running)[0] > 1 or whole.primary.ask(running)[0] > 1)
    await asyncio.to_thread(whole.kill, first)
    await asyncio.gather(*asked)

    async def answered() -> bool:
        return await callers.value(slow) == callers.committed

    await until(answered)
    await change(whole, callers)
    whole.nginx.lead_to([second])
    whole.nginx.reload()
    await change(whole, callers)
    whole.start(first)
    await asyncio.to_thread(until_ready, first)
    whole.nginx.lead_to(whole.ports)
    whole.nginx.reload()
    await change(whole, callers)


async def test_no_wrong_answer_while_nodes_store_and_standby_fail_one_after_another(whole: Whole):
    async with open_database(whole.primary.url()) as owner:
        metric = await store_metric(owner, COUNT)
        slow = await store_metric(owner, SLOW, trusted=True)
    async with httpx.AsyncClient(
        base_url=whole.nginx.address, verify=whole.nginx.trust, timeout=30
    ) as client:
        callers = Callers(client, metric)
        await callers.shown(0)

        async def faults() -> None:
            await change(whole, callers)
            await fail_store_and_standby(whole, callers)
            await kill_a_node_that_executes(whole, callers, slow)
            await asyncio.to_thread(whole.standby.stop, "immediate")
            await change(whole, callers)
            callers.ended.set()

        async with asyncio.TaskGroup() as group:
            for task in (callers.poll(), callers.poll(), faults()):
                group.create_task(task)
        assert set(callers.seen) >= set(range(1, callers.committed + 1))
