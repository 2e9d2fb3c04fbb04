"""What a layer outside of the framework raises: a problem for the caller, a log line for the operator."""

import io
import json
from uuid import uuid4

import httpx
import pytest
import structlog

from service.app import configured, layered, routed
from service.auth.tokens import EVERYONE
from service.http.problems import ErrorMiddleware
from service.http.request_log import RequestLog
from service.observe.log import EventLog, current_request_id, set_up_logs, standard_error
from service.settings import Logs
from tests.conftest import store_metric
from tests.waiting import until


async def broken(scope, receive, send):
    raise RuntimeError("a layer broke")


async def broken_within(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("a layer broke")


def asking(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:8000")


@pytest.fixture
def lines(monkeypatch):
    """What was logged, as JSON. Between a fixture and its test pytest sets `sys.stderr` anew."""
    written = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr(standard_error, "put", written.write)
        patched.setattr("service.http.problems._log", structlog.get_logger("error"))
        set_up_logs(Logs(format="json"))

        def read():
            standard_error.release()
            return [json.loads(line) for line in written.getvalue().splitlines()]

        yield read
    set_up_logs(Logs(level="error"))


async def test_an_error_of_an_outer_layer_is_a_problem_and_a_log_line(lines):
    async with asking(RequestLog(ErrorMiddleware(broken), EventLog())) as client:
        answer = await client.get("/odd/%5B", headers={"X-Request-ID": "abc"})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "abc"
    assert (answer.json()["code"], answer.json()["instance"]) == ("internal-error", "/odd/[")
    assert "broke" not in answer.text
    error, request = lines()
    assert (error["level"], error["request_id"]) == ("error", "abc")
    assert error["exception"][0]["exc_value"] == "a layer broke"
    assert (request["status"], request["request_id"], request["path"]) == (500, "abc", "/odd/[")


async def answered(scope, receive, send):
    scope["state"]["principal"] = EVERYONE
    headers = [(b"cache-status", b"tally; hit; ttl=-3; detail=stale")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"abc"})


async def test_a_line_tells_who_asked_for_what_and_how_it_was_answered(lines):
    async with asking(RequestLog(answered, EventLog())) as client:
        await client.get(f"/metrics?ticket=abc&q={'x' * 300}")
    assert current_request_id.get() is None  # the task may go on, as that of an event stream does
    (line,) = lines()
    fields = ["timestamp", "level", "event", "method", "path", "query", "status", "ms", "bytes", "cache"]
    assert list(line) == [*fields, "caller", "address", "request_id"]
    assert line["query"] == f"ticket=***&q={'x' * 200}..."
    assert (line["cache"], line["caller"], line["address"]) == ("stale", "local", "127.0.0.1")
    assert (line["status"], line["bytes"]) == (200, 3)


async def test_an_answer_that_has_begun_is_cut(lines):
    async with asking(RequestLog(ErrorMiddleware(broken_within), EventLog())) as client:
        with pytest.raises(RuntimeError, match="a layer broke"):
            await client.get("/")
    assert [line["event"] for line in lines()] == ["unexpected error", "request"]


async def test_a_socket_that_a_layer_broke_is_answered(lines):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/live", "headers": [], "query_string": b""}
    await RequestLog(ErrorMiddleware(broken), EventLog())(scope, None, send)
    assert sent[0]["status"] == 500
    (error,) = lines()
    assert error["request_id"] == json.loads(sent[1]["body"])["request_id"] != ""


async def test_the_whole_service_answers_what_a_layer_raises(settings, monkeypatch):
    app = configured(routed(), settings)

    def fail(*_):
        raise RuntimeError("a layer broke")

    monkeypatch.setattr(app.state.base.gate, "admit", fail)
    monkeypatch.setattr(app.state.base.gate, "known", fail)
    async with asking(layered(app)) as client:
        for path in ("/health/live", "/api/v1/metrics/0", f"/metrics/{uuid4()}"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
            assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


async def test_a_held_result_is_given_to_well_formed_requests_only(guarded_database, visitor, token):
    metric_id = await store_metric(guarded_database, "SELECT 1 AS n")
    address = f"/api/v1/metrics/{metric_id}"
    headers = token("metrics:read")

    async def is_held():
        return "hit" in (await visitor.get(address, headers=headers)).headers.get("Cache-Status", "")

    await until(is_held)
    for host in (b"[::1", b"a@b", b"127.0.0.1:8000.evil.example"):
        assert (await visitor.get(address, headers={"Host": host, **headers})).status_code == 400
    both = [*headers.items(), ("Host", "a"), ("Host", "a")]
    assert (await visitor.get(address, headers=both)).status_code == 400
