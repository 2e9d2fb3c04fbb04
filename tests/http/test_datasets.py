# ruff: noqa: E501 (statements and files by the row)
"""A table of the user's own becomes a dataset and back, as a client sees it."""

import csv
import io
from collections.abc import AsyncGenerator

import asyncpg
import httpx
import pytest

from service.settings import Auth, Settings
from tests.conftest import Running, Server, held, serving, whole_service

TABLE = """
CREATE SCHEMA sales;
CREATE TABLE sales.customers (id int PRIMARY KEY);
CREATE TABLE sales.orders (
    id bigint PRIMARY KEY, customer_id int NOT NULL REFERENCES sales.customers,
    amount numeric(10,2) NOT NULL CONSTRAINT amount_positive CHECK (amount > 0),
    status varchar(4) DEFAULT 'new', placed date
);
INSERT INTO sales.customers VALUES (1);
"""
CATALOGUE = """
SELECT c.oid::regclass || ' ' || c.relkind::text || ' ' || c.relrowsecurity || ' ' || coalesce(c.relacl::text, '') || coalesce((
    SELECT string_agg(a.attname || ':' || format_type(a.atttypid, a.atttypmod) || a.attnotnull || coalesce(pg_get_expr(d.adbin, d.adrelid), ''), ',' ORDER BY a.attnum)
    FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '')
FROM pg_class AS c WHERE c.relnamespace::regnamespace::text NOT LIKE 'pg_%' AND c.relnamespace::regnamespace::text <> 'information_schema'
UNION ALL SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) FROM pg_constraint
UNION ALL SELECT tgrelid::regclass || tgname || pg_get_triggerdef(oid) FROM pg_trigger
UNION ALL SELECT polrelid::regclass || polname || coalesce(pg_get_expr(polqual, polrelid), '') FROM pg_policy
UNION ALL SELECT oid::regprocedure || prosrc FROM pg_proc WHERE pronamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT list || folded FROM data.vocabulary UNION ALL SELECT name FROM imports.dataset
UNION ALL SELECT dataset || number FROM imports.run UNION ALL SELECT id::text FROM quarantine.row
ORDER BY 1
"""


@pytest.fixture(scope="module")
async def service(server: Server, template: str) -> AsyncGenerator[Running]:
    async with held(whole_service(server, template)) as running:
        yield running


@pytest.fixture
async def sql(service: Running):
    connection = await asyncpg.connect(service.settings.url)
    yield connection
    await connection.close()


@pytest.fixture
async def shop(service: Running, sql: asyncpg.Connection) -> AsyncGenerator[httpx.AsyncClient]:
    await sql.execute(TABLE)
    yield service.client
    for name in ("orders", "customers_of_sales", "sales_customers"):
        await service.client.delete(f"/api/v1/datasets/{name}?force=true")
    await sql.execute("DROP SCHEMA sales CASCADE")


