"""What counting costs: hits of a service that counts, against the same service whose hits are not counted.

`.venv/bin/python -m tests.bench.metrics`: one worker, bearer tokens, 64 connections; both run side by side,
and one is scraped once a second. The worker's CPU time for a hit says more than the rate where others work on
the machine too. Then what an event and a scrape cost, beside Prometheus's client library.
"""

import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
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
from tests.bench.hits import SQL, ask, store_metrics
from tests.bench.load import CONNECTIONS, Case, database, get, measure, served

ROUNDS = 80
ROUND_S = 0.3
ROUTES = 60
EVENTS = 100_000
UNCOUNTED_HITS = "hits that are not counted"
COUNTED_HITS = "hits that are counted, and scraped"

# The hit path without its counts.
UNCOUNTED = """
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

CacheHitMiddleware._respond = respond
CacheHitMiddleware.answers = 0
"""
SERVE = """
from service.cli import main
if __name__ == "__main__":
    main(["serve"])
"""


def main() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(database())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ.update({"DATA_DIR": folder, "AUTH": "on"})
        issuer = Issuer(load(os.environ).public_url, KeyFile(Path(folder)))
        bearer = {"Authorization": f"Bearer {issuer.sign('bench', ['metrics:read'], 3600)}"}
        [metric] = store_metrics(server, SQL, 1)
        cases: dict[str, Case] = {}
        for name, script in ((UNCOUNTED_HITS, UNCOUNTED + SERVE), (COUNTED_HITS, SERVE)):
            port = stack.enter_context(served(server, (sys.executable, "-c", script)))
            ask(port, metric, bearer)
            cases[name] = Case(port, [get(f"/api/v1/metrics/{metric}", **bearer)])
        stop = Event()
        scraping = Thread(target=_scrape, args=(cases[COUNTED_HITS].port, stop))
        scraping.start()
        try:
            compare(cases, UNCOUNTED_HITS)
        finally:
            stop.set()
            scraping.join()
    _events()


def compare(cases: dict[str, Case], baseline: str, *, connections: int = CONNECTIONS) -> None:
    """Print rate and CPU time of each case, and the median ratio of the rounds.

    The rounds are many and short, and neighbours are compared, so that what else the machine does hits both.
    """
    rates = {name: list[float]() for name in cases}
    times = {name: list[float]() for name in cases}
    workers = {name: _worker(case.port) for name, case in cases.items()}
    for turn in range(ROUNDS):
        for name, case in cases.items() if turn % 2 else reversed(cases.items()):
            before = sum(workers[name].cpu_times()[:2])
            rate = uvloop.run(measure(case, connections, ROUND_S)).rate
            rates[name].append(rate)
            times[name].append((sum(workers[name].cpu_times()[:2]) - before) / (rate * ROUND_S) * 1e6)
    for name in cases:
        faster = statistics.median(a / b for a, b in zip(rates[name], rates[baseline], strict=True))
        less = sum(times[baseline]) / sum(times[name])  # the clock of CPU time is too coarse for one round
        print(  # noqa: T201 (a script)
            f"{name:40} {max(rates[name]):9.0f} requests/s  {faster:.3f}"
            f"   {min(times[name]):6.2f} us CPU  {less:.3f}"
        )


def _worker(port: int) -> psutil.Process:
    """The worker process that serves on this port: a child of the one that was started."""
    services = psutil.Process().children()
    supervisor = next(each for each in services if each.environ().get("PORT") == str(port))
    return max(supervisor.children(), key=lambda child: sum(child.cpu_times()[:2]))


def _scrape(port: int, stop: Event) -> None:
    while not stop.wait(1.0):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/internal/prometheus").read()


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
