"""Is an answer ever marked fresh that is not, and how soon after a commit is there a fresh one?

`.venv/bin/python -m tests.bench.freshness [seconds]`: one writer at 50 commits a second, 16 pollers, two
workers. Also: 1,000 callers at once of a metric that nobody asked for before and that takes a second.
"""

import asyncio
import sys
import time
from collections import deque
from uuid import uuid4

import asyncpg
import httpx

from service.database.embedded import Server
from tests.bench.load import TALLY, database, get, served

COMMITS_PER_S = 50
POLLERS = 16
CALLERS = 1000
NEWEST = "SELECT max(parts_flagged) AS n FROM metrics"
SLOW = "SELECT pg_sleep(1)::text AS slept, clock_timestamp() AS at"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with database() as server:
        newest, slow = asyncio.run(_store(server, NEWEST, SLOW))
        with served(server, TALLY, AUTH="off", WORKERS="2") as port:
            asyncio.run(_watch(server, f"http://127.0.0.1:{port}/metrics/{newest}", seconds))
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
    """What was committed and heard, and what was answered.

    `late_s` holds, for each answer that was marked fresh and was not, how long before its request began this
    process had heard of the commit that it lacks. Postgres tells listeners one after the other, so a few
    milliseconds only say who was told first.
    """

    def __init__(self) -> None:
        self.heard_at: list[float] = []
        self.committed: dict[int, float] = {}
        self.waiting: deque[int] = deque()
        self.delays: list[float] = []
        self.late_s: list[float] = []
        self.fresh = self.stale = 0

    def announced(self, *_: object) -> None:
        self.heard_at.append(time.perf_counter())

    def answered(self, n: int, *, stale: bool, asked_at: float) -> None:
        if stale:
            self.stale += 1
            return
        self.fresh += 1
        if n < len(self.heard_at) and self.heard_at[n] < asked_at:
            self.late_s.append(asked_at - self.heard_at[n])
        now = time.perf_counter()
        while self.waiting and self.waiting[0] <= n:
            self.delays.append(now - self.committed[self.waiting.popleft()])


async def _watch(server: Server, address: str, seconds: float) -> None:
    course = Course()
    writer, listener = [await asyncpg.connect(server.owner_url) for _ in range(2)]
    await listener.add_listener("tally_data", course.announced)
    until = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(_write(writer, course, until))
        for _ in range(POLLERS):
            group.create_task(_poll(address, course, until))
    delays, late = sorted(course.delays), max(course.late_s, default=0.0)
    print(  # noqa: T201 (a script)
        f"{len(course.committed)} commits, {course.fresh} fresh answers, {course.stale} marked stale, "
        f"{len(course.late_s)} lacked a commit that was heard of here up to {late * 1000:.1f} ms before\n"
        f"commit to first fresh answer: p50 {delays[len(delays) // 2] * 1000:.1f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)] * 1000:.1f} ms"
    )
    await writer.close()
    await listener.close()


async def _write(writer: "asyncpg.Connection[asyncpg.Record]", course: Course, until: float) -> None:
    number, due = 0, time.perf_counter()
    while due < until:
        number += 1
        await writer.execute(
            "INSERT INTO data.metrics (id, date, parts_flagged) VALUES ('a', '2025-06-01', $1)", number
        )
        course.committed[number] = time.perf_counter()
        course.waiting.append(number)
        due += 1 / COMMITS_PER_S
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def _poll(address: str, course: Course, until: float) -> None:
    async with httpx.AsyncClient() as client:
        while time.perf_counter() < until:
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