async def post(client: httpx.AsyncClient, text: str, **query: str) -> dict:
    answer = await client.post("/api/v1/imports/orders", content=text, params=query)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_table_is_added_shown_filled_and_removed_without_a_trace(shop: httpx.AsyncClient, sql):
    before = await sql.fetch(CATALOGUE)
    made = await shop.post(
        "/api/v1/datasets", json={"table": "sales.orders", "vocabulary": ["status"], "mirror": True}
    )
    assert (made.status_code, made.headers["location"]) == (201, "/api/v1/datasets/orders"), made.text
    assert made.json()["key"] == ["id"]
    assert "sales" in made.json()["table"]
    again = await shop.post("/api/v1/datasets", json={"table": '"sales"."orders"', "name": "other"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")

    schema = (await shop.get(made.headers["location"])).json()["$defs"]["orders"]
    assert schema["required"] == ["id", "customer_id", "amount"]
    assert schema["properties"]["id"] == {
        "type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1, "x-type": "bigint", "x-key": True,
    }  # fmt: skip
    assert schema["properties"]["status"]["anyOf"][0] == {
        "type": "string", "maxLength": 4, "x-type": "character varying(4)", "x-vocabulary": "orders.status",
        "x-default": "'new'::character varying",
    }  # fmt: skip
    assert schema["properties"]["customer_id"]["x-refers-to"] == "sales.customers"
    assert "gone_at" not in schema["properties"]

    await post(shop, "id,customer_id,amount\n1,1,5\n2,1,5\n")
    assert (await post(shop, "id,customer_id,amount\n2,1,5\n", mirror="true"))["gone"] == 1
    assert (await post(shop, "id,customer_id,amount\n3,9,5\n"))["reasons"] == {"orphan": 1}
    refused = await shop.delete("/api/v1/datasets/orders")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "1 rows of orders wait in quarantine" in refused.json()["detail"]
    assert (await shop.delete("/api/v1/datasets/orders?force=true")).status_code == 204
    assert await sql.fetch(CATALOGUE) == before
    assert (await shop.delete("/api/v1/datasets/orders")).status_code == 404
    assert (await shop.post("/api/v1/imports/orders", content="id\n1\n")).status_code == 404


async def test_its_quarantine_is_listed_exported_fixed_and_tried_again(shop: httpx.AsyncClient, sql):
    await shop.post("/api/v1/datasets", json={"table": "sales.orders"})
    report = await post(shop, "id,customer_id,amount\n1,1,-5\n2,9,5\n3,1,x\n4,1,7\n")
    assert report["reasons"] == {"orphan": 1, "out-of-range": 1, "wrong-type": 1}
    rows = (await shop.get("/api/v1/quarantine?dataset=orders")).json()["items"]
    broken = next(row for row in rows if row["reason"] == "out-of-range")
    still = await shop.patch(f"/api/v1/quarantine/{broken['id']}", json={"raw": {"amount": "-6"}})
    assert (still.status_code, still.json()["errors"][0]["field"]) == (422, "amount")
    fixed = await shop.patch(f"/api/v1/quarantine/{broken['id']}", json={"raw": {"amount": 6.25}})
    assert (fixed.status_code, fixed.json()["status"]) == (200, "loaded")
    exported = (await shop.get("/api/v1/quarantine/export?dataset=orders")).text
    lines = list(csv.DictReader(io.StringIO(exported)))
    assert sorted(line["id"] for line in lines) == ["2", "3"]
    report = await post(shop, exported.replace(",x,", ",8,"))
    assert (report["inserted"], report["quarantined"]) == (1, 1)
    await sql.execute("INSERT INTO sales.customers VALUES (9)")
    retried = (await shop.post("/api/v1/quarantine/retry?dataset=orders")).json()
    assert (retried["inserted"], retried["quarantined"]) == (1, 0)
    rows = await sql.fetch("SELECT id::text || ' ' || amount || ' ' || status FROM sales.orders ORDER BY id")
    assert [row[0] for row in rows] == ["1 6.25 new", "2 5.00 new", "3 8.00 new", "4 7.00 new"]


async def test_an_import_tells_readers_of_the_table_although_it_has_no_trigger(shop: httpx.AsyncClient, sql):
    await shop.post("/api/v1/datasets", json={"table": "sales.orders"})
    heard: list[str] = []
    await sql.add_listener("tally_data", lambda *given: heard.append(given[3]))
    await post(shop, "id,customer_id,amount\n1,1,5\n")
    await sql.fetchval("SELECT 1")
    assert [each.split()[0] for each in heard if "sales" in each] == ["sales.orders"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"table": "sales.nothing"}, 404, "sales.nothing"),
        ({}, 422, "table"),
        ({"table": 1}, 422, "table"),
        ({"table": "sales.orders", "keys": []}, 422, "keys"),
        ({"table": "sales.orders", "name": "../x"}, 422, "letters"),
        ({"table": "sales.orders", "name": "customers"}, 409, "customers"),
        ({"table": "pg_catalog.pg_class"}, 404, "pg_class"),
        ({"table": "x" * 100_000}, 404, "no table"),
        ({"table": "\u0000"}, 422, "NUL"),
        ({"table": "sales.orders", "key": ["\u0000"]}, 422, "NUL"),
    ],
)
async def test_what_cannot_be_added_is_a_problem(shop: httpx.AsyncClient, body, status, says):
    answer = await shop.post("/api/v1/datasets", json=body)
    assert answer.status_code == status, answer.text
    assert says in answer.text


