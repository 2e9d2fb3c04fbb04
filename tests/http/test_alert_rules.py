"""Alert rules over HTTP: who may, what is refused and why, what a preview shows, what is recorded."""

from datetime import date, timedelta
from uuid import uuid4

import msgspec
import pytest

from service.alerts import store
from service.settings import Alerts, Server
from tests.conftest import serving, store_metric, visible
from tests.series import counts

WEEKS = "SELECT day::date AS day, channel, n FROM (VALUES {rows}) AS t (day, channel, n) ORDER BY day"
SQL = (
    "SELECT date '2025-06-01' + i AS day, 'Email' AS channel, i * 10 AS n, 'x' AS word "
    "FROM generate_series(0, 9) i"
)


@pytest.fixture
async def metric(shared_service):
    (metric_id,) = await shared_service.store(SQL)
    return metric_id


@pytest.fixture
def client(shared_service):
    return shared_service.client


def body(metric, **fields):
    return {"name": "Rule", "metric_id": metric, "column": "n", "kind": "threshold", "above": 45} | fields


async def post(client, metric, **fields):
    return await client.post("/api/v1/alerts/rules", json=body(metric, **fields))


async def test_a_rule_is_created_read_changed_listed_and_deleted(client, metric):
    made = await post(client, metric, webhook_url="http://127.0.0.1:9/hook", by=["channel"])
    assert made.status_code == 201
    rule = made.json()
    path = made.headers["location"]
    assert path == f"/api/v1/alerts/rules/{rule['id']}"
    secret = rule.pop("webhook_secret")
    assert secret.startswith("whsec_")
    assert made.headers["cache-control"] == "no-store"
    assert (await client.get(path)).json() == rule
    changed = (await client.patch(path, json={"name": "Other", "sensitivity": 5, "for_s": 60})).json()
    assert (changed["name"], changed["for_s"], changed["above"]) == ("Other", 60, 45)
    assert changed["webhook_secret"] is None
    listed = (await client.get("/api/v1/alerts/rules", params={"metric_id": metric})).json()
    assert [each["name"] for each in listed["items"]] == ["Other"]
    assert secret not in str(listed)
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.delete(path)).status_code == 404
    audited = (await client.get("/api/v1/audit", params={"target": rule["id"]})).json()["items"]
    actions = [each["action"] for each in audited]
    assert actions == ["alert_rules.delete", "alert_rules.change", "alert_rules.create"]


async def test_numbers_of_parameters_stay_numbers_with_all_digits(client, shared_service):
    (metric_id,) = await shared_service.store(f"SELECT * FROM ({SQL}) AS t WHERE :x::numeric > 0")
    sent = '{"x":12345678901234567890.125}'
    given = msgspec.json.encode(body(metric_id, parameters=msgspec.Raw(sent.encode())))
    made = await client.post(
        "/api/v1/alerts/rules", content=given, headers={"Content-Type": "application/json"}
    )
    assert f'"parameters":{sent}' in made.text
    path = made.headers["location"]
    assert f'"parameters":{sent}' in (await client.get(path)).text
    assert f'"parameters":{sent}' in (await client.patch(path, json={"name": "Other"})).text


async def test_the_first_webhook_of_a_rule_gets_a_secret(client, metric):
    rule = (await post(client, metric)).json()
    assert rule["webhook_secret"] is None
    path = f"/api/v1/alerts/rules/{rule['id']}"
    first = (await client.patch(path, json={"webhook_url": "http://127.0.0.1:9/"})).json()
    assert first["webhook_secret"].startswith("whsec_")
    second = (await client.patch(path, json={"webhook_url": "http://127.0.0.1:8/"})).json()
    assert second["webhook_secret"] is None


