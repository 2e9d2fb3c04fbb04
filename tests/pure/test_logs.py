"""What logs hold of an unexpected error: where it was, not what was in it."""

import io
import json
import re
import subprocess
import sys
from typing import get_args
from uuid import UUID

import pytest
import structlog

from service.observe.events import (
    AlertChanged,
    AuthFailed,
    BreakerClosed,
    BreakerOpened,
    CallersShed,
    ChangeHeard,
    ConnectionLost,
    ConnectionRestored,
    Event,
    HitsServed,
    IdleConnectionsClosed,
    ImportDone,
    KeysNotFetched,
    MessageTried,
    MetricLingered,
    QueryRun,
    RequestDone,
    ResultRefreshed,
    ResultServed,
    StatementLingers,
    StatementSuspended,
    WorkerLost,
    WorkerStarted,
)
from service.observe.log import REFUSALS_A_SECOND, EventLog, set_up_logs, standard_error
from service.settings import Logs
from tests.waiting import until

PROGRAM = """
import structlog
from service.observe.log import set_up_logs
from service.settings import Logs

def handle(headers):
    raise RuntimeError("something broke")

set_up_logs(Logs(format={form!r}))
try:
    handle({{"authorization": "Bearer " + "top-" + "secret"}})
except RuntimeError as error:
    structlog.get_logger("error").error("unexpected error", exc_info=error)
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(form: str):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(form=form)], capture_output=True, text=True, check=True
    )
    assert "something broke" in done.stderr
    assert "handle" in done.stderr
    assert "top-secret" not in done.stderr


WRITES = """
import os, socket, sys
import structlog
from service.observe.log import set_up_logs
from service.settings import Logs

written, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
os.dup2(written.fileno(), 2)
set_up_logs(Logs(format={form!r}))
for number in range(3):
    structlog.get_logger("request").info("request", path="/" * 3000 * number)
    line = ours.recv(1 << 16)
    assert line.endswith(b"\\n") and line.count(b"\\n") == 1, line
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_is_one_write_so_that_lines_of_several_workers_do_not_mix(form: str):
    subprocess.run([sys.executable, "-c", WRITES.format(form=form)], check=True)


HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "\x9d0;owned\x9c", "\x7f", "\x00", "\x08\x08", "a\rb",
    "a\nb", "a\r\nb", "a\tb", "a\x0bb", "a\x0cb", "a\x1cb", "a\x1eb", "a\x85b", "a\u2028b",
    "a\u2029b", "\u202eabc", "\u202a", "\u2066abc\u2069", "\u200e\u200f", "\u061c", "\u200b",
    "\ufeff", "\u00ad", "\ud800", "\U000e0041", "\ue000",
]  # fmt: skip
LOGGED = """
import json, logging, sys
import structlog
from service.observe.log import set_up_logs
from service.settings import Logs

class Odd:
    def __repr__(self):
        return text

set_up_logs(Logs(format={form!r}, level="debug"))
log = structlog.get_logger("request")
for text in json.loads(sys.argv[1]):
    log.info("request", path=text, user_agent=[text], subject={{text: text}}, odd=Odd(), **{{"k" + text: 1}})
    log.warning(text)
    logging.getLogger("asyncio").warning("%s", text)
    try:
        try:
            raise ValueError(text)
        except ValueError as inner:
            outer = RuntimeError(text)
            outer.add_note(text)
            raise ExceptionGroup(text, [outer, KeyError(text)]) from inner
    except ExceptionGroup as error:
        log.error("unexpected error", exc_info=error)
        logging.getLogger("asyncio").error("failed %s", text, exc_info=error)
"""


def logged(form, texts):
    program = [sys.executable, "-c", LOGGED.format(form=form), json.dumps(texts)]
    return subprocess.run(program, capture_output=True, check=True).stderr.decode()


def test_no_value_of_a_console_line_reaches_the_terminal_as_more_than_text():
    lines = logged("console", HOSTILE).split("\n")
    assert [line for line in lines if not line.isprintable()] == []
    begun = [line for line in lines if re.match(r"20\d\d-", line)]
    assert len(begun) == 5 * len(HOSTILE)
    assert all(line.startswith("  ") or not line for line in lines if line not in begun)


