"""What counting costs: hits of a service that counts, against the same service whose hits are not counted.

`.venv/bin/python -m tests.bench.metrics`: one worker, bearer tokens, 64 connections. One process does both in
turn, told by signals, so that nothing else differs between the two. The processor time for a hit is read from
the kernel's clock of the worker, which other work on the machine hardly moves. Then what an event and a
scrape cost, beside Prometheus's client library.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple
from uuid import UUID

import psutil
import uvloop
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from service.auth.issuer import Issuer, KeyFile
from service.environment import load
from service.observe.counters import SharedCounters
from service.observe.events import QueryRun, RequestDone
from service.observe.families import REQUEST_SECONDS
from service.observe.prometheus import Prometheus
from tests.bench.burst import processor_time
from tests.bench.hits import SQL, ask, store_metrics
from tests.bench.load import CONNECTIONS, Case, Crowd, database, get, served

ROUNDS = 400
ROUND_S = 0.1
ROUTES = 60
EVENTS = 100_000
UNCOUNTED_HITS = "hits that are not counted"
COUNTED_HITS = "hits that are counted"

# The hit path without its counts, while a signal says so.
SWITCHED = """
import signal

from service.results import cache_hits
from service.results.cache_hits import CacheHitMiddleware, _signature, hit, plain, request_id_of

def respond(self, scope):
    request = plain(scope)
    if request is None:
        return None
    found = self._index.find(_signature(scope, request))
    if found is None:
        return None
    _, key, coding, _ = found
    now = self._results.clock()
    entry = self._results.fresh_entry(key, now)
    if entry is None or coding not in entry.representations:
        return None
    extra = self._gate.known(request, scope["path"], self._need)
    if extra is None:
        return None
    self.answers += 1
    extra = [*extra, (b"x-request-id", request_id_of(request.get(b"x-request-id")))]
    return hit(entry, coding, now).messages(scope["method"], request.get(b"if-none-match", b""), extra)

counted = CacheHitMiddleware._respond
CacheHitMiddleware.answers = 0

def switch(number, _frame):
    CacheHitMiddleware._respond = counted if number == signal.SIGUSR1 else respond

for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, switch)
"""
SERVE = """
from service.cli import main
if __name__ == "__main__":
    main(["serve"])
"""


def _nothing() -> None:
    pass


class Side(NamedTuple):
    """What is asked, and what is called before each round."""

    case: Case
    prepare: Callable[[], None] = _nothing


def main() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(database())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ.update({"DATA_DIR": folder, "AUTH": "on"})
        issuer = Issuer(load(os.environ).public_url, KeyFile(Path(folder)))
        bearer = {"Authorization": f"Bearer {issuer.sign('bench', ['metrics:read'], 3600)}"}
        [metric] = store_metrics(server, SQL, 1)
        port = stack.enter_context(served(server, (sys.executable, "-c", SWITCHED + SERVE)))
        ask(port, metric, bearer)
        case, worker = Case(port, [get(f"/api/v1/metrics/{metric}", **bearer)]), worker_of(port)

        sides = {
            UNCOUNTED_HITS: Side(case, partial(os.kill, worker, signal.SIGUSR2)),
            COUNTED_HITS: Side(case, partial(os.kill, worker, signal.SIGUSR1)),
        }
        compare(sides, UNCOUNTED_HITS)
    _events()


def compare(
    sides: Mapping[str, Side], baseline: str, *, connections: int = CONNECTIONS, rounds: int = ROUNDS
) -> None:
    """Print rate and processor time of each side, and the ratios to the baseline.

    The rounds are many and short, and neighbours are compared, so that what else the machine does hits both.
    The ratio is the median of the rounds, with the interval in which it is with 95 % confidence.
    """
    rates, spent = uvloop.run(_measured(sides, connections, rounds))
    for name in sides:
        print(  # noqa: T201 (a script)
            f"{name:40} {median(rates[name]):9.0f} requests/s  {_ratio(rates[name], rates[baseline])}"
            f"   {median(spent[name]):7.2f} us of a core  {_ratio(spent[name], spent[baseline])}"
        )


async def _measured(
    sides: Mapping[str, Side], connections: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Answers a second, and microseconds of the worker's processor time for each, by side and round."""
    rates = {name: list[float]() for name in sides}
    spent = {name: list[float]() for name in sides}
    workers = {name: worker_of(side.case.port) for name, side in sides.items()}
    crowds = {name: Crowd(side.case) for name, side in sides.items()}
    for crowd in crowds.values():
        await crowd.connect(connections)
    for turn in range(rounds):
        for name, side in sides.items() if turn % 2 else reversed(sides.items()):
            side.prepare()
            await crowds[name].ask(ROUND_S / 10)
            before, began = processor_time(workers[name]), time.perf_counter()
            answers = await crowds[name].ask(ROUND_S)
            rates[name].append(answers / (time.perf_counter() - began))
            spent[name].append((processor_time(workers[name]) - before) / answers * 1e6)
    return rates, spent


def _ratio(these: Sequence[float], those: Sequence[float]) -> str:
    """The median ratio of neighbours and its interval, by ranks: it does not matter how ratios are spread."""
    if these is those:
        return f"{'1':24}"
    ratios = sorted(a / b for a, b in zip(these, those, strict=True))
    away = round(0.98 * len(ratios) ** 0.5)
    low, high = ratios[max(len(ratios) // 2 - away, 0)], ratios[min(len(ratios) // 2 + away, len(ratios) - 1)]
    return f"{median(ratios):.3f} ({low:.3f} to {high:.3f})"


def worker_of(port: int) -> int:
    """The worker process that serves on this port: a child of the one that was started."""
    for service in psutil.Process().children():
        with suppress(psutil.Error):
            if service.environ().get("PORT") == str(port):
                return max(service.children(), key=lambda child: sum(child.cpu_times()[:2])).pid
    raise LookupError(port)


def _events() -> None:
    ours = Prometheus(SharedCounters(SharedCounters.memory(2)), 0)
    registry = CollectorRegistry()
    requests = Counter("requests", "...", ["route", "method", "status"], registry=registry)
    seconds = Histogram("request_seconds", "...", buckets=REQUEST_SECONDS.buckets, registry=registry)
    done = RequestDone("GET", "/", "/route/1", 200, 1, 0.003)
    run = QueryRun(UUID(int=1), 0.003)

    def theirs() -> None:
        requests.labels("/route/1", "GET", "200").inc()
        seconds.observe(0.003)

    for number in range(ROUTES):
        for status in (200, 304, 404, 422):
            ours(RequestDone("GET", "/", f"/route/{number}", status, 1, 0.003))
            requests.labels(f"/route/{number}", "GET", str(status)).inc()
    calls = {
        "a request, counted by the library": (theirs, EVENTS),
        "a request, counted by Tally": (lambda: ours(done), EVENTS),
        "an execution, counted by Tally": (lambda: ours(run), EVENTS),
        "a scrape, written by the library": (lambda: generate_latest(registry), 50),
        "a scrape, written by Tally": (lambda: ours.text([], openmetrics=False), 50),
    }
    for name, (call, times) in calls.items():
        print(f"{name:40} {_best_us(call, times):9.2f} us")  # noqa: T201 (a script)


def _best_us(call: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(times):
            call()
        best = min(best, (time.perf_counter() - started) / times)
    return best * 1e6


if __name__ == "__main__":
    main()