async def test_rules_are_paged_oldest_first(client, shared_service):
    (metric_id,) = await shared_service.store(SQL)
    names = [f"Rule {number}" for number in range(5)]
    for name in names:
        assert (await post(client, metric_id, name=name)).status_code == 201
    found, cursor = [], None
    while True:
        query = {"metric_id": metric_id, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/v1/alerts/rules", params=query)).json()
        found += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == names


WRONG = [
    ({"column": "m"}, "column", "it has day, channel, n, word"),
    ({"column": "word"}, "column", "not a number"),
    ({"by": ["m"]}, "by", "no column 'm'"),
    ({"by": ["channel", "channel"]}, "by", "twice"),
    ({"by": ["n"]}, "column", "also in `by`"),
    ({"at": "when"}, "at", "no column 'when'"),
    ({"above": None}, "above", "needs `above`"),
    ({"change": 0.5}, "change", "kind `change`"),
    ({"above": 1, "below": 2}, "below", "larger"),
    ({"resolve": 100}, "resolve", "usual side"),
    ({"kind": "change", "above": None}, "change", "fraction"),
    ({"kind": "change", "above": -1}, "above", "larger than 0"),
    ({"kind": "change", "resolve": 50}, "resolve", "from 0"),
    ({"kind": "anomaly"}, "above", "set `sensitivity`"),
    ({"kind": "anomaly", "above": None, "resolve": 6}, "resolve", "at most"),
    ({"parameters": {"nope": 1}}, "nope", ""),
    ({"email": ["ana@example.org"]}, "email", "SMTP_URL"),
    ({"webhook_url": "ftp://example.org"}, "webhook_url", "no http"),
    ({"webhook_url": "http://[::1"}, "webhook_url", "no address"),
]


@pytest.mark.parametrize(("fields", "field", "message"), WRONG, ids=[str(each[0]) for each in WRONG])
async def test_what_does_not_fit_is_refused_by_name(client, metric, fields, field, message):
    answer = await post(client, metric, **fields)
    assert answer.status_code == 422, answer.text
    (error, *_) = answer.json()["errors"]
    assert error["field"] == field
    assert message in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "guess"},
        {"sensitivity": 0},
        {"sensitivity": "4"},
        {"for_s": -1},
        {"name": ""},
        {"unknown": 1},
        {"by": "channel"},
        {"above": 1e301},
        {"holidays": ["2025-02-30"]},
        {"email": ["no mailbox\r\nBcc: x@y.org"]},
        {"metric_id": "x"},
    ],
    ids=str,
)
async def test_malformed_fields_are_refused(client, metric, fields):
    answer = await post(client, metric, **fields)
    assert answer.status_code == 422, answer.text


async def test_unknown_ids_are_404_and_malformed_ones_422(client, metric):
    assert (await post(client, str(uuid4()))).status_code == 404
    for path in ("/api/v1/alerts/{}", "/api/v1/alerts/rules/{}", "/api/v1/alerts/rules/{}/bands"):
        assert (await client.get(path.format(uuid4()))).status_code == 404
        assert (await client.get(path.format("x"))).status_code == 422
    assert (await client.post(f"/api/v1/alerts/{uuid4()}/acknowledge")).status_code == 404
    assert (await client.post("/api/v1/alerts/deliveries/msg_x/replay")).status_code == 404
    for query in ({"state": "odd"}, {"rule_id": "x"}, {"cursor": "x"}, {"unknown": "1"}, {"limit": "0"}):
        assert (await client.get("/api/v1/alerts", params=query)).status_code == 422, query


async def test_a_change_metric_without_times_is_refused(client, shared_service):
    (single,) = await shared_service.store("SELECT 5 AS n")
    answer = await post(client, single, kind="change", above=0.5)
    assert answer.json()["errors"][0]["field"] == "at"
    assert (await post(client, single)).status_code == 201


async def test_a_preview_lists_what_would_have_fired(client, metric):
    answer = await client.post("/api/v1/alerts/rules/preview", json=body(metric))
    assert answer.json() == {
        "points": 10,
        "alerts": [
            {
                "series": {"channel": "Email", "word": "x"},
                "point": "2025-06-06",
                "value": 50.0,
                "expected": 45.0,
            }
        ],
    }
    assert (await client.get("/api/v1/alerts/rules", params={"metric_id": metric})).json()["items"] == []
    trial = body(metric)
    del trial["name"]
    trial |= {"kind": "change", "above": 0.9}
    found = (await client.post("/api/v1/alerts/rules/preview", json=trial)).json()["alerts"]
    assert [each["point"] for each in found] == ["2025-06-02"]


async def test_a_preview_of_an_anomaly_finds_the_spike_of_a_series(client, shared_service):
    made = counts("preview", 40, days=120, faults={100: "spike"})
    quiet = counts("preview quiet", 40, days=120)
    rows = [
        f"('{point.at.date()}', '{channel}', {int(point.value)})"
        for channel, series in (("Email", made.points), ("Call", quiet.points))
        for point in series
    ]
    (metric_id,) = await shared_service.store(WEEKS.format(rows=", ".join(rows)))
    trial = body(metric_id, kind="anomaly", above=None)
    answer = (await client.post("/api/v1/alerts/rules/preview", json=trial)).json()
    spike = made.points[100]
    assert [(each["series"]["channel"], each["point"]) for each in answer["alerts"]] == [
        ("Email", str(spike.at.date()))
    ]
    assert answer["points"] == 2 * (120 - 21)
    rule = (await post(client, metric_id, kind="anomaly", above=None)).json()
    bands = (await client.get(f"/api/v1/alerts/rules/{rule['id']}/bands")).json()
    by_channel = {each["series"]["channel"]: each["points"] for each in bands["series"]}
    unusual = [each["point"] for each in by_channel["Email"] if each["unusual"]]
    assert unusual == [str(spike.at.date())]
    assert by_channel["Email"][100]["high"] < spike.value
    assert by_channel["Email"][0]["low"] is None
    assert [each for each in by_channel["Call"] if each["unusual"]] == []


