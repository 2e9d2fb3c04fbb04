"""Counters in shared memory, and the text that Prometheus reads: checked by Prometheus's own parsers."""

from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from service import __version__
from service.observe import families
from service.observe.counters import GAUGES_LAST_S, LABEL_CHARACTERS, PAGE_BYTES, SharedCounters
from service.observe.events import (
    AlertChanged,
    BreakerClosed,
    BreakerOpened,
    CallersShed,
    ConnectionLost,
    ConnectionRestored,
    Event,
    HitsServed,
    ImportDone,
    MessageTried,
    QueryRun,
    RequestDone,
    ResultServed,
    WorkerLost,
    WorkerStarted,
)
from service.observe.families import FAMILIES
from service.observe.prometheus import UNCOUNTED, Prometheus

ROUTE = "/api/v1/metrics/{metric_id}"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Workers:
    """Two workers that share memory, as the supervisor starts them."""

    def __init__(self, number: int = 2, **more):
        self.memory = SharedCounters.memory(number)
        self.clock = Clock()
        self.more = more
        self.all = [self.start(page) for page in range(number)]

    def start(self, page: int) -> Prometheus:
        return Prometheus(SharedCounters(self.memory), page, clock=self.clock, **self.more)


def samples(prometheus: Prometheus, *, openmetrics: bool = True):
    text = prometheus.text([], openmetrics=openmetrics)
    read = read_openmetrics if openmetrics else read_text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in read(text)
        for sample in family.samples
    }


def request(status: int = 200, seconds: float = 0.002, route: str = ROUTE, method: str = "GET"):
    return RequestDone(method, "/x", route, status, 10, seconds)


def test_a_scrape_of_any_worker_shows_the_sum_of_all():
    first, second = Workers().all
    for worker, times in ((first, 2), (second, 3)):
        for _ in range(times):
            worker(request())
            worker(ResultServed("miss"))
    for worker in (first, second):
        found = samples(worker)
        assert found["tally_requests_total", ROUTE, "GET", "200"] == 5
        assert found["tally_results_total", "miss"] == 5
        assert found["tally_request_seconds_count",] == 5
        assert found["tally_request_seconds_sum",] == pytest.approx(0.01)
        assert found["tally_request_seconds_bucket", "0.001"] == 0
        assert found["tally_request_seconds_bucket", "0.0025"] == 5


def test_a_new_worker_counts_on_where_a_dead_one_stopped():
    workers = Workers()
    workers.all[0](request())
    workers.all[1](request())
    for _ in range(3):
        replacement = workers.start(0)
        replacement(request())
    assert samples(workers.all[1])["tally_requests_total", ROUTE, "GET", "200"] == 5
    assert samples(replacement)["tally_requests_total", ROUTE, "GET", "200"] == 5


def test_gauges_of_a_dead_worker_go_and_those_of_the_living_are_summed():
    workers = Workers()
    for worker, watchers in zip(workers.all, (2, 3), strict=True):
        worker.publish([(families.WATCHERS, (), watchers), (families.CHANGE_LAG, (), watchers)])
    assert samples(workers.all[0])["tally_watchers",] == 5
    assert samples(workers.all[0])["tally_change_lag_seconds",] == 3
    workers.clock.now += GAUGES_LAST_S
    workers.all[0].publish([(families.WATCHERS, (), 2)])
    assert samples(workers.all[0])["tally_watchers",] == 2
    workers.all[1].publish([(families.WATCHERS, (), 4)])
    workers.start(1)
    assert samples(workers.all[0])["tally_watchers",] == 2
    workers.all[0].end()
    assert ("tally_watchers",) not in samples(workers.all[0])


def test_hits_count_as_requests_results_and_durations():
    [worker] = Workers(1).all
    worker(HitsServed(7, (((ROUTE, "GET", 200), 4), ((ROUTE, "GET", 304), 3)), 0.00002))
    worker(request(seconds=0.2))
    found = samples(worker)
    assert found["tally_results_total", "hit"] == 7
    assert found["tally_requests_total", ROUTE, "GET", "304"] == 3
    assert found["tally_request_seconds_bucket", "0.001"] == 7
    assert found["tally_request_seconds_count",] == 8


def test_callers_cannot_invent_labels():
    [worker] = Workers(1).all
    for number in range(2000):
        worker(request(404, route="", method=f"ODD{number}"))
        worker(QueryRun(UUID(int=number), 0.1))
        worker(ImportDone(f"dataset {number}", "done", 1, 0, 0.1))
    found = samples(worker)
    assert found["tally_requests_total", "unknown", "other", "404"] == 2000
    for family in (families.EXECUTIONS, families.IMPORTS):
        mine = {key: value for key, value in found.items() if key[0] == f"{family.name}_total"}
        assert len(mine) == family.most + 1
        assert sum(mine.values()) == 2000
    assert found["tally_executions_total", "other"] == 1500


def test_a_full_page_still_counts_what_it_knows():
    [worker] = Workers(1).all
    for number in range(families.REQUESTS.most):
        worker(request(route=f"/{number}/{'🦄' * LABEL_CHARACTERS}"))
        worker(ImportDone(f"{number}{'🦄' * LABEL_CHARACTERS}", "done", 1, 0, 0.1))
    worker(ResultServed("hit"))
    found = samples(worker)
    assert found["tally_results_total", "hit"] == 1
    routes = sum(value for key, value in found.items() if key[0] == "tally_requests_total")
    assert PAGE_BYTES // 1000 < routes < families.REQUESTS.most


