"""Several workers are one scrape: under load, over the death of workers, and as `promtool` reads it."""

import os
import signal
import subprocess
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read

from service.database.gateway import open_database
from service.observe.events import ImportDone
from service.observe.families import QUARANTINE_OPEN
from service.observe.prometheus import Prometheus
from service.settings import Database as DatabaseSettings
from tests.adversity.test_workers import Service, serving
from tests.conftest import store_metric
from tests.processes import until_ready
from tests.programs import program
from tests.pure.test_counters import HOSTILE
from tests.waiting import eventually

WORKERS = 2


@pytest.fixture(scope="module")
def service(
    shared_addresses: DatabaseSettings, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Service]:
    folder = tmp_path_factory.mktemp("service")
    before = "supervisor.STEADY_S = 0"
    with serving(shared_addresses, folder, before=before, WORKERS=WORKERS) as found:
        until_ready(found.port)
        eventually(lambda: len(found.workers()) == WORKERS)
        yield found


def get(service: Service, path: str) -> httpx.Response:
    """By a connection of its own, so that any worker may answer."""
    return httpx.get(f"http://127.0.0.1:{service.port}{path}", timeout=30)


def scrape(service: Service) -> dict[tuple[str, ...], float]:
    headers = {"Accept": "application/openmetrics-text"}
    address = f"http://127.0.0.1:{service.port}/internal/prometheus"
    answer = httpx.get(address, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in read(answer.text)
        for sample in family.samples
    }


def answered(service: Service, path: str = "/docs") -> float:
    return scrape(service).get(("tally_requests_total", path, "GET", "200"), 0)


def ask(service: Service, times: int, path: str = "/docs") -> None:
    with ThreadPoolExecutor(8) as threads:
        assert {each.status_code for each in threads.map(lambda _: get(service, path), range(times))} == {200}


def test_scrapes_under_load_only_rise_and_end_at_the_sum(service: Service):
    before = answered(service)
    with ThreadPoolExecutor(1) as asking:
        load = asking.submit(ask, service, 300)
        seen = [before]
        while not load.done():
            seen.append(answered(service))
        load.result()
    assert seen == sorted(seen)
    assert answered(service) == before + 300


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_counts_of_a_dead_worker_neither_vanish_nor_double(service: Service, how: signal.Signals):
    ask(service, 40)
    counted = answered(service)
    died = scrape(service).get(("tally_worker_events_total", "lost"), 0)
    for _ in range(2 * WORKERS):
        before = service.workers()
        os.kill(min(before), how)

        def replaced(before: set[int] = before) -> bool:
            return len(service.workers()) == WORKERS and service.workers() != before

        eventually(replaced)
        until_ready(service.port)
        assert answered(service) == counted
    assert scrape(service)["tally_worker_events_total", "lost"] == died + 2 * WORKERS
    ask(service, 40)
    assert answered(service) == counted + 40


def test_counts_outlive_a_reload(service: Service):
    ask(service, 40)
    counted, before = answered(service), service.workers()
    service.process.send_signal(signal.SIGHUP)
    eventually(lambda: len(service.workers()) == WORKERS and not service.workers() & before)
    until_ready(service.port)
    assert answered(service) == counted
    ask(service, 40)
    assert answered(service) == counted + 40


async def test_streams_of_a_dead_worker_are_no_watchers(service: Service, shared_addresses: DatabaseSettings):
    def watchers() -> float:
        return scrape(service)[("tally_watchers",)]

    async with open_database(shared_addresses.url or "") as database:
        metric = await store_metric(database, "SELECT 1 AS n")
    eventually(lambda: get(service, f"/metrics/{metric}/definition").status_code == 200)
    with httpx.stream(
        "GET", f"http://127.0.0.1:{service.port}/metrics/{metric}/events", timeout=30
    ) as stream:
        assert stream.status_code == 200
        eventually(lambda: watchers() == 1)
        before = service.workers()
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        eventually(lambda: len(service.workers()) == WORKERS and not service.workers() & before)
        until_ready(service.port)
        eventually(lambda: watchers() == 0)


@pytest.fixture
def promtool() -> str:
    return program("promtool")


def test_promtool_finds_nothing_to_say_of_hostile_labels(promtool: str):
    prometheus = Prometheus()
    for text in HOSTILE:
        prometheus(ImportDone(text, "done", 1, 0, 0.1))
    gauges = [(QUARANTINE_OPEN, (text,), 1) for text in HOSTILE]
    check(promtool, prometheus.text(gauges, openmetrics=False).encode())


def check(promtool: str, text: bytes) -> None:
    found = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (found.stdout + found.stderr, found.returncode) == (b"", 0)


def test_promtool_finds_nothing_to_say(service: Service, promtool: str):
    get(service, f"/api/v1/metrics/{'0' * 8}-0000-0000-0000-{'0' * 12}")
    get(service, '/odd"path\\n')
    address = f"http://127.0.0.1:{service.port}/internal/prometheus"
    check(promtool, httpx.get(address).content)
