"""Alerts from a commit to the receiver, on the whole service."""

import base64
import hashlib
import hmac
from contextlib import AsyncExitStack

import pytest

from service.alerts import store
from service.observe.events import AlertChanged, QueryRun
from tests.conftest import serving, store_metric, visible
from tests.http.daily import SQL, alerts, create, in_state, make_daily
from tests.live import conversing, nothing_more, watching
from tests.receivers import receiving
from tests.waiting import until


@pytest.fixture
async def daily(clone, monkeypatch):
    return await make_daily(clone, monkeypatch)


@pytest.fixture
async def metric(daily, client, make_metric):
    return await make_metric(SQL)


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