def test_a_console_line_still_says_what_was_there():
    written = logged("console", ["a\x1b[2Jb", "Zoë 🦄"])
    assert r"path=a\x1b[2Jb" in written
    assert "ValueError: Zoë 🦄" in written


def test_a_json_line_is_ascii_and_loses_nothing():
    lines = logged("json", HOSTILE).split("\n")[:-1]
    assert len(lines) == 5 * len(HOSTILE)
    assert [line for line in lines if not line.isascii() or not line.isprintable()] == []
    read = [json.loads(line) for line in lines]
    assert [line["path"] for line in read if "path" in line] == HOSTILE
    assert read[3]["exception"][1]["exc_value"] == HOSTILE[0]


ID = UUID(int=7)
HEALTH = RequestDone("GET", "/health/live", "/health/live", 200, 20, 0.001)
EVENTS = {
    RequestDone("GET", "/docs", "/docs", 200, 20, 0.00151): ("info", {"path": "/docs", "ms": 1.51}),
    RequestDone("GET", "/x/health", "", 404, 20, 0.001): ("info", {"path": "/x/health", "status": 404}),
    HEALTH: ("debug", {"event": "request", "status": 200}),
    HitsServed(7): ("info", {"event": "hits", "number": 7}),
    ResultRefreshed(): ("debug", {"event": "refresh"}),
    AuthFailed("forbidden"): ("debug", {"event": "auth failed", "reason": "forbidden"}),
    ResultServed("joined"): ("debug", {"event": "result", "outcome": "joined"}),
    QueryRun(ID, 0.5, 0.1, 3, 90): ("debug", {"event": "query", "metric_id": str(ID), "rows": 3}),
    ChangeHeard("data.a", 7): ("debug", {"event": "change", "table": "data.a", "transaction": 7}),
    ConnectionLost("poll"): ("warning", {"event": "database lost"}),
    ConnectionRestored("poll"): ("info", {"event": "database is back"}),
    ConnectionLost("announcements"): ("warning", {"event": "listening lost"}),
    ConnectionLost("reader", "no"): ("warning", {"event": "reader lost", "why": "no"}),
    WorkerLost(2, 77, "was killed by SIGKILL", 3.5, 0.0): (
        "error",
        {"event": "a worker died and is replaced", "worker": 2, "process": 77, "in_s": 0.0},
    ),
    WorkerStarted(2, 78): ("warning", {"event": "a worker was started", "restarted": False}),
    BreakerOpened("primary", "no", hangs=True): (
        "warning",
        {"event": "server cannot be reached", "server": "primary", "why": "no", "hangs": True},
    ),
    BreakerClosed("primary", 2.5, 7): ("info", {"event": "server can be reached again", "probes": 7}),
    CallersShed(7, 3): ("warning", {"event": "callers shed", "number": 7, "waiting": 3}),
    StatementLingers(77, 2, 1, 3): (
        "warning",
        {"event": "statement heeds no cancellation", "backend": 77, "lingering": 2, "replaced": 1},
    ),
    MetricLingered(None, "planned", 1): (
        "warning",
        {"event": "statement lingers", "metric": None, "doing": "planned", "times": 1},
    ),
    StatementSuspended("m", "run", 2, "resume it"): (
        "error",
        {"event": "metric suspended", "metric": "m", "times": 2, "release": "resume it"},
    ),
    KeysNotFetched("no", 2): ("warning", {"event": "signing keys not fetched", "reason": "no", "known": 2}),
    IdleConnectionsClosed(9, "::1", 300): (
        "warning",
        {"event": "idle connections closed", "number": 9, "most_from": "::1", "held": 300},
    ),
    AlertChanged(ID, "firing"): ("info", {"event": "alert", "rule_id": str(ID), "state": "firing"}),
    MessageTried("webhook", "dead"): ("debug", {"event": "alert message", "status": "dead"}),
    ImportDone("items", "done", 7, 1, 0.1): ("info", {"event": "import", "rows": 7, "quarantined": 1}),
}  # fmt: skip


