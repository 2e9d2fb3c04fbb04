"""Large statements are read by processes of their own, within limits, with the same outcome."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import suppress

import psutil
import pytest

from service.errors import Busy, InvalidInput, SqlRefused
from service.sql import workers as module
from service.sql.parameters import Declared
from service.sql.statements import IN_PROCESS_BYTES, Submission, validate
from service.sql.validation import Unread
from service.sql.workers import Workers

LONG = "SELECT " + ", ".join(f"a{n} AS b{n}" for n in range(300)) + " FROM metrics"


@pytest.fixture
def workers() -> Generator[Workers]:
    opened = Workers(1)
    yield opened
    opened.close()


def submission(sql: str, **fields) -> Submission:
    return Submission(sql=sql, schemas=("data",), **fields)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT :a, :b::int FROM metrics WHERE date BETWEEN '2025-01-01' AND '2025-02-01' AND c = ':d'",
        LONG + " WHERE a = :a",
    ],
)
def test_a_worker_reads_as_the_service_does(workers, sql):
    declared = {"a": Declared("enum", values=("x", "y"), default="x")} if ":a" in sql else {}
    given = submission(sql, declared=declared)

    assert workers.submit(given).result() == validate(given)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [("SELECT pg_sleep(1)", SqlRefused), ("SELECT count(*", Unread), ("SELECT $1", SqlRefused)],
)
def test_a_worker_refuses_as_the_service_does(workers, sql, kind):
    with pytest.raises(kind) as here:
        validate(submission(sql))
    with pytest.raises(kind) as there:
        workers.submit(submission(sql)).result()

    assert type(there.value) is type(here.value)
    assert there.value.document() == here.value.document()


def test_a_wrong_declaration_is_refused_there_too(workers):
    with pytest.raises(InvalidInput, match="the SQL has no :a"):
        workers.submit(submission("SELECT 1", declared={"a": Declared("text")})).result()


def test_a_worker_gets_no_secret(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    process = module._Process()
    environment = psutil.Process(process._process.pid).environ()
    process.clear()

    assert "DATABASE_URL" not in environment


def test_small_texts_stay_in_the_service():
    assert submission("x" * IN_PROCESS_BYTES).is_small
    assert not submission("x" * (IN_PROCESS_BYTES + 1)).is_small


def test_a_text_that_takes_too_long_ends_its_worker_and_no_other_work(workers):
    impatient = Workers(1, deadline_s=0.0)
    try:
        with pytest.raises(SqlRefused, match="too long"):
            impatient.submit(submission(LONG)).result()
    finally:
        impatient.close()

    assert workers.submit(submission(LONG)).result() == validate(submission(LONG))


async def test_a_text_that_waits_too_long_gives_up_its_place_in_the_queue():
    impatient, released = Workers(1, wait_s=0.0), threading.Event()
    try:
        impatient._threads.submit(released.wait)
        with pytest.raises(Busy):
            await impatient.read(submission(LONG))
        assert impatient._waiting == 0
    finally:
        released.set()
        impatient.close()


def test_a_worker_that_died_is_replaced(workers):
    workers.submit(submission("SELECT 1")).result()
    (process,) = workers._idle
    process.end()

    for _ in range(2):  # at the first it may be about to end
        with suppress(SqlRefused):
            workers.submit(submission("SELECT 1")).result()
    assert workers.submit(submission("SELECT 1")).result() == validate(submission("SELECT 1"))


async def test_waiting_for_a_worker_leaves_the_loop_free(workers):
    waiting = asyncio.wrap_future(workers.submit(submission(LONG)))
    turns = 0
    while not waiting.done():
        turns += 1
        await asyncio.sleep(0)

    assert turns > 1
    assert await waiting == validate(submission(LONG))


def test_workers_have_limited_memory(workers, monkeypatch):
    set_limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(module.resource, "setrlimit", lambda *limit: set_limits.append(limit))

    module._limit_memory()

    assert set_limits == [(module.resource.RLIMIT_AS, (module.MEMORY_BYTES, module.MEMORY_BYTES))]