async def test_a_preview_waits_as_long_as_the_rule_says(client, metric):
    begin = date(2025, 6, 1)
    rows = [f"('{begin + timedelta(days=day)}', 'A', {n})" for day, n in enumerate([1, 9, 1, 9, 9, 9, 1, 9])]
    (metric_id,) = await metric_of(client, rows)
    trial = body(metric_id, above=5, for_s=2 * 86400)
    found = (await client.post("/api/v1/alerts/rules/preview", json=trial)).json()["alerts"]
    assert [each["point"] for each in found] == ["2025-06-04"]


async def metric_of(client, rows):
    answer = await client.post("/api/v1/metrics", json={"sql": WEEKS.format(rows=", ".join(rows))})
    return [answer.json()["id"]]


async def test_several_rows_for_a_point_are_a_422_of_the_preview(client, metric):
    (metric_id,) = await metric_of(client, ["('2025-06-01', 'A', 1)", "('2025-06-01', 'B', 2)"])
    answer = await client.post("/api/v1/alerts/rules/preview", json=body(metric_id, by=[]))
    assert answer.status_code == 422
    assert "name the columns that tell them apart in `by`" in answer.json()["detail"]


async def test_who_may(visitor, token, guarded_database):
    metric_id = await store_metric(guarded_database, SQL)
    read, write, other = token("alerts:read"), token("alerts:write"), token("metrics:read")
    rules = "/api/v1/alerts/rules"
    assert (await visitor.get(rules)).status_code == 401
    assert (await visitor.get(rules, headers=other)).status_code == 403
    assert (await visitor.get(rules, headers=read)).status_code == 200
    assert (await visitor.get("/api/v1/alerts", headers=read)).status_code == 200
    assert (await visitor.get("/api/v1/alerts/deliveries", headers=read)).status_code == 200
    assert (await visitor.post(rules, json=body(metric_id), headers=read)).status_code == 403
    assert (await visitor.post(f"/api/v1/alerts/{uuid4()}/acknowledge", headers=read)).status_code == 403
    assert (await visitor.post("/api/v1/alerts/deliveries/m/replay", headers=read)).status_code == 403
    assert (await visitor.post(f"{rules}/preview", json=body(uuid4().hex), headers=read)).status_code == 404
    assert (await visitor.delete(f"{rules}/{uuid4()}", headers=write)).status_code == 404


PRIVATE = ("http://127.0.0.1/", "http://localhost/", "http://10.1.1.1/", "http://0x7f.1/", "http://[::1]/")


async def test_private_webhooks_are_refused_unless_they_are_allowed(settings, clone):
    metric_id = await store_metric(clone, SQL)
    closed = msgspec.structs.replace(settings, server=Server(host="0.0.0.0"))  # noqa: S104 (no server is started)
    async with serving(closed) as client:
        await visible(client, metric_id)
        for url in PRIVATE:
            answer = await post(client, metric_id, webhook_url=url)
            assert answer.status_code == 422, url
            assert "WEBHOOK_PRIVATE=on" in answer.text
        assert (await post(client, metric_id, webhook_url="https://hooks.example.org/x")).status_code == 201
    async with serving(msgspec.structs.replace(closed, alerts=Alerts(webhook_private="on"))) as client:
        await visible(client, metric_id)
        for url in PRIVATE:
            assert (await post(client, metric_id, webhook_url=url)).status_code == 201, url


async def test_mail_may_be_asked_for_where_there_is_a_server(settings, clone):
    metric_id = await store_metric(clone, SQL)
    mail = Alerts(smtp_url="smtp://127.0.0.1:1", smtp_from="tally@example.org")
    async with serving(msgspec.structs.replace(settings, alerts=mail)) as client:
        await visible(client, metric_id)
        answer = await post(client, metric_id, email=["ana@example.org"])
        assert answer.json()["email"] == ["ana@example.org"]


async def test_rules_go_with_their_metric(client, metric):
    rule = (await post(client, metric)).json()
    assert (await client.delete(f"/api/v1/metrics/{metric}")).status_code == 204
    assert (await client.get(f"/api/v1/alerts/rules/{rule['id']}")).status_code == 404


async def test_there_is_a_most_of_rules(client, metric, monkeypatch):
    monkeypatch.setattr(store, "MOST_RULES", 0)
    answer = await post(client, metric)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
