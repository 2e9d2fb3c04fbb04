"""Many callers and tiles share one run, and nobody waits for what others are slow at."""

import asyncio

import pytest

from service.metrics.batch import SIDE_BY_SIDE
from tests.http.results.asking import COUNT, FACT, ask, count, fresh, status
from tests.waiting import until


async def test_a_thousand_callers_of_a_cold_metric_cost_one_execution(service, make_metric, owner):
    sql = "SELECT count(*) AS n, pg_sleep(0.3) IS NULL, clock_timestamp() AS t FROM metrics"
    metric = await make_metric(sql, trusted=True)
    answers = await asyncio.gather(*(ask(service.fast, metric) for _ in range(1000)))
    assert len({answer.content for answer in answers}) == 1
    assert sorted({status(answer) for answer in answers}) == ["tally; fwd=miss", "tally; fwd=miss; collapsed"]


async def test_an_error_is_the_same_for_all_who_wait(service, make_metric):
    metric = await make_metric("SELECT 1 / count(*) AS n FROM metrics")
    answers = await asyncio.gather(*(service.fast.get(f"/metrics/{metric}") for _ in range(50)))
    assert {(answer.status_code, answer.json()["sqlstate"]) for answer in answers} == {(422, "22012")}
    assert len({answer.json()["request_id"] for answer in answers}) == 50


async def test_an_error_ends_with_the_data_that_made_it(service, make_metric, owner):
    metric = await make_metric("SELECT 1 / count(*) AS n FROM metrics")
    assert (await service.fast.get(f"/metrics/{metric}")).status_code == 422
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    assert count(await ask(service.fast, metric)) == 1


async def test_a_dashboard_is_one_answer_with_one_tag(service, make_metric, owner):
    tiles = [await make_metric(COUNT), await make_metric("SELECT 1 AS n")]
    places = [{"i": tile, "x": 0, "y": 0, "w": 1, "h": 1} for tile in tiles]
    await service.fast.put("/dashboards/default/layouts", json={"lg": places})
    address = "/api/v1/dashboards/default/data"
    first, second = [await service.fast.get(address) for _ in range(2)]
    assert (status(first), status(second)) == ("tally; fwd=miss", "tally; hit")
    assert first.content == second.content
    assert service.hits == 1
    tag = {"if-none-match": second.headers["etag"]}
    assert (await service.fast.get(address, headers=tag)).status_code == 304
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    await fresh(service, tiles[0])
    changed = await service.fast.get(address, headers=tag)
    assert {tile["result"]["records"][0]["n"] for tile in changed.json()["results"]} == {1}
    assert status(await service.fast.get(address)) == "tally; hit"


async def test_a_dashboard_with_a_failing_tile_is_not_kept(service, make_metric):
    tile = await make_metric("SELECT 1 / count(*) AS n FROM metrics")
    await service.fast.put(
        "/dashboards/default/layouts", json={"lg": [{"i": tile, "x": 0, "y": 0, "w": 1, "h": 1}]}
    )
    for _ in range(2):
        answer = await service.fast.get("/dashboards/default/data")
        assert answer.json()["results"][0]["status"] == 422
    assert service.hits == 0


async def test_a_batch_shares_what_is_held(service, make_metric):
    metric = await make_metric("SELECT clock_timestamp() AS t")
    single = await ask(service.fast, metric)
    asked = {"metrics": [{"id": metric, "parameters": {}}] * 2}
    results = (await service.fast.post("/metrics/batch", json=asked)).json()["results"]
    assert [tile["etag"] for tile in results] == [single.headers["etag"]] * 2
    assert [tile["result"] for tile in results] == [single.json()] * 2


@pytest.fixture
async def slow_tiles(service, make_metric, monkeypatch):
    """Tiles that take longer than their request may, more than run side by side, ready to run."""
    slow = [await make_metric(f"SELECT pg_sleep(4), {n} AS n", trusted=True) for n in range(SIDE_BY_SIDE + 1)]
    for tile in slow:
        assert (await service.fast.get(f"/metrics/{tile}/definition")).status_code == 200
    monkeypatch.setattr(service.app.state.services.batcher, "_deadline_s", 0.5)
    return slow


async def batched(service, tiles):
    asked = {"metrics": [{"id": tile} for tile in tiles]}
    return await service.fast.post("/metrics/batch", json=asked)


async def on_a_dashboard(service, _tiles):
    return await service.fast.get("/dashboards/default/data")


@pytest.mark.parametrize("asked", [batched, on_a_dashboard])
async def test_what_is_held_does_not_wait_for_slow_tiles(service, make_metric, slow_tiles, asked):
    held = await make_metric("SELECT 1 AS n")
    tiles = [*slow_tiles, held]
    places = [{"i": tile, "x": 0, "y": y, "w": 1, "h": 1} for y, tile in enumerate(tiles)]
    await service.fast.put("/dashboards/default/layouts", json={"lg": places})
    await ask(service.fast, held)
    answer = await asked(service, tiles)
    assert [tile["status"] for tile in answer.json()["results"]] == [504] * len(slow_tiles) + [200]


async def test_what_is_held_and_old_does_not_wait_for_slow_tiles(service, make_metric, slow_tiles, owner):
    held = await make_metric(COUNT)
    await ask(service.fast, held)
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    answer = await batched(service, [*slow_tiles, held])
    assert [tile["status"] for tile in answer.json()["results"]] == [504] * len(slow_tiles) + [200]


async def test_the_sql_of_a_caller_who_left_is_cancelled(service, make_metric, owner):
    metric = await make_metric("SELECT pg_sleep(4), count(*) AS n FROM metrics", trusted=True)
    callers = [asyncio.create_task(ask(service.fast, metric)) for _ in range(3)]
    await until(lambda: running_sleeps(owner))
    for caller in callers[:2]:
        caller.cancel()
    await asyncio.gather(*callers[:2], return_exceptions=True)
    assert await running_sleeps(owner) == 1
    callers[2].cancel()
    await until(lambda: none_sleeps(owner))


async def running_sleeps(owner):
    return await owner.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )


async def none_sleeps(owner):
    return await running_sleeps(owner) == 0


async def test_a_closed_connection_counts_as_leaving(service, make_metric, owner):
    """As the server tells it: `http.disconnect` while the answer is awaited."""
    metric = await make_metric("SELECT pg_sleep(4), count(*) AS n FROM metrics", trusted=True)
    leave, sent = asyncio.Event(), []

    async def receive():
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/api/v1/metrics/{metric}",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }
    caller = asyncio.create_task(service.middleware(scope, receive, send))
    await until(lambda: running_sleeps(owner))
    leave.set()
    await caller
    await until(lambda: none_sleeps(owner))
    assert sent == []
