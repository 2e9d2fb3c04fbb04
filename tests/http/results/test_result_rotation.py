"""More metrics in rotation than plans are kept for stay hits, whatever words their callers use."""

from types import SimpleNamespace

import msgspec
import pytest

from service.metrics import execute
from service.observe.events import ignore
from service.results.cache import Results
from service.results.cache_hits import CacheHitMiddleware, RequestIndex
from service.results.freshness import Generations
from service.results.table import ResultTable
from service.settings import Settings
from tests.http.results.asking import ask, status
from tests.pure.test_result_table import entry

METRICS = 12
LANGUAGES = (
    {},
    {"accept-encoding": "identity"},
    {"accept-encoding": "gzip"},
    {"accept": "application/json"},
    {"accept": "application/json, */*;q=0.1", "accept-encoding": "zstd"},
)


@pytest.fixture
def few_plans(monkeypatch):
    monkeypatch.setattr(execute, "_PLAN_BYTES", 64 << 10)


async def test_a_held_result_needs_no_plan_in_whatever_words_it_is_asked_for(
    few_plans, service, make_metric, monkeypatch
):
    metrics = [await make_metric(f"SELECT {number} AS n") for number in range(METRICS)]
    for metric in metrics:
        await ask(service.fast, metric)
    executor = service.app.state.services.executor
    assert len(executor._plans) < METRICS
    planned = []
    monkeypatch.setattr(executor, "plan_metric", planned.append)
    for headers in LANGUAGES:
        answers = [await ask(service.fast, metric, **headers) for metric in metrics]
        assert {status(answer) for answer in answers} == {"tally; hit"}
        assert [answer.json()["records"] for answer in answers] == [[{"n": n}] for n in range(METRICS)]
    assert not planned


async def test_each_format_and_each_value_of_a_parameter_is_a_result_of_its_own(few_plans, service):
    made = await service.fast.post("/api/v1/metrics", json={"sql": "SELECT :rows::int AS n"})
    metric = made.json()["id"]
    questions = ("rows=1", "rows=2", "rows=1&format=csv", "rows=1&format=csv&bom=1", "rows=2&format=ndjson")
    for headers in LANGUAGES[:3]:
        answers = [
            await service.fast.get(f"/api/v1/metrics/{metric}?{each}", headers=headers) for each in questions
        ]
        assert [answer.json()["records"] for answer in answers[:2]] == [[{"n": 1}], [{"n": 2}]]
        assert [answer.text for answer in answers[2:]] == ["n\r\n1\r\n", "\ufeffn\r\n1\r\n", '{"n":2}\n']


async def test_a_changed_definition_is_planned_anew(service, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    await ask(service.fast, metric)
    changed = await service.fast.patch(f"/api/v1/metrics/{metric}", json={"sql": "SELECT 2 AS n"})
    assert changed.status_code == 200, changed.text
    answer = await ask(service.fast, metric, **{"accept-encoding": "identity"})
    assert (status(answer), answer.json()["records"]) == ("tally; fwd=miss", [{"n": 2}])


async def test_unknown_parameters_are_refused_also_where_the_result_is_held(service, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    for _ in range(2):
        await ask(service.fast, metric)
        refused = await service.fast.get(f"/api/v1/metrics/{metric}?x=1")
        assert refused.status_code == 422


def test_ten_thousand_metrics_in_rotation_are_answered_from_memory():
    """With the usual size of the cache. A layer behind the shortcut would be called for a miss."""
    generations = Generations()
    generations.heard(0.0)
    generations.polled()
    results = Results(
        generations,
        ResultTable(Settings().results.cache_bytes),
        lambda: 1.0,
        wait_s=1.0,
        stale_if_error_s=1.0,
    )
    index, missed = RequestIndex(results), []
    gate = SimpleNamespace(known=lambda *_: [])
    layer = CacheHitMiddleware(
        lambda scope, *_: missed.append(scope["path"]),
        index,
        results,
        gate,
        need="metrics:read",
        observe=ignore,
    )
    scopes = [
        {"type": "http", "method": "GET", "path": f"/api/v1/metrics/{n}", "query_string": b"", "headers": []}
        for n in range(10_000)
    ]
    for number, scope in enumerate(scopes):
        held = entry(number, size=2000)
        held.policy = msgspec.structs.replace(held.policy, basis=generations.of(()))
        results.table.put(held)
        index.remember(scope, number, "identity", 0)
    for _ in range(3):
        for scope in scopes:
            answer = layer(scope, None, None)
            if answer is not None:
                answer.close()
    assert (missed, layer._answered().total()) == ([], 30_000)
