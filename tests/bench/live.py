"""What watching costs: commit to the last client, memory of idle streams, and writers of watched tables.

`.venv/bin/python -m tests.bench.live`. One worker. The clients read raw sockets in this process.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from service.database.embedded import Server
from service.http.connections import raise_file_limit
from tests.bench.load import TALLY, Case, best, database, get, served
from tests.waiting import until

WATCHERS = 500
CHANGES = 40
METRICS = 200
WATCHERS_EACH = 10
COMMITS_PER_S = 20
SECONDS = 10.0
IDLE = 5000
IDLE_BEATS = 6  # a minute at the usual LIVE_HEARTBEAT_S
WRITERS = (8, 32)
REPORTED_S = 12  # a session reports its last counts after ten idle seconds
NEWEST = "SELECT max(parts_flagged) AS n FROM metrics"


def main() -> None:
    raise_file_limit()
    with database() as server:
        # All streams come from one address here, as behind a proxy.
        quiet = {"LIVE_HEARTBEAT_S": "3600", "HOT_FOR_S": "0"}
        with served(server, TALLY, AUTH="off", CONNECTIONS_PER_ADDRESS="10000", **quiet) as port:
            asyncio.run(_fan_out(server, port))
            asyncio.run(_many_metrics(server, port))
        with served(server, TALLY, AUTH="off", CONNECTIONS_PER_ADDRESS="10000") as port:
            asyncio.run(_idle(server, port))
        asyncio.run(_writers(server))


class Watchers:
    """Event streams, and how many have got each number."""

    def __init__(self) -> None:
        self.got: dict[int, int] = {}
        self.last_at: dict[int, float] = {}
        self.opened = 0
        self.heartbeats = 0
        self._all: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, port: int, metric: str, number: int) -> None:
        for _ in range(number):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get(f"/metrics/{metric}/events", port=port))
            self._all.append(writer)
            self._tasks.append(asyncio.create_task(self._read(reader)))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if line == b":\n":
                self.heartbeats += 1
            elif line.startswith(b"data: ") and b'"records":' in line:  # not that of `stale` or `fresh`
                at = line.index(b'"records":[{"n":') + 16
                found = line[at : line.index(b"}", at)]
                n = int(found) if found != b"null" else 0
                self.opened += 1
                self.got[n] = self.got.get(n, 0) + 1
                self.last_at[n] = time.perf_counter()

    async def first_results(self, number: int) -> None:
        await until(lambda: self.opened >= number, 300)

    def have(self, n: int, number: int) -> bool:
        return self.got.get(n, 0) >= number

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._all:
            writer.close()
        await asyncio.gather(
            *self._tasks, *(each.wait_closed() for each in self._all), return_exceptions=True
        )


async def _store(connection: Any, sql: str) -> str:
    metric = str(uuid4())
    await connection.execute(
        "INSERT INTO catalog.query (id, sql, trusted) VALUES ($1, $2, true)", metric, sql
    )
    await connection.execute("INSERT INTO catalog.metric (id, query_id) VALUES ($1::uuid, $1::text)", metric)
    return metric


async def _known(port: int, metric: str) -> None:
    """Wait until the service has heard of a metric."""

    async def found() -> bool:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}/metrics/{metric}/versions")).is_success

    await until(found)


async def _write(connection: Any, n: int) -> None:
    await connection.execute(
        "INSERT INTO data.metrics (id, date, parts_flagged) VALUES ('a', '2025-06-01', $1)", n
    )


async def _runs(connection: Any, metric_table: str = "metrics") -> int:
    """Scans of the table: one for each execution."""
    sql = "SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = $1"
    return await _settled(lambda: connection.fetchval(sql, metric_table))


async def _settled(look: Callable[[], Awaitable[int]]) -> int:
    """A number, once it has been the same for `REPORTED_S`."""
    found, since = await look(), time.perf_counter()

    async def same() -> bool:
        nonlocal found, since
        now = await look()
        if now != found:
            found, since = now, time.perf_counter()
        return time.perf_counter() - since > REPORTED_S

    await until(same, 60)
    return found


async def _fan_out(server: Server, port: int) -> None:
    owner = await asyncpg.connect(server.owner_url)
    await owner.execute("TRUNCATE data.metrics")
    metric = await _store(owner, NEWEST)
    # Each change is a run of its own: no pause joins it with the one before.
    await owner.execute("UPDATE catalog.metric SET refresh_every_s = 0 WHERE id = $1::uuid", metric)
    await _known(port, metric)
    watchers = Watchers()
    await watchers.open(port, metric, WATCHERS)
    await watchers.first_results(WATCHERS)
    lags: list[float] = []
    before = await _runs(owner)
    for n in range(1, CHANGES + 1):
        await _write(owner, n)
        committed = time.perf_counter()
        await until(partial(watchers.have, n, WATCHERS))
        lags.append((watchers.last_at[n] - committed) * 1000)
    runs = await _runs(owner) - before
    lags.sort()
    _say(
        f"{WATCHERS} watchers of one metric: commit to last client p50 {lags[len(lags) // 2]:.0f} ms, "
        f"p99 {lags[-1]:.0f} ms; {runs} scans for {CHANGES} changes"
    )
    await watchers.close()
    await owner.close()


async def _many_metrics(server: Server, port: int) -> None:
    owner = await asyncpg.connect(server.owner_url)
    await owner.execute("TRUNCATE data.metrics")
    metrics = [await _store(owner, f"{NEWEST} WHERE {k} = {k}") for k in range(METRICS)]
    await _known(port, metrics[-1])
    watchers = Watchers()
    for metric in metrics:
        await watchers.open(port, metric, WATCHERS_EACH)
    await watchers.first_results(METRICS * WATCHERS_EACH)
    before, n, started = await _runs(owner), 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        n += 1
        await _write(owner, n)
        await until(partial(_is_past, started + n / COMMITS_PER_S))
    committed = time.perf_counter()
    await until(partial(watchers.have, n, METRICS * WATCHERS_EACH))
    lag, runs = time.perf_counter() - committed, await _runs(owner) - before
    _say(
        f"{METRICS} metrics x {WATCHERS_EACH} watchers under {COMMITS_PER_S} commits/s: "
        f"{runs} scans for {n} commits in {SECONDS:g} s, all have the last after {lag * 1000:.0f} ms "
        f"(reckoned: a query a second for each watcher would be {int(METRICS * WATCHERS_EACH * SECONDS)})"
    )
    await watchers.close()
    await owner.close()


async def _idle(server: Server, port: int) -> None:
    owner = await asyncpg.connect(server.owner_url)
    metric = await _store(owner, NEWEST)
    await _known(port, metric)
    polled = Case(port, [get(f"/metrics/{metric}", port=port)])
    alone = (await asyncio.to_thread(best, {"": polled}))[""]
    watchers = Watchers()
    await watchers.open(port, metric, 200)
    await watchers.first_results(200)
    before, quiet = _memory_kb(port), await _transactions(owner, watchers)
    await watchers.open(port, metric, IDLE)
    await watchers.first_results(IDLE + 200)
    each, busy = (_memory_kb(port) - before) / IDLE, await _transactions(owner, watchers)
    beside = (await asyncio.to_thread(best, {"": polled}))[""]
    _say(
        f"{IDLE} idle streams: {each:.1f} kB each; polling beside them {beside.rate / alone.rate:.2f} of "
        f"without; transactions a second {busy:.1f} with, {quiet:.1f} without them "
        f"(reckoned: a query a second for each would be {IDLE})"
    )
    await watchers.close()
    await owner.close()


async def _transactions(owner: Any, watchers: Watchers) -> float:
    """How many transactions a second end until each stream has had `IDLE_BEATS` heartbeats."""
    sql = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    before, began, due = (
        await owner.fetchval(sql),
        time.perf_counter(),
        watchers.heartbeats + watchers.opened * IDLE_BEATS,
    )
    await until(lambda: watchers.heartbeats >= due, 300)
    return (await owner.fetchval(sql) - before) / (time.perf_counter() - began)


def _is_past(moment: float) -> bool:
    return time.perf_counter() >= moment


def _memory_kb(port: int) -> int:
    """Resident memory of the worker, the largest of the service's processes."""
    sizes = [0]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or belongs to somebody else
            if f"PORT={port}".encode() in (process / "environ").read_bytes().split(b"\0"):
                lines = (process / "status").read_text().splitlines()
                sizes += [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return max(sizes)


async def _writers(server: Server) -> None:
    owner = await asyncpg.connect(server.owner_url)
    await owner.execute("CREATE TABLE data.plain (n int)")
    rates: dict[tuple[int, bool], float] = {}
    for watched in (False, True):
        if watched:
            await owner.execute("SELECT app.watch('data.plain')")
        for number in WRITERS:
            rates[number, watched] = await _commits(server, number)
    for number in WRITERS:
        without, watched_rate = rates[number, False], rates[number, True]
        _say(
            f"{number} writers: {without:.0f} commits/s without watch, {watched_rate:.0f} with "
            f"({watched_rate / without:.2f})"
        )
    await owner.close()


async def _commits(server: Server, number: int) -> float:
    connections = [await asyncpg.connect(server.owner_url) for _ in range(number)]
    end, done = time.perf_counter() + 5, 0

    async def write(connection: Any) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await connection.execute("INSERT INTO data.plain VALUES (1)")
            done += 1

    await asyncio.gather(*map(write, connections))
    for connection in connections:
        await connection.close()
    return done / 5


def _say(line: str) -> None:
    print(line)  # noqa: T201 (a script)


if __name__ == "__main__":
    main()