HOSTILE = [
    'a"b', "a\\b", "a\nb", '\\"\n\\', "a} 1\ntally_up 7\n# EOF", "Zoë 🦄", "\u202eabc", "\x00\x1b[2J",
    "\ud800", "", " ", "{le=}", "x" * 10_000, "é" * 500,
]  # fmt: skip


@pytest.mark.parametrize("openmetrics", [True, False])
def test_hostile_labels_stay_labels(openmetrics: bool):
    [worker] = Workers(1).all
    names = set(samples(worker, openmetrics=openmetrics))
    for text in HOSTILE:
        worker(ImportDone(text, "done", 1, 0, 0.1))
    found = samples(worker, openmetrics=openmetrics)
    added = {key: value for key, value in found.items() if key not in names}
    assert {key[0] for key in added} == {"tally_imports_total"}
    assert len(added) == len(HOSTILE)
    assert added["tally_imports_total", 'a"b', "done"] == 1
    assert added["tally_imports_total", "Zoë 🦄", "done"] == 1
    assert all(len(key[1]) <= LABEL_CHARACTERS + 3 for key in added)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.booleans())
def test_any_label_is_read_back_as_one(texts: list[str], openmetrics: bool):
    [worker] = Workers(1).all
    for text in texts:
        worker(ImportDone(text, "done", 1, 0, 0.1))
    found = samples(worker, openmetrics=openmetrics)
    assert sum(value for key, value in found.items() if key[0] == "tally_imports_total") == len(texts)


COUNTED = [
    (BreakerOpened("primary", "why", hangs=False), ("tally_breaker_events_total", "primary", "opened"), 1),
    (BreakerClosed("reader", 0.1, 2), ("tally_breaker_events_total", "reader", "closed"), 1),
    (ConnectionLost("store", "why"), ("tally_connection_events_total", "store", "lost"), 1),
    (ConnectionRestored("poll"), ("tally_connection_events_total", "poll", "restored"), 1),
    (CallersShed(17, 3), ("tally_callers_shed_total",), 17),
    (WorkerLost(1, 7, "why", 2.5, 0.0), ("tally_worker_events_total", "lost"), 1),
    (WorkerStarted(1, 7), ("tally_worker_events_total", "started"), 1),
    (WorkerStarted(1, 7, restarted=True), ("tally_worker_events_total", "restarted"), 1),
    (AlertChanged(UUID(int=7), "firing"), ("tally_alerts_total", "firing"), 1),
    (MessageTried("webhook", "dead"), ("tally_alert_messages_total", "webhook", "dead"), 1),
]


@pytest.mark.parametrize(("event", "series", "number"), COUNTED, ids=lambda each: str(each)[:30])
def test_what_breaks_and_comes_back_is_counted(event: Event, series: tuple[str, ...], number: int):
    [worker] = Workers(1).all
    worker(event)
    assert samples(worker, openmetrics=True)[series] == number


def test_every_event_has_a_metric_or_a_reason_for_having_none():
    counted = set(Prometheus()._count)
    assert counted | set(UNCOUNTED) == set(get_args(Event))
    assert not counted & set(UNCOUNTED)
    assert all(UNCOUNTED.values())


def test_both_formats_name_every_family():
    [worker] = Workers(1).all
    text = worker.text([], openmetrics=False)
    for family in FAMILIES:
        suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
        assert f"# TYPE {family.name}{suffix} " in text
    assert "EOF" not in text
    openmetrics = worker.text([], openmetrics=True)
    assert openmetrics.endswith("# EOF\n")
    assert f'tally_build_info{{version="{__version__}"}} 1\n' in openmetrics
    read = {family.name: family for family in read_openmetrics(openmetrics)}
    assert set(read) == {family.name for family in FAMILIES}
    assert read["tally_request_seconds"].unit == "seconds"


def test_exemplars_are_the_newest_of_all_workers_and_only_in_openmetrics():
    trace = [(1 << 127) + 5, 7]
    first, second = Workers(trace=lambda: (trace[0], trace[1])).all
    first(request(seconds=0.002))
    trace[0] = 0xABC
    second(request(seconds=0.002))
    second(request(seconds=20.0))
    assert "trace_id" not in first.text([], openmetrics=False)
    found = {
        sample.labels["le"]: sample.exemplar
        for family in read_openmetrics(first.text([], openmetrics=True))
        for sample in family.samples
        if sample.name == "tally_request_seconds_bucket" and sample.exemplar
    }
    assert set(found) == {"0.0025", "+Inf"}
    assert found["0.0025"].labels == {"trace_id": f"{0xABC:032x}", "span_id": f"{7:016x}"}
    assert (found["0.0025"].value, found["+Inf"].value) == (0.002, 20.0)


def test_without_a_trace_there_is_no_exemplar():
    [worker] = Workers(1).all
    worker(request())
    assert "trace_id" not in worker.text([], openmetrics=True)
