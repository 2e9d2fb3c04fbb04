"""Row-level security over HTTP: every way to a result shows a caller their own rows, whoever asked before."""

from uuid import uuid4

import msgspec
import pytest

from service.auth.issuer import Issuer, KeyFile
from service.database.gateway import open_database
from service.database.queries import Command
from service.errors import Busy
from service.metrics.execute import Executor
from service.settings import Auth, Settings
from tests.conftest import _cloned, held, serving

SET_UP = """
CREATE TABLE data.sales (owner text, day date, amount int);
INSERT INTO data.sales VALUES ('ann', '2025-06-01', 1), ('ann', '2025-06-02', 2), ('bob', '2025-06-01', 40);
ALTER TABLE data.sales ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON data.sales
    USING (owner = current_setting('request.claims', true)::json ->> 'sub');
GRANT SELECT ON data.sales TO PUBLIC;
"""
METRICS = {
    "a table": "SELECT sum(amount) AS n FROM sales",
    "a subquery": "SELECT n FROM (SELECT sum(amount) AS n FROM sales) AS inner_query",
    "a join with itself": "SELECT sum(a.amount) AS n FROM sales AS a JOIN sales AS b USING (owner, day)",
    "a window": "SELECT sum(amount) AS n FROM sales WHERE day BETWEEN '2025-01-01' AND '2025-12-31'",
    "the claims themselves": (
        "SELECT CASE current_setting('request.claims', true)::json ->> 'sub'"
        " WHEN 'ann' THEN 3 WHEN 'bob' THEN 40 END AS n"
    ),
}
IDS = {name: uuid4() for name in METRICS}
EXPECTED = {"ann": 3, "bob": 40}


@pytest.fixture(scope="module")
async def sales(server, template, tmp_path_factory):
    """Settings of a service over somebody's tables with policies of their own, and metrics on them."""
    folder = tmp_path_factory.mktemp("rights")
    async with held(_cloned(server, template)) as addresses, open_database(addresses.url) as database:
        for statement in SET_UP.split(";\n")[:-1]:
            await database.write(Command("set_up", statement))
        for name, sql in METRICS.items():
            await database.write(
                Command("q", "INSERT INTO catalog.query (id, sql) VALUES ($1, $2)"), name, sql
            )
            insert = "INSERT INTO catalog.metric (id, query_id, title) VALUES ($1, $2, $2)"
            await database.write(Command("m", insert), IDS[name], name)
            place = (
                "INSERT INTO catalog.layout_item (dashboard_id, metric_id, breakpoint, x, y, w, h)"
                " VALUES ('default', $1, 'lg', 0, 0, 1, 1)"
            )
            await database.write(Command("l", place), IDS[name])
        yield Settings(database=msgspec.structs.replace(addresses, data_dir=folder), auth=Auth())


@pytest.fixture
def as_caller(sales):
    issuer = Issuer(sales.public_url, KeyFile(sales.database.data_dir))
    tokens = {name: issuer.sign(name, ["metrics:read"]) for name in (*EXPECTED, "eve")}
    return lambda name: {"Authorization": f"Bearer {tokens[name]}"}


@pytest.fixture
async def client(sales):
    async with serving(sales) as opened:
        yield opened


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("order", [("ann", "bob", "ann"), ("bob", "ann", "bob")], ids=",".join)
async def test_a_result_is_never_that_of_the_caller_before(client, as_caller, name, order):
    tags = {}
    for who in order:
        answer = await client.get(f"/api/v1/metrics/{IDS[name]}", headers=as_caller(who))
        assert answer.json()["records"] == [{"n": EXPECTED[who]}]
        tags[who] = answer.headers["ETag"]
    assert tags["ann"] != tags["bob"]
    stale = as_caller("bob") | {"If-None-Match": tags["ann"]}
    assert (await client.get(f"/api/v1/metrics/{IDS[name]}", headers=stale)).status_code == 200


async def test_a_caller_without_rows_sees_none(client, as_caller):
    for who in ("ann", "eve"):
        answer = await client.get(f"/api/v1/metrics/{IDS['a table']}", headers=as_caller(who))
    assert answer.json()["records"] == [{"n": None}]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_other_formats_show_no_more(client, as_caller, form):
    for who, total in EXPECTED.items():
        answer = await client.get(
            f"/api/v1/metrics/{IDS['a table']}", params={"format": form}, headers=as_caller(who)
        )
        assert str(total) in answer.text
        assert all(str(other) not in answer.text for name, other in EXPECTED.items() if name != who)


async def test_a_batch_and_a_dashboard_show_no_more(client, as_caller):
    wanted = {"metrics": [{"id": str(metric_id), "parameters": {}} for metric_id in IDS.values()]}
    for who, total in [*EXPECTED.items(), *EXPECTED.items()]:
        batch = await client.post("/api/v1/metrics/batch", json=wanted, headers=as_caller(who))
        dashboard = await client.get("/api/v1/dashboards/default/data", headers=as_caller(who))
        for answer in (batch, dashboard):
            found = [tile["result"]["records"] for tile in answer.json()["results"]]
            assert found == [[{"n": total}]] * len(IDS)


async def test_a_tile_that_is_understood_a_moment_later_is_its_callers_own(client, as_caller, monkeypatch):
    """What a dashboard may be shared as is told by its parts, not by what was known before they were made."""
    prepare, failing = Executor.prepare, iter(IDS)

    async def flaky(executor, metric):
        if next(failing, None) is not None:
            raise Busy
        return await prepare(executor, metric)

    monkeypatch.setattr(Executor, "prepare", flaky)
    for who in ("ann", "bob", "eve", "ann"):
        dashboard = await client.get("/api/v1/dashboards/default/data", headers=as_caller(who))
        found = [tile["result"]["records"] for tile in dashboard.json()["results"]]
        assert found == [[{"n": EXPECTED.get(who)}]] * len(IDS)


@pytest.fixture
async def unguarded(sales):
    """The same service with AUTH=off, whose connections have served a caller."""
    async with serving(msgspec.structs.replace(sales, auth=Auth(mode="off"))) as opened:
        answers = [await opened.get(f"/api/v1/metrics/{metric}") for metric in IDS.values()]
        assert [answer.json()["records"] for answer in answers] == [[{"n": None}]] * len(IDS)
        yield opened


async def test_drafts_and_alerts_have_no_claims_and_run_nevertheless(unguarded):
    """Behind an earlier caller the setting is empty, which is no JSON: policies could not read it."""
    drafted = await unguarded.post("/api/v1/metrics/ask", json={"prompt": "sum of amount of sales"})
    assert (drafted.status_code, drafted.json().get("records")) == (200, [{"total_amount": None}]), (
        drafted.text
    )
    rule = {"name": "Rule", "metric_id": str(IDS["a table"]), "column": "n", "kind": "threshold", "above": 1}
    judged = await unguarded.post("/api/v1/alerts/rules/preview", json=rule)
    assert (judged.status_code, judged.json().get("alerts")) == (200, []), judged.text
