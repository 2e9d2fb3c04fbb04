"""Why a number changed: distinct results, their differences and what happened between them."""

import msgspec
import pytest

from service.database.queries import Command, Statement
from tests.conftest import store_metric
from tests.waiting import until

TABLE = Command("t", "CREATE TABLE data.sales (region text PRIMARY KEY, n numeric)")
READ = Command("r", "GRANT SELECT ON data.sales TO PUBLIC")
WATCH = Command("w", "SELECT app.watch('data.sales')")
PUT = Command(
    "p",
    "INSERT INTO data.sales VALUES ($1, $2::text::numeric) ON CONFLICT (region) DO UPDATE SET n = excluded.n",
)
SQL = "SELECT region, n FROM sales ORDER BY region"


class Number(msgspec.Struct):
    n: int


class Text(msgspec.Struct):
    t: str


TABLES = Statement(
    "a",
    "SELECT format('%I.%I', schemaname, tablename) AS t FROM pg_tables WHERE schemaname !~ '^(pg|inf)'",
    Text,
)
VERSIONS = "SELECT coalesce(string_agg(xmin || ' ' || ctid, ',' ORDER BY ctid), '') AS t FROM {}"
COUNT = Statement("c", "SELECT count(*) AS n FROM app.result_history", Number)


@pytest.fixture
async def sales(clone):
    for each in (TABLE, READ, WATCH):
        await clone.write(each)

    async def put(*rows):
        async with clone.transaction() as tx:
            for region, n in rows:
                await tx.write(PUT, region, n)

    return put


@pytest.fixture
async def metric(sales, client, make_metric):
    await sales(("north", "1"), ("south", "2.50"))
    return await make_metric(SQL)


