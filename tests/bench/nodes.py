"""Two nodes with a store: runs for each change, latency of a miss, new definitions, rate of hits.

`.venv/bin/python -m tests.bench.nodes`
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import psycopg
import uvloop

from service.database.embedded import Server, running
from service.database.gateway import open_database
from service.database.migrate import migrate
from service.settings import Auth, Database, Nodes, Settings
from tests.bench.load import ROUNDS, SECONDS, TALLY, Case, get, served
from tests.bench.load import measure as measure_hits
from tests.cluster.conftest import Node, running_nodes, running_store, shares
from tests.conftest import serving, store_metric, visible
from tests.processes import open_folder
from tests.waiting import until

COUNT = "SELECT count(*) AS value FROM customers"
ADD = "INSERT INTO data.customers (customer_id, occupation, type) VALUES ($1, 'x', 'y')"
CHANGES = 200
MISSES = 1000
DEFINITIONS = 50


async def measure(settings: Settings, nodes: int, owner: asyncpg.Connection, first: int) -> float:
    """Runs for each change."""
    async with running_nodes(settings, nodes) as started:
        clients = [each.client for each in started]
        async with open_database(settings.database.url or "") as database:
            metric = await store_metric(database, COUNT)
        for client in clients:
            await visible(client, metric)

        async def shown(client: httpx.AsyncClient, number: int) -> bool:
            answer = (await client.get(f"/metrics/{metric}")).json()
            return answer["records"][0]["value"] == number

        for number in range(first, first + CHANGES):
            await owner.execute(ADD, number + 1)
            for client in clients:
                await until(lambda client=client, number=number: shown(client, number + 1))
    return (sum(each.runs for each in started) - 1) / CHANGES


async def misses(alone: Settings, shared: Settings) -> tuple[list[float], float]:
    """Median milliseconds of a miss without and with a store, and of what the store adds. They alternate."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(serving(each)) for each in (alone, shared)]
        async with open_database(alone.database.url or "") as database:
            metric = await store_metric(database, f"{COUNT} WHERE customer_id > :n::int")
        for client in clients:
            await visible(client, metric)
        await until(lambda: shares(Node(clients[1], [])))
        took: tuple[list[float], list[float]] = ([], [])
        for number in range(MISSES):
            for which in (0, 1) if number % 2 else (1, 0):
                began = time.perf_counter()
                await clients[which].get(f"/metrics/{metric}?n={2 * number + which}")
                took[which].append(time.perf_counter() - began)
    added = statistics.median(with_store - without for without, with_store in zip(*took, strict=True))
    return [statistics.median(each) * 1000 for each in took], added * 1000


async def definitions(settings: Settings) -> tuple[float, float]:
    """Milliseconds from the answer to a PATCH on one node until the other shows it: median and longest."""
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(serving(settings)) for _ in range(2)]
        async with open_database(settings.database.url or "") as database:
            metric = await store_metric(database, "SELECT 0 AS value")
        for client in (one, other):
            await visible(client, metric)
        took: list[float] = []
        for number in range(1, DEFINITIONS + 1):
            await one.patch(f"/metrics/{metric}", json={"sql": f"SELECT {number} AS value"})
            began = time.perf_counter()
            # Measured by asking; a hit in this process never waits.
            while (await other.get(f"/metrics/{metric}")).json()["records"] != [{"value": number}]:  # noqa: ASYNC110
                await asyncio.sleep(0)
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000, max(took) * 1000


def hits(server: Server, redis_url: str) -> None:
    """Hits a second of one node and of two, and hits for each second of a core that the nodes use.

    The load comes from the same machine, so that with few cores only the latter tells what two machines give.
    """
    metric = uuid4()
    with psycopg.connect(server.owner_url) as connection:
        sql = "SELECT n, 'row ' || n AS label FROM generate_series(1, 25) AS n"
        connection.execute("INSERT INTO catalog.query (id, sql) VALUES (%s, %s)", [str(metric), sql])
        connection.execute("INSERT INTO catalog.metric (id, query_id) VALUES (%s, %s)", [metric, str(metric)])
    request, found = get(f"/api/v1/metrics/{metric}"), {1: [(0.0, 0.0)], 2: [(0.0, 0.0)]}
    with ExitStack() as stack:
        ports = [
            stack.enter_context(served(server, TALLY, AUTH="off", REDIS_URL=redis_url)) for _ in range(2)
        ]
        for _ in range(ROUNDS):
            for number in (1, 2):
                found[number].append(uvloop.run(_rate(ports[:number], request)))
    best = {number: [max(each) for each in zip(*rounds, strict=True)] for number, rounds in found.items()}
    for number, (rate, for_core) in best.items():
        sys.stdout.write(f"{number} nodes: {rate:7.0f} hits/s, {for_core:7.0f} for each second of a core\n")
    whole = best[2][0] / best[1][0]
    cores = 2 * best[2][1] / best[1][1]
    sys.stdout.write(
        f"two nodes against one: {whole:.2f} on this machine, {cores:.2f} with a core for each\n"
    )


async def _rate(ports: list[int], request: bytes) -> tuple[float, float]:
    before = sum(map(_core_seconds, ports))
    figures = await asyncio.gather(*(measure_hits(Case(port, [request]), 32) for port in ports))
    rate = sum(each.rate for each in figures)
    return rate, rate * SECONDS / (sum(map(_core_seconds, ports)) - before)


def _core_seconds(port: int) -> float:
    """What the processes of a service have used."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"PORT={port}".encode() in (process / "environ").read_bytes().split(b"\0"):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def main(folder: Path) -> None:
    with running(folder / "data", durable=False) as server, running_store(folder) as store:
        await asyncio.to_thread(migrate, server.owner_url, server.reader_url, ("data",))
        config = Database(url=server.owner_url, reader_url=server.reader_url, data_dir=folder)
        alone = Settings(database=config, auth=Auth(mode="off"))
        shared = Settings(database=config, auth=Auth(mode="off"), nodes=Nodes(redis_url=store.url))
        owner = await asyncpg.connect(server.owner_url)
        first = 0
        for name, settings, nodes in (
            ("two nodes", alone, 2),
            ("two nodes, store", shared, 2),
        ):
            runs = await measure(settings, nodes, owner, first)
            first += CHANGES
            sys.stdout.write(f"{name:18} runs for each change {runs:.2f}\n")
        await owner.close()
        took, added = await misses(alone, shared)
        sys.stdout.write(f"a miss: {took[0]:.2f} ms, with a store {took[1]:.2f} ms: {added:.2f} ms more\n")
        median, longest = await definitions(shared)
        sys.stdout.write(f"a new definition on the other node: {median:.1f} ms, at most {longest:.1f} ms\n")
        await asyncio.to_thread(hits, server, store.url)


if __name__ == "__main__":
    with open_folder() as opened:
        (opened / "store").mkdir()
        tempfile.tempdir = str(opened)
        uvloop.run(main(opened))
