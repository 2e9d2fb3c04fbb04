"""Statements that heed no cancellation: others go on, and what lingered twice is set aside for everybody."""

import asyncio
from itertools import count
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest

from service.database.queries import Statement
from service.metrics import suspensions
from service.observe.events import Event, MetricLingered, StatementLingers, StatementSuspended
from tests.conftest import everybody, serving, store_metric, visible
from tests.waiting import until

# A statement that swallows each cancellation until its gate is opened. It sleeps, and leaves the processor to
# others; `test_single_requests.py` has one that computes.
SET_UP = """
CREATE TABLE data.gate (open bool);
INSERT INTO data.gate VALUES (false);
GRANT SELECT ON data.gate TO PUBLIC;
CREATE FUNCTION data.lingering(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    done bool := n = 1;
BEGIN
    WHILE NOT done LOOP
        BEGIN
            PERFORM pg_sleep(0.1);
            done := (SELECT open FROM data.gate);
        EXCEPTION WHEN query_canceled THEN
            NULL;
        END;
    END LOOP;
    RETURN n;
END $$
"""
LINGERS = "SELECT data.lingering(:n::int) AS n"
LONG = 2
PLACES = 2


class Busy(msgspec.Struct):
    n: int


BUSY = Statement(
    "busy",
    "SELECT count(*) AS n FROM pg_stat_activity"
    " WHERE datname = current_database() AND state = 'active' AND query LIKE '%lingering(%'"
    " AND pid <> pg_backend_pid()",
    Busy,
)


@pytest.fixture
def observed() -> list[Event]:
    return []


@pytest.fixture
async def limits(addresses, tmp_path):
    short = msgspec.structs.replace(addresses, statement_timeout_ms=100, reader_pool_size=PLACES)
    return everybody(short, tmp_path)


@pytest.fixture
async def client(limits, clone, observed):
    owner = await asyncpg.connect(limits.database.url)
    await owner.execute(SET_UP)
    async with serving(limits, observed.append) as opened:
        yield opened
        await owner.execute("UPDATE data.gate SET open = true")

    async def none_runs() -> bool:
        return (await clone.read_one(BUSY)).n == 0

    await until(none_runs)
    await owner.close()


async def ask(client: httpx.AsyncClient, metric: str, n: int = LONG) -> tuple[int, str | None]:
    answer = await client.get(f"/metrics/{metric}?n={n}", headers={"Cache-Control": "no-cache"})
    return answer.status_code, answer.json().get("code")


SUSPENDED = (503, "metric-suspended")


async def suspend(client: httpx.AsyncClient, metric: str) -> None:
    """Ask until it is suspended: while what lingers is noticed, others may be refused at once."""
    numbers = count(LONG)

    async def is_suspended() -> bool:
        return await ask(client, metric, next(numbers)) == SUSPENDED

    await until(is_suspended)


async def test_what_lingers_twice_is_set_aside_and_others_go_on(client, observed, make_metric):
    metric, good = await make_metric(LINGERS), await make_metric("SELECT 1 AS n")
    assert await ask(client, metric, 1) == (200, None)
    assert await ask(client, metric) == (504, "query-timeout")
    await suspend(client, metric)
    for _ in range(2 * PLACES):
        assert await ask(client, metric) == SUSPENDED
        assert (
            await client.get(f"/metrics/{good}", headers={"Cache-Control": "no-cache"})
        ).status_code == 200
    checks = (await client.get("/health/ready")).json()["checks"]
    assert checks["metrics"] == "1 suspended"
    audited = (await client.get(f"/api/v1/audit?target={metric}")).json()["items"]
    assert [entry["action"] for entry in audited] == ["metrics.suspend"]
    told = [each for each in observed if isinstance(each, MetricLingered | StatementSuspended)]
    assert [(type(each), each.metric, each.doing, each.times) for each in told] == [
        (MetricLingered, metric, "run", 1),
        (StatementSuspended, metric, "run", 2),
    ]
    assert {each.replaceable for each in observed if isinstance(each, StatementLingers)} == {PLACES}


async def test_it_is_known_by_its_text_on_every_worker_and_after_a_restart(
    client, clone, make_metric, limits
):
    metric = await make_metric(LINGERS)
    async with serving(limits) as other:
        await suspend(client, metric)
        same = await store_metric(clone, LINGERS)
        for each in (client, other):
            await visible(each, same)
            assert await ask(each, metric) == SUSPENDED
            assert await ask(each, same) == SUSPENDED
    async with serving(limits) as restarted:
        assert await ask(restarted, metric) == SUSPENDED
        tiles = await restarted.post(
            "/metrics/batch", json={"metrics": [{"id": metric, "parameters": {"n": 1}}]}
        )
        assert tiles.json()["results"][0]["problem"]["code"] == "metric-suspended"
        assert (await restarted.get(f"/metrics/{metric}/definition")).status_code == 200


async def test_other_titles_and_parameters_release_nothing_but_other_sql_does(client, clone, make_metric):
    metric = await make_metric(LINGERS)
    await suspend(client, metric)
    await client.patch(f"/metrics/{metric}", json={"title": "Harmless"})
    await client.patch(f"/metrics/{metric}", json={"parameters": {"n": {"type": "integer", "default": 1}}})
    assert await ask(client, metric, 1) == SUSPENDED
    changed = await client.patch(f"/metrics/{metric}", json={"sql": "SELECT :n::int AS n"})
    assert changed.status_code == 200
    assert await ask(client, metric, 1) == (200, None)


async def test_an_operator_resumes_it(client, clone, make_metric):
    metric = await make_metric(LINGERS)
    assert await suspensions.resume(clone, UUID(metric)) is False
    await suspend(client, metric)
    assert await suspensions.resume(clone, UUID(metric)) is True

    async def runs() -> bool:
        return await ask(client, metric, 1) == (200, None)

    await until(runs)
    audited = (await client.get(f"/api/v1/audit?target={metric}&actor=cli")).json()["items"]
    assert [entry["action"] for entry in audited] == ["metrics.resume"]


async def test_callers_who_leave_and_many_at_once_hold_no_place(client, clone, make_metric):
    metric, good = await make_metric(LINGERS), await make_metric("SELECT 1 AS n")
    callers = [asyncio.create_task(ask(client, metric, LONG + n)) for n in range(PLACES)]
    assert {status for status, _ in await asyncio.gather(*callers)} <= {503, 504}
    await suspend(client, metric)

    async def answers() -> bool:
        answer = await client.get(f"/metrics/{good}", headers={"Cache-Control": "no-cache"})
        return answer.status_code == 200

    await until(answers)


async def test_without_a_place_to_write_it_down_this_worker_knows(client, make_metric, monkeypatch):
    metric = await make_metric(LINGERS)
    monkeypatch.setattr(suspensions, "RECORD_S", 0.0)
    await suspend(client, metric)


async def test_one_that_ends_when_it_is_told_is_never_set_aside(client, clone, make_metric):
    metric = await make_metric("SELECT count(*) FROM generate_series(1, 1000000000) WHERE :n::int > 0")
    for _ in range(3):
        assert await ask(client, metric) == (504, "query-timeout")
    assert (await client.get("/health/ready")).json()["checks"] == {
        "database": "ok",
        "migrations": "ok",
        "reader": "ok",
        "listening": "ok",
    }
