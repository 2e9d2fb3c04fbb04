# ruff: noqa: T201 (a script)
"""Everything at once for some minutes, with a fault every 20 s: `make soak`, `make soak MINUTES=1`.

Prints what callers saw of each fault and how soon it was over. Exit status 1 if a promise was broken: a lost
row, an answer marked fresh that was not, a wrong status, memory that grows, a leaked task, file, connection.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import asyncpg

from service.database.embedded import running
from service.database.migrate import migrate
from tests.processes import tally
from tests.soak.callers import COLD, FIRST_CUSTOMER, NEWEST, ROWS, Callers, Metrics, settled
from tests.soak.judge import Judge, Report
from tests.soak.machine import FAULTS, WORKERS, Held, Machine, started
from tests.soak.relay import relaying

EVERY_S = 20.0
WARM_S = 8.0
SETTLED_S = 20.0
GROWTH_BYTES = 48 << 20
SPARE_FILES = 4
SPARE_TASKS = 8
ODD_LINES = ("unexpected error", "Task was destroyed", "never retrieved", "Traceback", "never awaited")


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory(prefix="tally-soak-") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder)) as server:
            migrate(server.owner_url, server.reader_url, ("data",))
            assert tally("seed", DATA_DIR=folder).returncode == 0
            wrong = asyncio.run(_soak(Path(folder), server, minutes * 60))
    for each in wrong[:20]:
        print(f"broken: {each}")
    print("nothing was lost, stale as fresh or leaked" if not wrong else f"{len(wrong)} promises broken")
    sys.exit(bool(wrong))


async def _soak(folder: Path, server, seconds: float) -> list[str]:
    metrics = await _store(server.owner_url)
    log = folder / "log"
    async with AsyncExitStack() as stack:
        relay, relay_port = await stack.enter_async_context(relaying(server.owner_url))
        output = stack.enter_context(log.open("w"))
        machine = await stack.enter_async_context(started(Machine(folder, server, relay, relay_port, output)))
        report, judge = Report(), Judge(relay, WORKERS)
        callers = Callers(machine.address, server.owner_url, metrics, judge, report)
        memory: list[list[int]] = []
        calm = asyncio.create_task(callers.run())
        watching = asyncio.create_task(_weigh(machine, memory))
        await asyncio.sleep(WARM_S)
        before = await machine.held()
        breaking = asyncio.create_task(_break(machine, report, seconds))
        await asyncio.wait({calm, breaking}, return_when=asyncio.FIRST_COMPLETED)
        if calm.done():
            breaking.cancel()
            await calm  # raises
        await breaking
        report.begin("none")
        report.end()
        callers.writes = False
        if not await settled(lambda: min(callers.watched) >= judge.last, SETTLED_S):
            report.wrong.append(f"watchers ended with {sorted(set(callers.watched))}, not {judge.last}")
        callers.stopped.set()
        await calm
        watching.cancel()
        report.wrong += judge.wrong
        report.wrong += await _leaks(machine, before)
        report.wrong += _grown(memory)
        report.wrong += await _lost(server.owner_url, callers)
        if status := await machine.stop():
            report.wrong.append(f"the service ended with exit status {status} after SIGTERM")
    report.wrong += [
        line[:300] for line in log.read_text().splitlines() if any(each in line for each in ODD_LINES)
    ]
    print("\n".join(report.table()))
    quarter = len(memory) // 4
    print(
        f"{len(callers.sent.numbers)} commits, {judge.fresh} fresh and {judge.stale} stale answers; "
        f"commit to first fresh answer p50 {statistics.median(judge.delays) * 1000:.0f} ms\n"
        f"memory of the workers {_shown(memory[:quarter])} MiB at first, {_shown(memory[-quarter:])} at last"
    )
    return report.wrong


async def _store(owner_url: str) -> Metrics:
    connection = await asyncpg.connect(owner_url)
    ids = [str(uuid4()) for _ in range(3)]
    for metric, sql in zip(ids, (NEWEST, COLD, "SELECT 1 AS n"), strict=True):
        await connection.execute("INSERT INTO catalog.query (id, sql) VALUES ($1, $2)", metric, sql)
        await connection.execute(
            "INSERT INTO catalog.metric (id, query_id) VALUES ($1::uuid, $1::text)", metric
        )
    await connection.close()
    return Metrics(*ids)


async def _break(machine: Machine, report: Report, seconds: float) -> None:
    """One fault after the other, each with time to recover from it."""
    end = time.perf_counter() + seconds
    every_s = min(EVERY_S, seconds / len(FAULTS))  # each comes at least once
    for turn, (name, fault) in enumerate(cycle(FAULTS.items())):
        began = time.perf_counter()
        if turn >= len(FAULTS) and began + every_s > end:
            await asyncio.sleep(max(0.0, end - began))
            return
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        report.begin(name)
        await fault(machine)
        report.end()
        await asyncio.sleep(max(1.0, began + every_s - time.perf_counter()))
        if not await settled(report.recovered, SETTLED_S):
            report.wrong.append(f"no fresh answer, or none to a new query, came in time after: {name}")


async def _weigh(machine: Machine, memory: list[list[int]]) -> None:
    while True:
        found = machine.memory()
        if len(found) == WORKERS:
            memory.append(found)
        await asyncio.sleep(1.0)


def _grown(memory: list[list[int]]) -> list[str]:
    """Compare the second quarter of the time with the last."""
    quarter = len(memory) // 4
    early, late = (
        statistics.median(max(each) for each in part)
        for part in (memory[quarter : 2 * quarter], memory[-quarter:])
    )
    if late - early > GROWTH_BYTES:
        return [f"a worker's memory grew from {early / 2**20:.0f} to {late / 2**20:.0f} MiB"]
    return []


def _shown(memory: list[list[int]]) -> str:
    return f"{statistics.median(sum(each) for each in memory) / 2**20:.0f}"


async def _leaks(machine: Machine, before: list[Held]) -> list[str]:
    """What is held when nobody asks any more, against what was held under load before the faults."""
    wrong: list[str] = []
    if not await settled(lambda: machine.callers() == 0, SETTLED_S):
        wrong.append(f"{machine.callers()} connections of callers are still open")
    after = await machine.held()
    most = Held(
        max(each.database for each in before),
        max(each.files for each in before),
        max((each.tasks for each in before), key=len),
    )
    for each in after:
        if each.database > 50:
            wrong.append(f"a worker holds {each.database} connections to Postgres")
        if each.files > most.files + SPARE_FILES:
            wrong.append(f"a worker holds {each.files} files, {most.files} before the faults")
        if len(each.tasks) > len(most.tasks) + SPARE_TASKS:
            wrong.append(f"a worker has {len(each.tasks)} tasks, {len(most.tasks)} before: {each.tasks}")
    return wrong


async def _lost(owner_url: str, callers: Callers) -> list[str]:
    """Compare what was confirmed with what is stored."""
    connection = await asyncpg.connect(owner_url)
    sent, wrong = callers.sent, list[str]()

    async def column(sql: str) -> list:
        return [row[0] for row in await connection.fetch(sql)]

    numbers = set(await column("SELECT parts_flagged FROM data.metrics WHERE id = 'soak'"))
    items = await column("SELECT title FROM app.item WHERE title LIKE 'soak %'")
    lost = [n for n, confirmed in sent.numbers.items() if confirmed and n not in numbers]
    lost_items = [title for title, confirmed in sent.items.items() if confirmed and title not in items]
    if lost or lost_items:
        wrong.append(f"lost: {len(lost)} facts, {len(lost_items)} items")
    if len(set(items)) != len(items):
        wrong.append(f"{len(items) - len(set(items))} items were stored twice")
    for number, confirmed in sent.imports.items():
        first = FIRST_CUSTOMER + number * 1000
        rows = await connection.fetchval(
            "SELECT count(*) FROM data.customers WHERE customer_id BETWEEN $1 AND $1 + 999", first
        )
        kept = await connection.fetchval(
            "SELECT count(*) FROM quarantine.row WHERE source = $1", f"soak-{number}.csv"
        )
        if (rows, kept) not in ({(ROWS, 1)} if confirmed else {(0, 0), (ROWS, 1)}):
            wrong.append(
                f"import {number} (confirmed: {confirmed}) left {rows} rows and {kept} in quarantine"
            )
    title = await connection.fetchval("SELECT title FROM catalog.metric WHERE title LIKE 'renamed %'")
    confirmed_at = max((at for at, (_, done) in enumerate(sent.titles) if done), default=0)
    if title not in [each for each, _ in sent.titles[confirmed_at:]]:
        wrong.append(f"the metric is called {title!r}, not {sent.titles[confirmed_at:]}")
    await connection.close()
    return wrong


if __name__ == "__main__":
    main()
