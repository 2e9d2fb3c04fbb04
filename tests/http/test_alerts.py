"""Alerts from a commit to the receiver, on the whole service."""

import asyncio
import base64
import hashlib
import hmac
import random
import time
from contextlib import AsyncExitStack

import msgspec
import pytest

from service.alerts import store
from service.database.queries import Command, Statement
from service.observe.events import AlertChanged, QueryRun
from service.settings import Alerts as AlertSettings
from tests.conftest import serving, store_metric, visible
from tests.live import conversing, nothing_more, watching
from tests.receivers import receiving
from tests.waiting import until


class Number(msgspec.Struct):
    n: int


TABLE = Command("t", "CREATE TABLE data.daily (day date, channel text, n bigint, PRIMARY KEY (day, channel))")
READ = Command("r", "GRANT SELECT ON data.daily TO PUBLIC")
WATCH = Command("w", "SELECT app.watch('data.daily')")
PUT = Command(
    "p",
    "INSERT INTO data.daily VALUES ($1::text::date, $2, $3)"
    " ON CONFLICT (day, channel) DO UPDATE SET n = excluded.n",
)
SQL = "SELECT day, channel, n FROM daily ORDER BY day, channel"


@pytest.fixture
async def daily(clone):
    for each in (TABLE, READ, WATCH):
        await clone.write(each)

    async def put(*rows):
        async with clone.transaction() as tx:
            for day, channel, n in rows:
                await tx.write(PUT, day, channel, n)

    return put


@pytest.fixture
async def metric(daily, client, make_metric):
    return await make_metric(SQL)