async def history(client, metric, **query):
    answer = await client.get(f"/api/v1/metrics/{metric}/history", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def kept(client, metric, number, **query):
    """The history once it has so many results. Each look asks for the result too, as a page does."""

    async def found():
        await client.get(f"/api/v1/metrics/{metric}", params=query)
        items = (await history(client, metric, **query))["items"]
        return items if len(items) == number else None

    return await until(found)


async def test_a_commit_shows_as_the_difference_that_it_made(client, sales, metric):
    (first,) = await kept(client, metric, 1)
    assert (first["difference"], first["causes"], first["since"]) == (None, [], None)
    await sales(("south", "3.75"), ("west", "12345678901234567890.5"))
    newest, _ = await kept(client, metric, 2)
    assert newest["difference"]["keys"] == ["region"]
    assert newest["difference"]["totals"] == {"added": 1, "removed": 0, "changed": 1, "unchanged": 1}
    (changed,) = newest["difference"]["changed"]
    assert changed == {
        "key": {"region": "south"},
        "values": [{"column": "n", "before": 2.5, "after": 3.75, "delta": 1.25}],
    }
    (cause,) = newest["causes"]
    assert (cause["kind"], cause["tables"]) == ("commit", ["data.sales"])
    assert cause["transaction"] > 0
    answer = await client.get(f"/api/v1/metrics/{metric}/history")
    assert b'"n":12345678901234567890.5' in answer.content


def kinds(item):
    return [cause["kind"] for cause in item["causes"]]


async def test_an_import_is_named_as_the_cause(client, clone, make_metric):
    metric = await make_metric("SELECT type, count(*) AS n FROM customers GROUP BY type")
    await kept(client, metric, 1)
    text = "customer_id,occupation,type\n9001,Nurse,HCP\n9002,Nurse,HCP\n"
    answer = await client.post("/api/v1/imports/customers", files={"file": ("crm.csv", text.encode())})
    assert answer.status_code == 201, answer.text
    newest, _ = await kept(client, metric, 2)
    (cause,) = newest["causes"]
    report = answer.json()
    assert {name: cause[name] for name in ("kind", "id", "dataset", "source", "inserted", "rows_read")} == {
        "kind": "import",
        "id": report["id"],
        "dataset": "customers",
        "source": "crm.csv",
        "inserted": 2,
        "rows_read": 2,
    }


async def test_a_new_definition_is_the_cause_and_renamed_columns_are_told(client, sales, clone, metric):
    await kept(client, metric, 1)
    sql = "SELECT region, n AS amount, 1 AS one FROM sales ORDER BY region"
    answer = await client.patch(f"/api/v1/metrics/{metric}", json={"sql": sql})
    assert answer.status_code == 200, answer.text
    newest, _ = await kept(client, metric, 2)
    (cause,) = newest["causes"]
    assert (cause["kind"], cause["before"], cause["version"]) == ("definition", 1, 2)
    assert cause["actor"] == (await client.get("/api/v1/audit")).json()["items"][0]["actor"]
    columns = newest["difference"]["columns"]
    assert [each["name"] for each in columns["added"]] == ["amount", "one"]
    assert [each["name"] for each in columns["removed"]] == ["n"]
    assert [each["name"] for each in newest["difference"]["compared"]] == ["region"]
    assert newest["difference"]["totals"] == {"added": 0, "removed": 0, "changed": 0, "unchanged": 2}


async def test_time_is_the_cause_where_nothing_else_is(client, make_metric):
    metric = await make_metric("SELECT clock_timestamp()::text AS at", fresh_for_s=0)
    newest, _, *_ = await until(lambda: at_least(client, metric, 2))
    assert kinds(newest) == ["time"]


async def at_least(client, metric, number):
    await client.get(f"/api/v1/metrics/{metric}")
    items = (await history(client, metric))["items"]
    return items if len(items) >= number else None


async def test_an_unwatched_table_leaves_the_cause_unknown(client, clone, sales, make_metric):
    await clone.write(Command("u", "CREATE TABLE data.loose (n int)"))
    await clone.write(Command("g", "GRANT SELECT ON data.loose TO PUBLIC"))
    metric = await make_metric("SELECT sum(n) AS n FROM loose")
    await kept(client, metric, 1)
    await clone.write(Command("i", "INSERT INTO data.loose VALUES (7)"))
    newest, _ = await kept(client, metric, 2)
    assert {"kind": "unwatched", "tables": ["data.loose"]} in newest["causes"]
    assert all(cause.get("transaction") is None for cause in newest["causes"])


async def test_a_redefined_view_is_the_cause(client, clone, sales, make_metric):
    await sales(("north", "1"))
    await clone.write(Command("v", "CREATE VIEW data.shown AS SELECT region, n FROM data.sales"))
    await clone.write(Command("g", "GRANT SELECT ON data.shown TO PUBLIC"))
    metric = await make_metric("SELECT region, n FROM shown")
    await kept(client, metric, 1)
    await clone.write(
        Command("v", "CREATE OR REPLACE VIEW data.shown AS SELECT region, 2 * n AS n FROM data.sales")
    )
    newest, _ = await kept(client, metric, 2)
    assert kinds(newest) == ["redefinition"]
    assert "data.shown" in newest["causes"][0]["names"]


async def test_a_number_that_comes_back_is_a_result_of_its_own(client, sales, metric):
    await kept(client, metric, 1)
    await sales(("south", "9"))
    await kept(client, metric, 2)
    await sales(("south", "2.50"))
    newest, _, first = await kept(client, metric, 3)
    assert newest["difference"]["changed"][0]["values"][0]["after"] == 2.5
    assert first["difference"] is None


async def written(clone):
    """Which version of each row is where: numbers of transactions count those of all databases."""
    names = [each.t for each in await clone.read(TABLES)]
    return {name: (await clone.read_one(Statement("v", VERSIONS.format(name), Text))).t for name in names}


async def test_polls_write_nothing(client, clone, metric):
    await kept(client, metric, 1)
    before = await written(clone)
    for _ in range(20):
        await client.get(f"/api/v1/metrics/{metric}")
        await client.get(f"/api/v1/metrics/{metric}", headers={"Cache-Control": "no-cache"})
        await history(client, metric)
    assert await written(clone) == before
    await clone.write(PUT, "north", "1")  # what the row holds already
    assert await written(clone) != before


async def test_parameters_are_those_of_the_result(client, sales, clone, make_metric):
    await sales(("north", "1"), ("south", "2"))
    metric = await make_metric(
        "SELECT n FROM sales WHERE region = :region",
        parameters={"region": {"type": "text", "default": "north"}},
    )
    await kept(client, metric, 1)
    assert (await history(client, metric, region="south"))["items"] == []
    await kept(client, metric, 1, region="south")
    await sales(("south", "5"))
    newest, _ = await kept(client, metric, 2, region="south")
    assert newest["difference"]["changed"][0]["values"][0]["delta"] == 3
    assert len((await history(client, metric, region="north"))["items"]) == 1  # given or by default
    answer = await client.get(f"/api/v1/metrics/{metric}/history", params={"regoin": "south"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "regoin")


async def test_a_metric_may_have_parameters_named_as_those_of_the_page(client, sales, clone, make_metric):
    await sales(("north", "1"), ("south", "2"))
    sql = "SELECT region FROM sales WHERE region > :cursor ORDER BY region LIMIT :limit"
    metric = await make_metric(sql)
    query = {"limit": 1, "cursor": "a"}

    async def found():
        await client.get(f"/api/v1/metrics/{metric}", params=query)
        own = {f"metric.{name}": value for name, value in query.items()}
        return (await history(client, metric, limit=5, **own))["items"]

    (item,) = await until(found)
    assert item["row_count"] == 1
    assert (await history(client, metric, **{"metric.limit": 2, "metric.cursor": "a"}))["items"] == []
    for wrong in ("metric.limit=1&metric.limit=2&metric.cursor=a", "metric.region=a", "limit=1&cursor=a"):
        answer = await client.get(f"/api/v1/metrics/{metric}/history?{wrong}")
        assert answer.status_code == 422, wrong


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=51", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=x", "cursor"),
        ("day_range=3", "day_range"),
        ("day_range=", "day_range"),
    ],
)
async def test_odd_queries_are_refused(client, metric, query, field):
    answer = await client.get(f"/api/v1/metrics/{metric}/history?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


async def test_unknown_metrics_are_not_found(client):
    answer = await client.get("/api/v1/metrics/00000000-0000-0000-0000-000000000007/history")
    assert answer.status_code == 404
    assert (await client.get("/api/v1/metrics/nothing/history")).status_code == 422


async def test_pages_and_etags(client, sales, metric):
    for number in range(1, 5):
        await sales(("west", str(number)))
        await kept(client, metric, number)
    first = await history(client, metric, limit=3)
    second = await history(client, metric, limit=3, cursor=first["next_cursor"])
    ids = [each["id"] for each in first["items"] + second["items"]]
    assert (len(ids), ids, second["next_cursor"]) == (4, sorted(ids, reverse=True), None)
    assert first["items"][-1]["difference"] is not None  # compared with the next page's first
    answer = await client.get(f"/api/v1/metrics/{metric}/history")
    again = {"If-None-Match": answer.headers["etag"]}
    assert (await client.get(f"/api/v1/metrics/{metric}/history", headers=again)).status_code == 304


async def test_a_deleted_metric_takes_its_history_along(client, clone, sales, metric):
    await kept(client, metric, 1)
    assert (await client.delete(f"/api/v1/metrics/{metric}")).status_code == 204
    assert (await client.get(f"/api/v1/metrics/{metric}/history")).status_code == 404
    assert (await clone.read_one(COUNT)).n == 0


async def test_a_large_result_is_kept_as_its_size(client, clone, make_metric):
    await clone.write(
        Command("t", "CREATE TABLE data.many AS SELECT md5(k::text) AS k FROM generate_series(1, 9000) k")
    )
    await clone.write(Command("w", "SELECT app.watch('data.many')"))
    await clone.write(Command("g", "GRANT SELECT ON data.many TO PUBLIC"))
    metric = await make_metric("SELECT k FROM many")
    await kept(client, metric, 1)
    await clone.write(Command("d", "DELETE FROM data.many WHERE k LIKE 'a%'"))
    newest, first = await kept(client, metric, 2)
    assert newest["difference"] is None
    assert newest["difference_note"] == (
        f"9000 rows before and {newest['row_count']} after are too large to be kept whole,"
        " so their rows cannot be compared."
    )
    assert (first["row_count"], kinds(newest)) == (9000, ["commit"])


async def test_the_reader_cannot_read_what_is_kept(addresses, metric, reader):
    from service.errors import QueryFailed

    for table in ("history_series", "result_history"):
        with pytest.raises(QueryFailed, match="permission denied"):
            await reader.run(f"SELECT * FROM app.{table}", [])


async def test_rows_in_another_order_are_the_same_result(client, clone, sales, metric):
    await kept(client, metric, 1)
    for order in ("region DESC", "n DESC, region"):
        sql = f"SELECT region, n FROM sales ORDER BY {order}"
        assert (await client.patch(f"/api/v1/metrics/{metric}", json={"sql": sql})).status_code == 200
        await client.get(f"/api/v1/metrics/{metric}")
    await sales(("west", "3"))
    newest, _ = await kept(client, metric, 2)
    assert newest["difference"]["totals"] == {"added": 1, "removed": 0, "changed": 0, "unchanged": 2}
    assert "definition" not in kinds(newest)


async def test_who_did_it_is_told_as_the_audit_tells_it(guarded_database, visitor, token):
    metric = await store_metric(guarded_database, "SELECT count(*) AS n FROM customers")
    reading, path = token("metrics:read"), f"/api/v1/metrics/{metric}/history"

    async def items(*scopes, number):
        async def found():
            await visitor.get(f"/metrics/{metric}", headers=reading)
            answer = await visitor.get(path, headers=token("metrics:read", *scopes))
            listed = answer.json().get("items", [])
            return listed if len(listed) == number else None

        return await until(found)

    await items(number=1)
    text = "customer_id,occupation,type\n77001,Nurse,HCP\n"
    answer = await visitor.post(
        "/api/v1/imports/customers",
        files={"file": ("secret.csv", text.encode())},
        headers=token("imports:write", subject="ann"),
    )
    assert answer.status_code == 201, answer.text
    (least,) = (await items(number=2))[0]["causes"]
    assert (least["kind"], least["dataset"], least["inserted"]) == ("import", "customers", 1)
    assert (least["id"], least["source"], least["actor"]) == (None, None, None)
    (more,) = (await items("imports:write", number=2))[0]["causes"]
    assert (more["source"], more["actor"]) == ("secret.csv", None)
    (most,) = (await items("imports:write", "admin", number=2))[0]["causes"]
    assert (most["source"], most["actor"]) == ("secret.csv", "ann")
