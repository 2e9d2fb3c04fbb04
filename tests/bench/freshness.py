"""Is an answer ever marked fresh that is not, and how soon after a commit is there a fresh one?

`.venv/bin/python -m tests.bench.freshness [seconds]`: one writer at 50 commits a second, 16 pollers, two
workers; then again while others keep both workers busy. Also: 1,000 callers at once of a metric that nobody
asked for before and that takes a second.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from math import inf
from multiprocessing import get_context
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx

from service.database.embedded import Server
from service.results.changes import CHANNEL
from tests.bench.load import CONNECTIONS, TALLY, Case, best_rates, database, get, served
from tests.waiting import until

COMMITS_PER_S = 50
POLLERS = 16
CALLERS = 1000
WORKERS = 2
LISTEN = f'LISTEN "{CHANNEL}"'.encode()
NOTIFICATION = CHANNEL.encode() + b"\0"
NEWEST = "SELECT max(parts_flagged) AS n FROM metrics"
SLOW = "SELECT pg_sleep(1)::text AS slept, clock_timestamp() AS at"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with database() as server:
        newest, slow = asyncio.run(_store(server, NEWEST, SLOW))
        for connections in (0, CONNECTIONS):
            asyncio.run(_watch(server, newest, seconds, connections))
        with served(server, TALLY, AUTH="off") as port:
            asyncio.run(_crowd(port, slow))


async def _store(server: Server, *texts: str) -> list[str]:
    connection = await asyncpg.connect(server.owner_url)
    ids = [str(uuid4()) for _ in texts]
    for metric, sql in zip(ids, texts, strict=True):
        await connection.execute(
            "INSERT INTO catalog.query (id, sql, trusted) VALUES ($1, $2, true)", metric, sql
        )
        await connection.execute(
            "INSERT INTO catalog.metric (id, query_id) VALUES ($1::uuid, $1::text)", metric
        )
    await connection.close()
    return ids


class Course:
    """What was committed, what was announced to each worker, and what was answered.

    `late_s` holds, for each answer that was marked fresh and was not, how long before its request began the
    commit that it lacks had been announced to all workers.
    """

    def __init__(self) -> None:
        self.announced_at: list[list[float]] = []
        self.committed: dict[int, float] = {}
        self.waiting: deque[int] = deque()
        self.delays: list[float] = []
        self.late_s: list[float] = []
        self.fresh = self.stale = 0

    def announced(self, n: int) -> float:
        """When the last worker was told of commit `n`; `inf` if it has not been."""
        return max(each[n - 1] if n <= len(each) else inf for each in self.announced_at)

    def answered(self, n: int, *, stale: bool, asked_at: float) -> None:
        if stale:
            self.stale += 1
            return
        self.fresh += 1
        announced_at = self.announced(n + 1)
        if announced_at < asked_at:
            self.late_s.append(asked_at - announced_at)
        now = time.perf_counter()
        while self.waiting and self.waiting[0] <= n:
            self.delays.append(now - self.committed[self.waiting.popleft()])


async def _watch(server: Server, metric: str, seconds: float, connections: int) -> None:
    """`connections` ask for the same metric without a pause, from a process of their own."""
    course = Course()
    writer = await asyncpg.connect(server.owner_url)
    await writer.execute("TRUNCATE data.metrics")
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(_relay(server.owner_url, course))
        service = served(server, TALLY, AUTH="off", WORKERS=str(WORKERS), DATABASE_URL=relay)
        port = await asyncio.to_thread(service.__enter__)
        stack.push_async_callback(asyncio.to_thread, service.__exit__, None, None, None)
        address = f"http://127.0.0.1:{port}/metrics/{metric}"
        busy = Case(port, [get(f"/metrics/{metric}", port=port)])
        await until(lambda: len(course.announced_at) == WORKERS)
        end = time.perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(_write(writer, course, end))
            if connections:
                group.create_task(_hurry(busy, connections, end))
            for _ in range(POLLERS):
                group.create_task(_poll(address, course, end))
    assert [len(each) for each in course.announced_at] == [len(course.committed)] * WORKERS
    delays, late = sorted(course.delays), max(course.late_s, default=0.0)
    print(  # noqa: T201 (a script)
        f"beside {connections} connections without a pause: {len(course.committed)} commits, "
        f"{course.fresh} fresh answers, {course.stale} marked stale, "
        f"{len(course.late_s)} lacked a commit that was announced up to {late * 1000:.1f} ms before\n"
        f"commit to first fresh answer: p50 {delays[len(delays) // 2] * 1000:.1f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)] * 1000:.1f} ms"
    )
    await writer.close()


@asynccontextmanager
async def _relay(url: str, course: Course) -> AsyncGenerator[str]:
    """Stand between the service and Postgres, to know when a worker's socket was given an announcement.

    A listener of our own could not tell: Postgres wakes a process for each, on busy processors one
    milliseconds after the other.
    """
    target = urlsplit(url)
    connections: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        announced_at: list[float] = []

        def sent(data: bytes) -> None:
            if LISTEN in data:
                course.announced_at.append(announced_at)

        def received(data: bytes) -> None:
            announced_at.extend([time.perf_counter()] * data.count(NOTIFICATION))

        up_reader, up_writer = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(_pump(reader, up_writer, sent), _pump(up_reader, writer, received))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as relay:
        netloc = f"{target.username}:{target.password}@127.0.0.1:{relay.sockets[0].getsockname()[1]}"
        yield urlunsplit(target._replace(netloc=netloc))
        await asyncio.gather(*filter(None, connections))


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passed: Callable[[bytes], None]
) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        passed(data)
    writer.close()


async def _hurry(case: Case, connections: int, end: float) -> None:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        while time.perf_counter() < end:
            await loop.run_in_executor(pool, partial(best_rates, {"": case}, connections=connections))


async def _write(writer: "asyncpg.Connection[asyncpg.Record]", course: Course, end: float) -> None:
    number, due = 0, time.perf_counter()
    while due < end:
        number += 1
        await writer.execute(
            "INSERT INTO data.metrics (id, date, parts_flagged) VALUES ('a', '2025-06-01', $1)", number
        )
        course.committed[number] = time.perf_counter()
        course.waiting.append(number)
        due += 1 / COMMITS_PER_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def _poll(address: str, course: Course, end: float) -> None:
    async with httpx.AsyncClient() as client:
        while time.perf_counter() < end:
            asked_at = time.perf_counter()
            answer = await client.get(address)
            stale = "detail=stale" in answer.headers["cache-status"]
            course.answered(answer.json()["records"][0]["n"] or 0, stale=stale, asked_at=asked_at)
            await asyncio.sleep(0.005)


async def _crowd(port: int, metric: str) -> None:
    callers = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(CALLERS)))
    started = time.perf_counter()
    bodies = await asyncio.gather(
        *(_ask(*caller, get(f"/metrics/{metric}", port=port)) for caller in callers)
    )
    took = time.perf_counter() - started
    for _, writer in callers:
        writer.close()
    print(  # noqa: T201 (a script)
        f"{CALLERS} callers at once of a query of 1 s: {len(set(bodies))} execution, all in {took:.2f} s"
    )


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    return await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


if __name__ == "__main__":
    main()
