"""Traces: which spans a collector gets, how they hang together, and that nobody waits for the collector."""

import asyncio
import sys
from unittest.mock import Mock

import httpx
import msgspec
import pytest

from service.database.gateway import open_database
from service.database.queries import Command
from service.observe.otel import _Exporter
from service.observe.trace import MISSING
from service.settings import Outbound, Traces
from tests.adversity.misbehaving import Misbehaving, answer
from tests.collector import collecting
from tests.conftest import _cloned, everybody, held, serving, store_metric, visible
from tests.processes import ROOT, environment
from tests.waiting import until

SERVER, CLIENT = 2, 3
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FROM_CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
AFRESH = {"Cache-Control": "no-cache"}
OWN_TEXT = "SELECT current_query() AS q"
PREPARED = "SELECT count(*) AS n FROM pg_prepared_statements"


class Traced:
    def __init__(self, client, database, collector):
        self.client, self.database, self.collector = client, database, collector

    async def metric(self, sql, *, trusted=False):
        metric = await store_metric(self.database, sql, trusted=trusted)
        await visible(self.client, metric)
        return metric

    async def get(self, metric, **headers):
        return await self.client.get(f"/api/v1/metrics/{metric}", headers=headers)

    async def spans(self, name, **attributes):
        """Wait for spans with these attributes; a dot is written as an underscore."""

        def found():
            return [
                span
                for span in self.collector.named(name)
                if attributes.items()
                <= {key.replace(".", "_"): value for key, value in span.attributes.items()}.items()
            ]

        return await until(found)