async def test_built_in_datasets_stay(shop: httpx.AsyncClient):
    assert (await shop.delete("/api/v1/datasets/customers")).status_code == 409
    assert (await shop.delete("/api/v1/datasets/nothing")).status_code == 404


async def test_adding_and_removing_need_the_scope_admin(visitor, token):
    for headers, status in (({}, 401), (token("imports:write", "metrics:write"), 403), (token("admin"), 404)):
        asked = await visitor.post("/api/v1/datasets", json={"table": "no.such"}, headers=headers)
        gone = await visitor.delete("/api/v1/datasets/nothing", headers=headers)
        assert (asked.status_code, gone.status_code) == (status, status)


async def test_an_owner_without_rights_on_the_table_is_told_the_grant(
    server: Server, service: Running, sql, tmp_path
):
    """The table belongs to somebody else; what the answer says to run is all that it takes."""
    await sql.execute(
        "CREATE ROLE tally_plain LOGIN PASSWORD 'plain'; CREATE SCHEMA theirs; CREATE TABLE theirs.things (id serial PRIMARY KEY, v text)"
    )
    for schema in ("app", "catalog", "data", "imports", "quarantine"):
        await sql.execute(
            f"ALTER SCHEMA {schema} OWNER TO tally_plain; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO tally_plain"
        )
    await sql.execute(
        "DO $$ DECLARE t text; BEGIN FOR t IN SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text IN ('app', 'catalog', 'data', 'imports', 'quarantine') LOOP EXECUTE 'ALTER TABLE ' || t || ' OWNER TO tally_plain'; END LOOP; END $$"
    )
    database = service.settings.url.rsplit("/", 1)[-1]
    import msgspec

    addresses = msgspec.structs.replace(
        service.settings, url=server.url(database, "tally_plain", "plain"), data_dir=tmp_path
    )
    try:
        async with serving(Settings(database=addresses, auth=Auth(mode="off"))) as client:
            refused = await client.post("/api/v1/datasets", json={"table": "theirs.things", "mirror": False})
            assert refused.status_code == 422
            says = refused.json()["detail"]
            for grant in (
                f"GRANT TEMPORARY ON DATABASE {database} TO tally_plain;",
                "GRANT USAGE ON SCHEMA theirs TO tally_plain;",
                "GRANT SELECT, INSERT, UPDATE ON theirs.things TO tally_plain;",
                "GRANT USAGE ON SEQUENCE theirs.things_id_seq TO tally_plain;",
            ):
                assert grant in says
                await sql.execute(grant)
            assert (await client.post("/api/v1/datasets", json={"table": "theirs.things"})).status_code == 201
            done = await client.post("/api/v1/imports/things", content="id,v\n1,a\n")
            assert (done.status_code, done.json().get("inserted")) == (201, 1), done.text
            await sql.execute("REVOKE INSERT ON theirs.things FROM tally_plain")
            done = await client.post("/api/v1/imports/things", content="id,v\n2,a\n")
            assert (done.status_code, "GRANT SELECT, INSERT, UPDATE" in done.json()["detail"]) == (422, True)
            assert (await client.delete("/api/v1/datasets/things")).status_code == 204
    finally:
        await sql.execute(
            "REASSIGN OWNED BY tally_plain TO CURRENT_USER; DROP SCHEMA theirs CASCADE; DROP OWNED BY tally_plain; DROP ROLE tally_plain"
        )