@pytest.mark.parametrize("threshold", ["debug", "info"])
def test_every_event_is_a_line_of_its_level(monkeypatch: pytest.MonkeyPatch, threshold: str):
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    written = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", written)
        set_up_logs(Logs(format="json", level=threshold))
        observe = EventLog()
        for event in EVENTS:
            observe(event)
    set_up_logs(Logs(level="error"))
    shown = [each for each in EVENTS.values() if threshold == "debug" or each[0] != "debug"]
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert len(lines) == len(shown)
    for line, (level, fields) in zip(lines, shown, strict=True):
        assert {"level": level, **fields}.items() <= line.items()


def test_a_crowd_of_refusals_is_some_lines_and_a_number(monkeypatch: pytest.MonkeyPatch):
    written, now = io.StringIO(), [0.0]
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", written)
        set_up_logs(Logs(format="json"))
        observe = EventLog(lambda: now[0])
        for second in range(2):
            now[0] = second * 1.5
            for _ in range(300):
                observe(RequestDone("GET", "/", "", 503, 1, 0.001))
                observe(RequestDone("GET", "/", "", 200, 1, 0.001))
        now[0] = 3.0
        observe(RequestDone("GET", "/", "", 200, 1, 0.001))
        observe(RequestDone("GET", "/", "", 503, 1, 0.001))
    set_up_logs(Logs(level="error"))
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    statuses = [line["status"] for line in lines if line["event"] == "request"]
    assert statuses.count(503) == 2 * REFUSALS_A_SECOND + 1
    assert statuses.count(200) == 2 * 300 + 1
    numbers = [line["number"] for line in lines if line["event"] == "more requests refused"]
    assert numbers == [300 - REFUSALS_A_SECOND] * 2


def test_hits_are_one_line_each_ten_seconds(monkeypatch: pytest.MonkeyPatch):
    written, now = io.StringIO(), [0.0]
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", written)
        set_up_logs(Logs(format="json"))
        observe = EventLog(lambda: now[0])
        for second in range(12):
            now[0] = float(second)
            observe(HitsServed(3))
    set_up_logs(Logs(level="error"))
    assert [json.loads(line)["number"] for line in written.getvalue().splitlines()] == [3, 30]


def test_a_logger_writes_to_standard_error_as_it_is(monkeypatch: pytest.MonkeyPatch):
    log = structlog.get_logger("library")
    for text in ("first", "second"):
        written = io.StringIO()
        with monkeypatch.context() as patched:
            patched.setattr("sys.stderr", written)
            set_up_logs(Logs(format="json"))
            log.error(text)
        assert json.loads(written.getvalue())["event"] == text
        written.close()
    set_up_logs(Logs(level="error"))


REQUESTS = """
import asyncio
import multiprocessing
from service.observe.events import BreakerClosed, RequestDone
from service.observe.log import EventLog, set_up_logs
from service.settings import Logs

def tell(observe, number):
    observe(RequestDone("GET", f"/{{number}}", "", 200, 1, 0.001))

async def serve(observe):
    for number in range(100):
        tell(observe, number)
    observe(BreakerClosed("primary", 1.0, 1))
    tell(observe, 100)

def work():
    set_up_logs(Logs(format="json"))
    observe = EventLog()
    asyncio.run(serve(observe))

if {forked}:
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    worker.join()
else:
    work()
"""


@pytest.mark.parametrize("forked", [False, True])
def test_lines_of_requests_are_in_order_and_none_is_lost_at_the_end(forked: bool):
    """Workers are forked, and such a process ends without calling what `atexit` holds."""
    program = REQUESTS.format(forked=forked)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    shown = [line.get("path", line["event"]) for line in lines]
    expected = [f"/{number}" for number in range(101)]
    assert shown == [*expected[:100], "server can be reached again", *expected[100:]]


async def test_a_line_of_a_request_waits_for_others_for_a_moment(monkeypatch: pytest.MonkeyPatch):
    """A pipe takes 4096 bytes at once: longer writes of several workers would mix."""
    written: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(standard_error, "put", written.append)
        set_up_logs(Logs(format="json"))
        observe = EventLog()
        for number in range(40):
            observe(RequestDone("GET", f"/{number}", "", 200, 1, 0.001))
        assert sum(map(len, written)) > 3000
        assert all(len(each) <= 4096 for each in written)
        await until(lambda: sum(each.count("\n") for each in written) == 40)
        assert len(written) < 10
    set_up_logs(Logs(level="error"))