@pytest.fixture(scope="module")
def quickly():
    """Batches are sent at once, not each 5 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
async def service(server, template, quickly, tmp_path_factory):
    with collecting() as collector:
        async with held(_cloned(server, template)) as addresses:
            one = msgspec.structs.replace(addresses, reader_pool_size=1)
            settings = msgspec.structs.replace(
                everybody(one, tmp_path_factory.mktemp("traced")), traces=Traces(endpoint=collector.address)
            )
            async with (
                held(open_database(addresses.url)) as database,
                held(serving(settings)) as client,
            ):
                yield Traced(client, database, collector)


async def test_a_miss_is_a_span_with_its_execution_inside(service):
    metric = await service.metric("SELECT 1 AS n")
    answer = await service.get(metric)
    [run] = await service.spans("execute", tally_metric_id=metric)
    [request] = await service.spans(
        "GET /api/v1/metrics/{metric_id}", tally_request_id=answer.headers["x-request-id"]
    )
    assert (request.kind, run.kind) == (SERVER, CLIENT)
    assert (run.trace_id, run.parent_id) == (request.trace_id, request.span_id)
    assert request.parent_id == ""
    assert not request.failed
    assert request.attributes | {"url.path": "", "tally.request_id": ""} == {
        "http.request.method": "GET",
        "http.route": "/api/v1/metrics/{metric_id}",
        "http.response.status_code": 200,
        "tally.cache": "miss",
        "url.path": "",
        "tally.request_id": "",
    }
    assert run.attributes["db.system.name"] == "postgresql"
    assert run.attributes["tally.rows"] == 1
    assert run.attributes["tally.waited_s"] >= 0
    assert run.service["service.name"] == "tally"


async def test_hits_and_looks_at_health_are_no_spans(service):
    metric = await service.metric("SELECT 2 AS n")
    await service.get(metric)
    before = service.collector.spans.copy()
    for _ in range(3):
        assert (await service.get(metric, **FROM_CALLER)).headers["server-timing"] == "hit"
        for path in ("/health", "/health/live", "/api/v1/health/ready", "/internal/prometheus"):
            await service.client.get(path)
    marker = await service.metric("SELECT 3 AS n")
    await service.get(marker)
    await service.spans("execute", tally_metric_id=marker)
    later = [span for span in service.collector.spans if span not in before]
    assert [span for span in later if span.trace_id == TRACE] == []
    assert [span for span in later if "health" in span.name or "internal" in span.name] == []


async def test_the_trace_of_a_caller_goes_on_to_the_statement(service):
    metric = await service.metric(OWN_TEXT, trusted=True)
    answer = await service.get(metric, **FROM_CALLER)
    [run] = await service.spans("execute", tally_metric_id=metric)
    [request] = await service.spans(
        "GET /api/v1/metrics/{metric_id}", tally_request_id=answer.headers["x-request-id"]
    )
    assert (request.trace_id, request.parent_id, run.trace_id) == (TRACE, PARENT, TRACE)
    assert answer.json()["records"] == [{"q": f"{OWN_TEXT}\n/*traceparent='00-{TRACE}-{run.span_id}-01'*/"}]


@pytest.mark.parametrize("sql", [f"{OWN_TEXT} -- and no more", f"{OWN_TEXT} /* /* */ */", f"{OWN_TEXT};"])
async def test_a_comment_fits_behind_any_statement(service, sql):
    metric = await service.metric(sql, trusted=True)
    text = (await service.get(metric, **FROM_CALLER)).json()["records"][0]["q"]
    assert "\n/*traceparent='00-" in text


async def test_the_place_of_an_error_is_the_same_with_a_comment(service):
    metric = await service.metric("SELECT 1 /\n (count(*) - count(*)) AS n, 'x'::text FROM customers")
    plain = await service.get(metric)
    traced = await service.get(metric, **FROM_CALLER, **AFRESH)
    assert plain.status_code == traced.status_code == 422
    differing = {"request_id", "instance"}
    assert {k: v for k, v in plain.json().items() if k not in differing} == {
        k: v for k, v in traced.json().items() if k not in differing
    }


HOSTILE = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/; DROP TABLE data.customers; --",
    "*/ SELECT 1 /*",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01",
    "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
    "",
    "0" * 7000,
    "\u00e9".encode().decode("latin-1"),
]


@pytest.mark.parametrize("given", HOSTILE, ids=lambda given: given[:20])
async def test_no_text_of_a_caller_reaches_the_statement(service, given):
    metric = await service.metric(OWN_TEXT, trusted=True)
    headers = httpx.Headers([(b"traceparent", given.encode("latin-1")), (b"cache-control", b"no-cache")])
    answer = await service.client.get(f"/api/v1/metrics/{metric}", headers=headers)
    assert answer.json()["records"] == [{"q": OWN_TEXT}]


async def test_two_contexts_and_one_that_is_not_sampled_are_not_followed(service):
    metric = await service.metric(OWN_TEXT, trusted=True)
    two = [("traceparent", FROM_CALLER["traceparent"])] * 2
    for headers in (two, [("traceparent", FROM_CALLER["traceparent"][:-1] + "0")]):
        answer = await service.client.get(f"/api/v1/metrics/{metric}", headers=[*headers, *AFRESH.items()])
        assert answer.json()["records"] == [{"q": OWN_TEXT}]


async def test_a_comment_leaves_prepared_statements_alone(service):
    metric, counting = await service.metric("SELECT 4 AS n"), await service.metric(PREPARED, trusted=True)

    async def prepared():
        return (await service.get(counting, **AFRESH)).json()["records"][0]["n"]

    await service.get(metric)
    await prepared()
    before = await prepared()
    for _ in range(5):
        await service.get(metric, **FROM_CALLER, **AFRESH)
    assert await prepared() == before
    await service.get(metric, **AFRESH)
    assert await prepared() == before


async def test_a_failed_execution_and_a_failed_request_are_marked(service):
    metric = await service.metric("SELECT 1 / (count(*) - count(*)) AS n FROM customers")
    await service.get(metric)
    [run] = await service.spans("execute", tally_metric_id=metric)
    assert (run.failed, run.attributes["error.type"]) == (True, "query-failed")


async def test_a_refresh_is_a_trace_of_its_own(service):
    metric = await service.metric("SELECT count(*) AS n FROM products_of_discussion")
    await service.get(metric, **FROM_CALLER)
    await service.database.write(
        Command("c", "INSERT INTO data.products_of_discussion VALUES ('2025-01-01', 'Bird')")
    )

    async def again():
        return len(await service.spans("execute", tally_metric_id=metric)) > 1

    await until(again)
    first, second = (await service.spans("execute", tally_metric_id=metric))[:2]
    assert first.trace_id == TRACE
    refreshes = {span.span_id: span for span in await service.spans("refresh")}
    assert refreshes[second.parent_id].parent_id == ""
    assert refreshes[second.parent_id].trace_id == second.trace_id != TRACE


async def test_an_import_is_a_span(service):
    csv = b"Customer_ID,Occupation,Type\n920001,Cook,Gold\nx,Cook,Gold\n"
    await service.client.post("/imports/customers", content=csv, headers={"Content-Type": "text/csv"})
    [done] = await service.spans("import", tally_dataset="customers")
    assert (done.attributes["tally.status"], done.attributes["tally.rows"]) == ("done", 2)
    assert done.attributes["tally.quarantined"] == 1
    [request] = [span for span in await service.spans("POST /imports/{target}") if not span.parent_id]
    assert done.parent_id == request.span_id


async def test_an_outbound_call_is_a_span_and_tells_the_other_side_nothing(service, settings, quickly):
    async with Misbehaving(answer(body=b"[]")) as other:
        changed = msgspec.structs.replace(
            settings,
            traces=Traces(endpoint=service.collector.address),
            outbound=Outbound(external_api_url=other.url),
        )
        async with serving(changed) as client:
            answered = await client.get("/api/v1/external/posts?limit=1", headers=FROM_CALLER)
            assert answered.json() == []
            calls = await service.spans("GET", server_address="127.0.0.1")
            assert "traceparent" not in "".join(other.requests).lower()
    assert calls[0].trace_id == TRACE
    assert calls[0].kind == CLIENT


async def test_exemplars_lead_from_durations_to_traces(service):
    metric = await service.metric("SELECT 5 AS n")
    await service.get(metric, **FROM_CALLER)
    [run] = await service.spans("execute", tally_metric_id=metric)
    text = (
        await service.client.get("/internal/prometheus", headers={"Accept": "application/openmetrics-text"})
    ).text
    lines = [line for line in text.splitlines() if f'span_id="{run.span_id}"' in line]
    assert [line.split("{")[0] for line in lines] == ["tally_execution_seconds_bucket"]
    assert f'trace_id="{TRACE}"' in lines[0]


async def test_a_collector_that_is_away_delays_nobody_and_gets_spans_when_it_is_back(settings, quickly):
    with collecting() as collector:
        collector.status = 400
        changed = msgspec.structs.replace(settings, traces=Traces(endpoint=collector.address))
        async with serving(changed) as client:
            assert (await client.get("/api/v1/metrics")).status_code == 200
            await until(lambda: collector.tried > 0)
            collector.status = 200

            async def came():
                await client.get("/api/v1/metrics")
                return collector.spans

            await until(came)


async def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(settings, quickly):
    with collecting() as collector:
        collector.release.clear()
        changed = msgspec.structs.replace(settings, traces=Traces(endpoint=collector.address))
        async with serving(changed) as client:
            await client.get("/api/v1/metrics")
            await until(lambda: collector.tried > 0)
            for _ in range(20):
                assert (await client.get("/api/v1/metrics")).status_code == 200
        assert not collector.release.is_set()
        assert collector.spans == []


def test_the_loss_and_the_return_of_the_collector_are_logged_once():
    lines = []
    with collecting() as collector:
        exporter = _Exporter(collector.address)
        exporter._log = Mock(
            warning=lambda event, **_: lines.append(("warning", event)),
            info=lambda event, **_: lines.append(("info", event)),
        )
        for collector.status in (200, 400, 400, 200, 200):
            exporter.export([])
        exporter.shutdown()
    assert lines == [("warning", "collector lost: spans are dropped"), ("info", "collector is back")]


WITHOUT = """
import sys
for name in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter"):
    sys.modules[name] = None
from service.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", [("serve", "--check"), ("doctor",)])
async def test_without_the_extra_the_setting_is_refused_with_a_sentence(addresses, tmp_path, command):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WITHOUT, *command, cwd=ROOT,
        env=environment(
            DATABASE_URL=addresses.url, READER_DATABASE_URL=addresses.reader_url, DATA_DIR=tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318",
        ),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert " ".join(MISSING.split()) in " ".join(said.decode().split())
    if command[0] == "serve":
        assert (said.decode(), process.returncode) == (f"tally: {MISSING}\n", 2)
