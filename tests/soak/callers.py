"""Everything that is asked of the service at the same time: writers, readers, imports, watchers."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count, cycle
from typing import Any

import asyncpg
import httpx
from msgspec import Struct

from service.database.gateway import LOST_CONNECTION
from tests.bench.load import get
from tests.soak.judge import Judge, Report
from tests.waiting import until

COMMITS_PER_S = 20
POLLERS = 4
WATCHERS = 20
ROWS = 50
PATIENCE_S = 15.0
PAUSE_S = 0.2
FIRST_CUSTOMER = 1_000_000
REFUSALS = {503, 504}
"""Statuses that a caller may get while something is broken."""
NEWEST = "SELECT max(parts_flagged) AS n FROM metrics WHERE id = 'soak'"
COLD = "SELECT count(*) AS n FROM customers WHERE customer_id > :above::bigint"


class Metrics(Struct, frozen=True):
    """The metrics that are asked for: the newest number, a count for each caller, a renamed one."""

    newest: str
    cold: str
    renamed: str


class Sent(Struct):
    """What was sent, and whether it was confirmed: numbers, titles of items, customers of each import."""

    numbers: dict[int, bool] = {}
    items: dict[str, bool] = {}
    imports: dict[int, bool] = {}
    titles: list[tuple[str, bool]] = []


class Callers:
    """All callers; `stopped` ends them."""

    def __init__(self, address: str, owner_url: str, metrics: Metrics, judge: Judge, report: Report) -> None:
        self._address = address
        self._owner_url = owner_url
        self._metrics = metrics
        self._judge = judge
        self._report = report
        self.sent = Sent()
        self.stopped = asyncio.Event()
        self.writes = True
        self.watched = [0] * WATCHERS
        self._ids = ""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for work in (
                self._write,
                self._read,
                self._read_cold,
                self._add_items,
                self._import,
                self._rename,
            ):
                group.create_task(work())
            for _ in range(POLLERS):
                group.create_task(self._poll())
            for place in range(WATCHERS):
                group.create_task(self._watch(place))

    async def _write(self) -> None:
        """Commit ascending numbers, straight to Postgres."""
        connection: Any = None
        for n in count(1):
            if self.stopped.is_set() or not self.writes:
                break
            began = time.perf_counter()
            try:
                connection = connection or await asyncpg.connect(
                    self._owner_url, timeout=PATIENCE_S, server_settings={"application_name": "soak"}
                )
                self.sent.numbers[n] = False
                xid = await connection.fetchval(
                    "INSERT INTO data.metrics (id, date, parts_flagged) VALUES ('soak', '2025-06-01', $1) "
                    "RETURNING pg_current_xact_id()::text",
                    n,
                    timeout=PATIENCE_S,
                )
                self.sent.numbers[n] = True
                self._judge.commit(n, int(xid))
            except (*LOST_CONNECTION, asyncpg.PostgresError):
                if connection is not None:
                    connection.terminate()
                connection = None
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(max(0.0, began + 1 / COMMITS_PER_S - time.perf_counter()))
        if connection is not None:
            connection.terminate()

    async def _poll(self) -> None:
        """Ask for the newest number again and again, and judge each answer."""
        async with self._client() as client:
            while not self.stopped.is_set():
                asked_at = time.perf_counter()
                answer = await self._ask(client, "GET", f"/metrics/{self._metrics.newest}", hit=True)
                if answer is not None:
                    n = answer.json()["records"][0]["n"] or 0
                    stale = "detail=stale" in answer.headers["cache-status"]
                    self._report.answer()
                    self._report.outcome("stale" if stale else "fresh")
                    self._judge.answered(n, stale=stale, asked_at=asked_at)
                    if not stale:
                        self._report.fresh(self._judge.committed.get(n, 0.0))
                await asyncio.sleep(0.01)

    async def _read(self) -> None:
        """All kinds of pages in turn."""
        metric = self._metrics.renamed
        paths = cycle(
            [
                "/dashboards/default/data",
                "/dashboards/default",
                f"/metrics/{metric}?format=csv",
                f"/metrics/{metric}/definition",
                f"/metrics/{metric}/versions?limit=5",
                "/metrics?limit=5",
                "/interactions?limit=5",
                "/stats",
                "/items?limit=5",
                "/quarantine?limit=5",
                "/imports?limit=5",
                "/audit?limit=5",
            ]
        )
        async with self._client() as client:
            while not self.stopped.is_set():
                path = next(paths)
                path = path.removesuffix("?limit=5") if path.endswith("/versions?limit=5") else path
                if await self._ask(client, "GET", path) is not None:
                    self._report.outcome("page")
                await asyncio.sleep(0.05)

    async def _read_cold(self) -> None:
        """A query that nobody has asked before, each time."""
        async with self._client() as client:
            for above in count(1):
                if self.stopped.is_set():
                    return
                asked_at = time.perf_counter()
                path = f"/metrics/{self._metrics.cold}?above={above}"
                if await self._ask(client, "GET", path) is not None:
                    self._report.outcome("miss")
                    self._report.missed(asked_at)
                await asyncio.sleep(0.05)

    async def _add_items(self) -> None:
        async with self._client() as client:
            for number in count(1):
                if self.stopped.is_set():
                    return
                title = f"soak {number}"
                self.sent.items[title] = False
                if await self._ask(client, "POST", "/items", json={"title": title}) is not None:
                    self.sent.items[title] = True
                    self._report.outcome("item")
                await asyncio.sleep(0.5)

    async def _rename(self) -> None:
        async with self._client() as client:
            for number in count(1):
                if self.stopped.is_set():
                    return
                title = f"renamed {number}"
                body = {"title": title}
                done = await self._ask(client, "PATCH", f"/metrics/{self._metrics.renamed}", json=body)
                self.sent.titles.append((title, done is not None))
                await asyncio.sleep(2.0)

    async def _import(self) -> None:
        """A file of new customers, one of them broken, each second."""
        async with self._client() as client:
            for number in count(1):
                if self.stopped.is_set():
                    return
                first = FIRST_CUSTOMER + number * 1000
                lines = ["Customer_Id,occupation,type", *(f"{first + at},Buyer,Maker" for at in range(ROWS))]
                content = "\n".join([*lines, f"x{number},Buyer,Maker"]).encode()
                self.sent.imports[number] = False
                file = {"file": (f"soak-{number}.csv", content, "text/csv")}
                done = await self._ask(client, "POST", "/imports/customers", files=file)
                if done is not None:
                    self.sent.imports[number] = True
                    self._report.outcome("import")
                    self._check(done.json())
                await asyncio.sleep(1.0)

    def _check(self, report: dict[str, Any]) -> None:
        parts = report["inserted"] + report["updated"] + report["unchanged"] + report["quarantined"]
        if report["rows_read"] != parts or report["rows_read"] != ROWS + 1:
            self._report.wrong.append(f"an import read {report['rows_read']} rows and tells of {parts}")

    async def _watch(self, place: int) -> None:
        """Follow the newest number on an event stream; come back when it ends, with what was seen."""
        while not self.stopped.is_set():
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
                await self._follow(place)
            await asyncio.sleep(PAUSE_S)

    async def _follow(self, place: int) -> None:
        port = int(self._address.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stop = asyncio.create_task(self.stopped.wait())
        try:
            writer.write(get(f"/metrics/{self._metrics.newest}/events", port=port))
            while not self.stopped.is_set():
                line = asyncio.create_task(reader.readline())
                await asyncio.wait({line, stop}, timeout=3 * PATIENCE_S, return_when="FIRST_COMPLETED")
                if not line.done():
                    line.cancel()
                    return
                if not (text := line.result()):
                    return
                if text.startswith(b"data: ") and (at := text.find(b'"records":[{"n":')) > 0:
                    found = text[at + 16 : text.index(b"}", at)]
                    self.watched[place] = 0 if found == b"null" else int(found)
                    self._report.outcome("event")
        finally:
            stop.cancel()
            writer.transport.abort()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._address, timeout=PATIENCE_S)

    async def _ask(
        self, client: httpx.AsyncClient, method: str, path: str, *, hit: bool = False, **body: Any
    ) -> httpx.Response | None:
        """The answer if all went well; else it is counted, and judged whether a caller may see it."""
        began = time.perf_counter()
        try:
            answer = await client.request(method, f"/api/v1{path}", **body)
        except httpx.TimeoutException:
            self._report.outcome("timeout")
            self._report.wrong.append(f"{method} {path} had no answer within {PATIENCE_S:.0f} s")
            return None
        except httpx.TransportError:
            self._report.outcome("cut connection")
            await asyncio.sleep(0.05)
            return None
        took = time.perf_counter() - began
        if answer.is_success:
            return answer
        kind = str(answer.status_code)
        self._report.outcome(kind)
        if answer.status_code not in REFUSALS:
            self._report.wrong.append(
                f"{method} {path} answered {kind} after {took:.1f} s: {answer.text[:200]}"
            )
        elif answer.status_code == 503 and "retry-after" not in answer.headers:
            self._report.wrong.append(f"{method} {path} answered 503 without Retry-After")
        elif hit:
            self._report.wrong.append(f"a held result was refused: {kind} {answer.text[:200]}")
        await asyncio.sleep(0.05)
        return None


async def settled(condition: Callable[[], bool], within_s: float) -> bool:
    """Whether the condition comes to hold in time."""
    with suppress(TimeoutError):
        await until(condition, within_s)
    return condition()
