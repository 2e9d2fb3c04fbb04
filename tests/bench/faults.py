"""How long callers notice a fault of the database, and how many connections its return costs.

`.venv/bin/python -m tests.bench.faults`
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import uvloop

from tests.adversity.faults import Postgres, Wire, postgres
from tests.bench.load import TALLY, get, served
from tests.waiting import until

CALLERS = 50
FAULT_S = 5.0


def main() -> None:
    metric = uuid4()
    with postgres() as server:
        with psycopg.connect(server.server.owner_url) as connection:
            connection.execute("INSERT INTO catalog.query (id, sql) VALUES ('n', 'SELECT :n::int AS n')")
            connection.execute("INSERT INTO catalog.metric (id, query_id) VALUES (%s, 'n')", [metric])
        uvloop.run(_measure(server, str(metric)))


async def _measure(server: Postgres, metric: str) -> None:
    wire = Wire(server.port)
    await wire.start()

    class Behind:
        owner_url = wire.address(server.server.owner_url)
        reader_url = wire.address(server.server.reader_url)

    starting = served(Behind, TALLY, AUTH="off")  # type: ignore[arg-type]
    port = await asyncio.to_thread(starting.__enter__)
    faults: dict[str, Callable[[], Any]] = {
        "crash": lambda: _crashed(server),
        "hang (SIGSTOP)": server.stopped,
        "swallowed": lambda: _swallowed(wire),
    }
    try:
        for name, fault in faults.items():
            await _one(name, fault, port, metric, wire)
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
        await wire.stop()


@contextmanager
def _crashed(server: Postgres):
    server.crash()
    yield
    server.start()


@contextmanager
def _swallowed(wire: Wire):
    wire.swallow()
    yield
    wire.pass_all()


async def _one(name: str, fault: Callable[[], Any], port: int, metric: str, wire: Wire) -> None:
    """Callers ask for a result of their own each, without a pause, before, during and after the fault."""
    numbers, answers = iter(range(1, 10**9)), list[tuple[float, float, int]]()
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            status = await _status(port, f"/metrics/{metric}?n={next(numbers)}")
            answers.append((began, time.perf_counter() - began, status))

    callers = [asyncio.create_task(ask()) for _ in range(CALLERS)]
    await until(lambda: len(answers) > 10 * CALLERS)
    wire.accepted = 0
    began = time.perf_counter()
    with fault():
        await asyncio.sleep(FAULT_S)
        tried, wire.accepted = wire.accepted, 0
    ended = time.perf_counter()
    await asyncio.sleep(3)
    stop.set()
    await asyncio.gather(*callers)
    during = [(at, took) for at, took, status in answers if began <= at < ended and status != 200]
    noticed = min(at + took for at, took in during) - began
    refused = sorted(took for at, took in during if at > began + noticed)
    back = min(at + took for at, took, status in answers if at + took > ended and status == 200) - ended
    within_ms = refused[int(len(refused) * 0.99)] * 1000
    print(  # noqa: T201 (a script)
        f"{name:16} noticed after {noticed:.2f} s, then {len(refused)} refused within {within_ms:.0f} ms "
        f"(99 %); {tried} connections tried in {FAULT_S:g} s; "
        f"served again {back:.2f} s after its return, with {wire.accepted} connections in 3 s"
    )


async def _status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(get(path, port=port, Connection="close"))
    answer = await reader.read()
    writer.close()
    return int(answer[9:12]) if answer else 0


if __name__ == "__main__":
    main()
