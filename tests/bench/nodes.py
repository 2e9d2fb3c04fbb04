"""What a shared store adds to a miss, and what a change costs with two nodes: python -m tests.bench.nodes"""

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg

from service.database.embedded import running
from service.database.gateway import open_database
from service.database.migrate import migrate
from service.observe.events import QueryRun
from service.settings import Auth, Database, Nodes, Settings
from tests.cluster.conftest import running_store
from tests.conftest import serving, store_metric, visible
from tests.processes import open_folder
from tests.waiting import until

COUNT = "SELECT count(*) AS value FROM customers"
ADD = "INSERT INTO data.customers (customer_id, occupation, type) VALUES ($1, 'x', 'y')"
CHANGES = 200


async def measure(
    settings: Settings, nodes: int, owner: asyncpg.Connection, first: int
) -> tuple[float, float]:
    """Median milliseconds of the first answer that shows a change, and runs for each change."""
    events: list[object] = []
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(serving(settings, events.append)) for _ in range(nodes)]
        async with open_database(settings.database.url or "") as database:
            metric = await store_metric(database, COUNT)
        for client in clients:
            await visible(client, metric)
        await asyncio.sleep(1.5)  # positions are known
        took: list[float] = []

        async def shown(client: object, number: int) -> bool:
            began = time.perf_counter()
            answer = (await client.get(f"/metrics/{metric}")).json()  # type: ignore[attr-defined]
            if client is clients[0]:
                took.append(time.perf_counter() - began)
            return answer["records"][0]["value"] == number

        for number in range(first, first + CHANGES):
            await owner.execute(ADD, number + 1)
            for client in clients:
                await until(lambda client=client, number=number: shown(client, number + 1))
    runs = sum(isinstance(event, QueryRun) for event in events)
    slowest = sorted(took)[-CHANGES:]  # one miss for each change; the others are hits
    return statistics.median(slowest) * 1000, (runs - 1) / CHANGES


async def main(folder: Path) -> None:
    with running(folder / "data", durable=False) as server, running_store(folder) as store:
        await asyncio.to_thread(migrate, server.owner_url, server.reader_url, ("data",))
        config = Database(url=server.owner_url, reader_url=server.reader_url, data_dir=folder)
        alone = Settings(database=config, auth=Auth(mode="off"))
        shared = Settings(database=config, auth=Auth(mode="off"), nodes=Nodes(redis_url=store.url))
        owner = await asyncpg.connect(server.owner_url)
        first = 0
        for name, settings, nodes in (
            ("one node", alone, 1),
            ("one node, store", shared, 1),
            ("two nodes", alone, 2),
            ("two nodes, store", shared, 2),
        ):
            took_ms, runs = await measure(settings, nodes, owner, first)
            first += CHANGES
            sys.stdout.write(f"{name:18} miss {took_ms:5.2f} ms   runs for each change {runs:.2f}\n")
        await owner.close()


if __name__ == "__main__":
    with open_folder() as opened:
        (opened / "store").mkdir()
        tempfile.tempdir = str(opened)
        asyncio.run(main(opened))