async def create(client, metric, **fields):
    body = {"name": "Many", "metric_id": metric, "column": "n", "kind": "threshold", "above": 100} | fields
    answer = await client.post("/api/v1/alerts/rules", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def alerts(client, **query):
    answer = await client.get("/api/v1/alerts", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def in_state(client, state, number=1):
    async def found():
        listed = await alerts(client, state=[state])
        return listed if len(listed) == number else None

    return await until(found)


async def test_a_commit_makes_an_alert_that_is_told_and_signed(client, daily, metric):
    await daily(("2025-06-01", "Email", 5), ("2025-06-01", "Call", 7))
    async with receiving() as receiver:
        rule = await create(client, metric, by=["channel"], webhook_url=receiver.url)
        assert rule["webhook_secret"].startswith("whsec_")
        await daily(("2025-06-02", "Email", 5), ("2025-06-02", "Call", 107))
        (alert,) = await in_state(client, "firing")
        assert alert["series"] == {"channel": "Call"}
        assert (alert["point"], alert["value"], alert["expected"]) == ("2025-06-02", 107, 100)
        await until(lambda: receiver.requests)
        await daily(("2025-06-03", "Email", 5), ("2025-06-03", "Call", 7))
        await in_state(client, "resolved")
        await until(lambda: receiver.events == ["alert.firing", "alert.resolved"])
        (request, _) = receiver.requests
    key = base64.b64decode(rule["webhook_secret"].removeprefix("whsec_"))
    signed = (
        f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    )
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert request.headers["ce-type"] == "tally.alert.firing"
    assert request.headers["ce-id"] == request.headers["webhook-id"]
    assert request.json["text"] == "Alert: Many · channel Call · 2025-06-02 · n 107 (bound 100)"
    assert "webhook_secret" not in (await client.get(f"/api/v1/alerts/rules/{rule['id']}")).json()


async def test_a_correction_withdraws_an_alert_and_its_return_reopens_it(client, daily, metric):
    async with receiving() as receiver:
        await daily(("2025-06-01", "Email", 5))
        await create(client, metric, webhook_url=receiver.url)
        await daily(("2025-06-02", "Email", 500))
        (alert,) = await in_state(client, "firing")
        await daily(("2025-06-02", "Email", 50))
        assert [each["id"] for each in await in_state(client, "withdrawn")] == [alert["id"]]
        await daily(("2025-06-02", "Email", 400))
        assert [each["id"] for each in await in_state(client, "firing")] == [alert["id"]]
        await until(lambda: receiver.events == ["alert.firing", "alert.withdrawn", "alert.firing"])


async def test_the_history_of_a_rule_is_bounded_and_what_is_forgotten_makes_no_alert_again(
    settings, clone, daily, monkeypatch
):
    monkeypatch.setattr(store, "MOST_CLOSED", 3)
    seen = []

    async def all_closed():
        return not await alerts(client, state=["firing"])

    def told():
        return len([each for each in seen if isinstance(each, AlertChanged)])

    async with serving(settings, seen.append) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await daily(("2025-06-01", "Email", 5))
        async with receiving() as receiver:
            await create(client, metric, webhook_url=receiver.url)
            for day in range(2, 14, 2):
                await daily((f"2025-06-{day:02}", "Email", 500 + day))
                await in_state(client, "firing")
                await daily((f"2025-06-{day + 1:02}", "Email", 5))
                await until(all_closed)
            kept = [each["point"] for each in await alerts(client)]
            assert kept == ["2025-06-12", "2025-06-10", "2025-06-08"]
            delivered = await client.get("/api/v1/alerts/deliveries", params={"limit": 100})
            assert len(delivered.json()["items"]) == 6
            await until(lambda: told() == 12)
            runs = sum(isinstance(each, QueryRun) for each in seen)
            await daily(("2025-06-14", "Email", 6))  # judged again, with all the days before
            await until(lambda: sum(isinstance(each, QueryRun) for each in seen) > runs)
            await daily(("2025-06-15", "Email", 500))
            await in_state(client, "firing")
            assert [each["point"] for each in await alerts(client)] == ["2025-06-15", *kept]
            await until(lambda: told() == 13)


async def test_an_alert_that_comes_and_goes_keeps_its_last_messages(settings, clone, daily, monkeypatch):
    monkeypatch.setattr(store, "MOST_ENDED", 2)
    async with serving(settings) as client, receiving() as receiver:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await daily(("2025-06-01", "Email", 5))
        await create(client, metric, webhook_url=receiver.url)
        for turn in range(4):
            await daily(("2025-06-02", "Email", 500 + turn))
            await in_state(client, "firing")
            await until(lambda turn=turn: len(receiver.events) == 2 * turn + 1)
            await daily(("2025-06-02", "Email", 50))
            await in_state(client, "withdrawn")
            await until(lambda turn=turn: len(receiver.events) == 2 * turn + 2)
        delivered = await client.get("/api/v1/alerts/deliveries", params={"limit": 100})
        assert 3 <= len(delivered.json()["items"]) <= 4  # two that had ended, and those that were sent after
        scraped = (await client.get("/internal/prometheus")).text
    assert 'tally_alerts_total{state="firing"} 4' in scraped
    assert 'tally_alerts_total{state="withdrawn"} 4' in scraped
    assert 'tally_alert_messages_total{kind="webhook",status="delivered"} 8' in scraped


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


async def test_a_pending_alert_fires_by_the_clock_alone(client, daily, metric):
    await daily(("2025-06-01", "Email", 500))
    await create(client, metric, for_s=1.5)
    (alert,) = await in_state(client, "pending")
    assert alert["fired_at"] is None
    await in_state(client, "firing")


async def test_acknowledging_is_audited_and_ends_with_the_alert(client, daily, metric):
    await daily(("2025-06-01", "Email", 500))
    await create(client, metric)
    (alert,) = await in_state(client, "firing")
    answer = await client.post(f"/api/v1/alerts/{alert['id']}/acknowledge")
    assert (answer.status_code, answer.json()["state"], answer.json()["acknowledged_by"]) == (
        200, "acknowledged", "local",
    )  # fmt: skip
    assert (await client.post(f"/api/v1/alerts/{alert['id']}/acknowledge")).status_code == 200
    (entry,) = (await client.get("/api/v1/audit", params={"target": alert["id"]})).json()["items"]
    assert entry["action"] == "alerts.acknowledge"
    await daily(("2025-06-02", "Email", 600))
    await daily(("2025-06-03", "Email", 6))
    await in_state(client, "resolved")
    answer = await client.post(f"/api/v1/alerts/{alert['id']}/acknowledge")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_rule_that_is_changed_begins_anew(client, daily, metric):
    await daily(("2025-06-01", "Email", 500))
    rule = await create(client, metric)
    await in_state(client, "firing")
    path = f"/api/v1/alerts/rules/{rule['id']}"
    assert (await client.patch(path, json={"above": 1000})).json()["above"] == 1000
    await in_state(client, "withdrawn")
    assert (await client.patch(path, json={"above": 400})).status_code == 200
    await in_state(client, "firing")


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


async def test_streams_and_sockets_tell_how_many_alerts_are_open(client, daily, metric):
    await daily(("2025-06-01", "Email", 5), ("2025-06-01", "Call", 5))
    await create(client, metric)
    async with watching(client, f"/metrics/{metric}/events") as stream, conversing(client) as socket:
        assert (await stream.event()).name == "result"
        await socket.say(type="subscribe", id=metric)
        assert (await socket.hear())["type"] == "result"
        await daily(("2025-06-02", "Email", 500), ("2025-06-02", "Call", 500))
        assert await alert_of(stream) == {"open": 2}
        assert (await hear_alert(socket))["open"] == 2
        async with watching(client, f"/events?ids={metric}") as late:
            assert (await late.event()).name == "result"
            assert await alert_of(late) == {"id": metric, "open": 2}
        await daily(("2025-06-03", "Email", 5), ("2025-06-03", "Call", 5))
        assert await alert_of(stream) == {"open": 0}
        assert (await hear_alert(socket))["open"] == 0


async def alert_of(stream):
    while (event := await stream.event()).name != "alert":
        pass
    return event.data


async def hear_alert(socket):
    while (message := await socket.hear())["type"] != "alert":
        pass
    return message


async def test_who_may_not_read_alerts_hears_of_none(opened, token, guarded_database):
    metric = await store_metric(guarded_database, "SELECT 500 AS n")
    async with AsyncExitStack() as stack:
        client = await opened()
        await visible_to(client, metric, token("metrics:read"))
        body = {"name": "Many", "metric_id": metric, "column": "n", "kind": "threshold", "above": 100}
        made = await client.post("/api/v1/alerts/rules", json=body, headers=token("alerts:write"))
        assert made.status_code == 201
        path = f"/metrics/{metric}/events"
        both = await stack.enter_async_context(watching(client, path, **token("metrics:read", "alerts:read")))
        assert await alert_of(both) == {"open": 1}
        one = await stack.enter_async_context(watching(client, path, **token("metrics:read")))
        assert (await one.event()).name == "result"
        assert await nothing_more(one) is None


async def visible_to(client, metric, headers):
    async def found():
        return (await client.get(f"/metrics/{metric}/versions", headers=headers)).status_code == 200

    await until(found)
