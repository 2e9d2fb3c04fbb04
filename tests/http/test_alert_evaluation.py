"""How rules are evaluated: when, at what cost, and by which of several processes."""

import asyncio
import random
import time
from contextlib import AsyncExitStack

import msgspec
import pytest

from service.database.queries import Command, Statement
from service.observe.events import QueryRun
from service.settings import Alerts as AlertSettings
from tests.conftest import serving, store_metric, visible
from tests.http.daily import SQL, Number, alerts, create, in_state, make_daily
from tests.live import watching
from tests.receivers import receiving
from tests.waiting import until


@pytest.fixture
async def daily(clone, monkeypatch):
    return await make_daily(clone, monkeypatch)


async def test_an_alert_runs_no_query_of_its_own(settings, clone, daily):
    seen = []
    async with serving(settings, seen.append) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await daily(("2025-06-01", "Email", 5))
        async with watching(client, f"/metrics/{metric}/events") as stream:
            await next_result(stream)
            rule = await create(client, metric)
            for number in range(2, 8):
                await daily((f"2025-06-0{number}", "Email", 200 if number % 2 else 5))
                await next_result(stream)
                await until(lambda number=number: evaluated(client, (number - 1) // 2))
            runs = [each for each in seen if isinstance(each, QueryRun)]
            assert {each.problem for each in runs} == {None}
            assert len(runs) == 7
        assert (await client.delete(f"/api/v1/alerts/rules/{rule['id']}")).status_code == 204
        assert await alerts(client) == []


async def next_result(stream):
    while (event := await stream.event()).name != "result":
        pass
    return event


async def evaluated(client, number):
    listed = await alerts(client)
    return len(listed) == number


async def test_nobody_asks_while_nothing_changes(settings, clone, daily):
    seen = []
    changed = msgspec.structs.replace(settings, alerts=AlertSettings(interval_s=0.05))
    async with serving(changed, seen.append) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await daily(("2025-06-01", "Email", 500))
        await create(client, metric)
        await in_state(client, "firing")
        clock = await store_metric(
            clone, "SELECT extract(epoch FROM clock_timestamp())::int AS n", fresh_for_s=0
        )
        await visible(client, clock)
        await create(client, clock, column="n", below=0)
        before = len(seen)

        def ran() -> list[str]:
            return [str(each.metric_id) for each in seen[before:] if isinstance(each, QueryRun)]

        await until(lambda: ran().count(clock) >= 5)  # so many intervals have passed
        assert set(ran()) == {clock}


async def test_a_result_that_depends_on_the_clock_is_asked_for_each_interval(settings, clone):
    changed = msgspec.structs.replace(settings, alerts=AlertSettings(interval_s=0.2))
    async with serving(changed) as client:
        sql = "SELECT (extract(epoch FROM clock_timestamp()) > $$LIMIT$$::float8)::int AS n"
        limit = time.time() + 2
        metric = await store_metric(clone, sql.replace("$$LIMIT$$", f"'{limit}'"), fresh_for_s=0)
        await visible(client, metric)
        await create(client, metric, column="n", above=0.5)
        assert [each["state"] for each in await alerts(client)] in ([], ["firing"])
        (alert,) = await in_state(client, "firing")
        assert alert["value"] == 1


async def test_a_metric_that_fails_is_told_at_its_rule_and_recovers(settings, clone, daily):
    changed = msgspec.structs.replace(settings, alerts=AlertSettings(interval_s=0.2))
    async with serving(changed) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await daily(("2025-06-01", "Email", 500))
        rule = await create(client, metric)
        await in_state(client, "firing")
        await clone.write(Command("d", "ALTER TABLE data.daily RENAME COLUMN n TO m"))
        await in_state(client, "stale")
        problem = (await client.get(f"/api/v1/alerts/rules/{rule['id']}")).json()["problem"]
        assert "column" in problem
        await clone.write(Command("d", "ALTER TABLE data.daily RENAME COLUMN m TO n"))
        await in_state(client, "firing")

        async def mended():
            return (await client.get(f"/api/v1/alerts/rules/{rule['id']}")).json()["problem"] is None

        await until(mended)


async def test_restarts_repeat_nothing(settings, clone, daily):
    metric = await store_metric(clone, SQL)
    async with receiving() as receiver:
        async with serving(settings) as client:
            await visible(client, metric)
            await daily(("2025-06-01", "Email", 5))
            await create(client, metric, webhook_url=receiver.url)
            await daily(("2025-06-02", "Email", 500))
            await until(lambda: receiver.events == ["alert.firing"])
        await daily(("2025-06-03", "Email", 5), ("2025-06-04", "Email", 700))
        async with serving(settings) as client:
            await in_state(client, "resolved")
            await in_state(client, "firing")
            await until(lambda: len(receiver.events) == 3)
    assert sorted(receiver.events) == ["alert.firing", "alert.firing", "alert.resolved"]


async def test_of_two_nodes_one_evaluates_and_the_other_takes_over(settings, clone, daily):
    metric = await store_metric(clone, SQL)
    async with receiving() as receiver, AsyncExitStack() as first:
        leader = await first.enter_async_context(serving(settings))
        await until(lambda: holders(clone))
        async with serving(settings) as other:
            await visible(leader, metric)
            await daily(("2025-06-01", "Email", 5))
            await create(leader, metric, webhook_url=receiver.url)
            for number in range(2, 6):
                await daily((f"2025-06-0{number}", "Email", 500 if number % 2 == 0 else 5))
                await in_state(other, *(("resolved", number // 2) if number % 2 else ("firing", 1)))
            await until(lambda: len(receiver.events) == 4)
            assert await holders(clone) == 1
            assert services(leader).alerting.evaluator._topics
            assert not services(other).alerting.evaluator._topics
            await first.aclose()
            await daily(("2025-06-06", "Email", 500))
            await in_state(other, "firing")
            await until(lambda: len(receiver.events) == 5)
    assert sorted(receiver.events) == ["alert.firing"] * 3 + ["alert.resolved"] * 2
    identities = [each.headers["webhook-id"] for each in receiver.requests]
    assert len(set(identities)) == len(identities)


HOLDERS = (
    "SELECT count(*)::int AS n FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE datname = current_database() AND locktype = 'advisory' AND objid = 7382560 AND granted"
)


async def holders(database):
    return (await database.read_one(Statement("h", HOLDERS, Number))).n


async def test_two_evaluations_at_once_store_and_tell_once(settings, clone, daily):
    """The second has no turn, as when a node has lost its session and does not know it."""
    metric = await store_metric(clone, SQL)
    async with receiving() as receiver, serving(settings) as client, serving(settings) as other:
        await visible(client, metric)
        await visible(other, metric)
        await daily(("2025-06-01", "Email", 5))
        await create(client, metric, webhook_url=receiver.url)
        task = asyncio.create_task(services(other).alerting.evaluator.run())
        for number in range(2, 8):
            await daily((f"2025-06-0{number}", "Email", 500 if number % 2 == 0 else 5))
            await in_state(client, *(("resolved", number // 2) if number % 2 else ("firing", 1)))
        await until(lambda: len(receiver.events) >= 6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await in_state(client, "resolved", 3)
    assert sorted(receiver.events) == ["alert.firing"] * 3 + ["alert.resolved"] * 3


def services(client):
    """The parts of a service in this process."""
    return client.service.state.services


async def test_a_soak_of_loads_and_corrections_ends_with_the_alerts_of_the_data(settings, clone, daily):
    """Days come in disorder, are corrected, deleted and loaded again, while the service restarts once."""
    rng = random.Random(7)  # noqa: S311 (a repeatable soak)
    metric = await store_metric(clone, SQL)
    truth = {}

    async def put(*keys, value=None):
        rows = []
        for day, channel in keys:
            truth[day, channel] = value or rng.choice([5, 5, 5, 5, 300])
            rows.append((day, channel, truth[day, channel]))
        await daily(*rows)

    channels = ("Email", "Call", "Fax")
    async with receiving() as receiver:
        for part in range(2):
            async with serving(settings) as client:
                await visible(client, metric)
                if not part:
                    await put(*(("2025-06-01", channel) for channel in channels), value=5)
                    await create(client, metric, webhook_url=receiver.url)
                    await until(lambda: noted(clone))
                for day in range(2 + part * 14, 16 + part * 14):
                    label = f"2025-06-{day:02}"
                    await put(*((label, channel) for channel in channels))
                    late = f"2025-06-{rng.randint(2, day):02}"
                    await put((late, rng.choice(channels)))
                    if rng.random() < 0.3:
                        await clone.write(
                            Command("d", "DELETE FROM data.daily WHERE day = $1::text::date"), label
                        )
                        await daily(*((label, channel, truth[label, channel]) for channel in channels))
                await put(*((f"2025-06-{16 + part * 14:02}", channel) for channel in channels), value=5)
        async with serving(settings) as client:
            await until(lambda: agrees(client, truth, channels), within_s=120)
            await until(lambda: quiet(clone), within_s=120)
            listed = await alerts(client, limit=500)
    per_alert = {}
    for request in receiver.requests:
        per_alert.setdefault(request.json["alert"]["id"], []).append(request.json["event"])
    assert per_alert.keys() <= {each["id"] for each in listed}
    for alert in listed:
        told = per_alert.get(alert["id"], [])
        assert told.count("alert.firing") - told.count("alert.resolved") - told.count("alert.withdrawn") in {
            0,
            -1,
        }


async def noted(database):
    found = await database.read_one(
        Statement("s", "SELECT count(*)::int AS n FROM app.alert_rule WHERE since IS NOT NULL", Number)
    )
    return found.n


async def quiet(database):
    found = await database.read_one(
        Statement("w", "SELECT count(*)::int AS n FROM app.alert_delivery WHERE status = 'waiting'", Number)
    )
    return found.n == 0


async def agrees(client, truth, channels):
    """Whether the resolved alerts are the episodes of the data, and none is open."""
    expected = set()
    for channel in channels:
        before = 5
        for day in sorted({day for day, _ in truth}):
            value = truth[day, channel]
            if value > 100 >= before:
                expected.add((channel, day))
            before = value
    listed = await alerts(client, limit=500)
    found = {(each["series"]["channel"], each["point"]) for each in listed if each["state"] == "resolved"}
    return found == expected and all(each["state"] in {"resolved", "withdrawn"} for each in listed)


async def test_series_told_apart_by_numbers_keep_digits_and_alerts(settings, clone, daily):
    digits = [b'{"rate":0.1000000000000000000000001}', b'{"rate":0.1000000000000000000000002}']
    sql = "SELECT day, 0.1 + length(channel) * 1e-25::numeric AS rate, n FROM daily ORDER BY day, channel"
    async with receiving() as receiver, serving(settings) as client:
        metric = await store_metric(clone, sql)
        await visible(client, metric)
        await daily(("2025-06-01", "A", 500), ("2025-06-01", "BB", 500))
        await create(client, metric, by=["rate"], webhook_url=receiver.url)
        await in_state(client, "firing", 2)
        await daily(("2025-06-02", "A", 5), ("2025-06-02", "BB", 5))
        await in_state(client, "resolved", 2)
        assert len(await alerts(client)) == 2
        listed = (await client.get("/api/v1/alerts")).content
        await until(lambda: len(receiver.requests) == 4)
    for series in digits:
        assert series in listed
        assert sum(series in each.body for each in receiver.requests) == 2


async def test_integers_of_thousands_of_digits_are_evaluated(settings, clone, daily):
    sql = "SELECT day, trunc(10::numeric ^ 5000) AS large, n FROM daily"
    async with serving(settings) as client:
        metric = await store_metric(clone, sql)
        await visible(client, metric)
        await daily(("2025-06-01", "A", 500))
        trial = {"metric_id": metric, "column": "n", "kind": "threshold", "above": 100, "by": ["large"]}
        previewed = await client.post("/api/v1/alerts/rules/preview", json=trial)
        assert f'"large":{10**4000}'[:1000] in previewed.text
        rule = await create(client, metric, by=["large"])
        await until(lambda: one_alert(client, b'"large":1' + b"0" * 5000 + b"}"))
        bands = await client.get(f"/api/v1/alerts/rules/{rule['id']}/bands")
        assert bands.status_code == 200


async def test_labels_of_json_are_kept_whatever_they_hold(settings, clone, daily):
    sql = (
        'SELECT day, n, \'{"a": [1.50, 1e9999999999999999999], "b": "x\\u0000"}\'::json AS nested,'
        " '\"y\\u0000\"'::json AS word, '1e999999'::json AS huge, '2.50'::json AS number FROM daily"
    )
    async with serving(settings) as client:
        metric = await store_metric(clone, sql)
        await visible(client, metric)
        await daily(("2025-06-01", "A", 500))
        await create(client, metric)
        (alert,) = await in_state(client, "firing")
        assert alert["series"] == {
            "nested": '{"a":[1.50,"1e9999999999999999999"],"b":"x\\u0000"}',
            "word": "y\u2400",
            "huge": "1e999999",
            "number": 2.5,
        }
        await daily(("2025-06-02", "A", 5))
        await in_state(client, "resolved")
        assert len(await alerts(client)) == 1


async def one_alert(client, text):
    answer = await client.get("/api/v1/alerts")
    assert answer.status_code == 200
    return text in answer.content
