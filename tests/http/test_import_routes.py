"""Imports, quarantine and contracts as a client sees them."""

import csv
import io
import json
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from msgspec import Struct

from service.database.queries import Statement
from service.imports import quarantine
from service.settings import Imports, Settings
from tests.conftest import serving

CUSTOMERS = "Customer_Id,Occupation,Type\n1,Smith,B2B\n2,Baker,B2C\n"
INTERACTIONS = "Date Start,Interaction,Customers\n04/10/2019 09:00,Email,1\n05/10/2019 10:00,Call,4\n"


class Fact(Struct, frozen=True):
    value: str


@pytest.fixture
def post(client: httpx.AsyncClient):
    async def post(dataset: str, text: str | bytes, **query: str) -> dict:
        answer = await client.post(f"/api/v1/imports/{dataset}", content=text, params=query)
        assert answer.status_code == 201, answer.text
        return answer.json()

    return post


@pytest.fixture
def kept(client: httpx.AsyncClient):
    async def kept(**query: str) -> list[dict]:
        answer = await client.get("/api/v1/quarantine", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    return kept


async def test_a_raw_body_is_imported_and_found_in_the_history(client: httpx.AsyncClient):
    answer = await client.post("/api/v1/imports/customers", content=CUSTOMERS)
    report = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/imports/{report['id']}"
    assert report | {"id": None, "finished_at": None} == {
        "id": None,
        "dataset": "customers",
        "source": "request",
        "status": "done",
        "rows_read": 2,
        "inserted": 2,
        "updated": 0,
        "unchanged": 0,
        "quarantined": 0,
        "reasons": {},
        "gone": 0,
        "released": {},
        "format": "csv",
        "encoding": "utf-8",
        "notes": [],
        "finished_at": None,
    }
    assert (await client.get(answer.headers["location"])).json() == report
    assert (await client.get("/api/v1/imports")).json() == {"items": [report], "next_cursor": None}


async def test_a_multipart_file_keeps_its_name(client: httpx.AsyncClient):
    answer = await client.post("/api/v1/imports/customers", files={"file": ("crm.csv", CUSTOMERS.encode())})
    assert (answer.status_code, answer.json()["source"]) == (201, "crm.csv")


async def test_a_dry_run_leaves_nothing(client: httpx.AsyncClient, post):
    report = await post("customers", CUSTOMERS, dry_run="true")
    assert (report["id"], report["status"], report["inserted"]) == (None, "dry-run", 2)
    assert (await client.get("/api/v1/imports")).json()["items"] == []


async def test_history_pages_from_the_latest(client: httpx.AsyncClient, post):
    ids = [(await post("customers", f"{CUSTOMERS}{n},Cook,B2B\n"))["id"] for n in (3, 4, 5)]
    first = (await client.get("/api/v1/imports?limit=2")).json()
    second = (await client.get("/api/v1/imports", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [each["id"] for each in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/imports/nothing", CUSTOMERS, 404, "there are queries, metrics"),
        ("POST", "/imports/customers", "", 422, "the file is empty"),
        ("POST", "/imports/customers", "a,b\n1,2\n", 422, "no heading for customer_id"),
        ("POST", "/imports/customers?what=1", CUSTOMERS, 422, ""),
        ("GET", "/imports/nothing", None, 422, ""),
        ("GET", "/imports/7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e", None, 404, ""),
        ("GET", "/imports?cursor=x", None, 422, ""),
        ("GET", "/quarantine?dataset=nothing", None, 422, ""),
        ("GET", "/quarantine?reason=ugly", None, 422, ""),
        ("GET", "/quarantine?limit=0", None, 422, ""),
        ("GET", "/quarantine/nothing", None, 422, ""),
        ("GET", "/quarantine/7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e", None, 404, ""),
        ("PATCH", "/quarantine/7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e", '{"raw": {}}', 404, ""),
        ("PATCH", "/quarantine/7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e", '{"row": {}}', 422, ""),
        ("DELETE", "/quarantine/7b0f3f0e-6d0a-4a54-9f3e-1f2a3b4c5d6e", None, 404, ""),
        ("GET", "/quarantine/export", None, 422, ""),
        ("GET", "/quarantine/export?dataset=nothing", None, 422, ""),
        ("POST", "/quarantine/retry?dataset=nothing", None, 422, ""),
        ("GET", "/datasets/nothing", None, 404, ""),
    ],
)
async def test_what_cannot_be_done_is_told(*, client: httpx.AsyncClient, method, path, body, status, says):
    headers = {"content-type": "application/json"} if method == "PATCH" else {}
    answer = await client.request(method, f"/api/v1{path}", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]


async def test_a_multipart_body_without_the_field_is_told(client: httpx.AsyncClient):
    answer = await client.post("/api/v1/imports/customers", files={"data": ("crm.csv", CUSTOMERS.encode())})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "file")


async def test_files_have_a_bound_of_their_own(settings: Settings):
    small = msgspec.structs.replace(settings, imports=Imports(bytes_limit=2048))
    rows = b'[{"customer_id": 1}' + b" " * 4096 + b"]"

    async def chunks() -> AsyncIterator[bytes]:
        yield rows

    async with serving(small) as client:
        for body in (rows, chunks()):
            answer = await client.post("/api/v1/imports/customers", content=body)
            assert (answer.status_code, answer.json()["code"]) == (413, "too-large")
        answer = await client.post("/api/v1/imports/customers", files={"file": ("a.json", rows)})
        assert answer.status_code == 413


async def test_a_file_may_be_larger_than_other_bodies(post):
    report = await post("customers", b'[{"customer_id": 1}' + b" " * 9_000_000 + b"]")
    assert report["inserted"] == 1


async def test_progress_is_streamed_to_whoever_asks(client: httpx.AsyncClient):
    headers = {"accept": "text/event-stream"}
    answer = await client.post("/api/v1/imports/customers", content=CUSTOMERS, headers=headers)
    events = [line.partition(": ")[2] for line in answer.text.splitlines() if line.startswith("event")]
    data = [
        json.loads(line.partition(": ")[2]) for line in answer.text.splitlines() if line.startswith("data")
    ]
    assert events == ["progress", "report"]
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (answer.status_code, answer.headers["x-accel-buffering"]) == (201, "no")
    assert (data[0], data[1]["inserted"]) == ({"rows_read": 2}, 2)


@pytest.mark.parametrize("accept", ["*/*", "application/json, text/event-stream;q=0"])
async def test_who_does_not_ask_for_a_stream_gets_the_report(client: httpx.AsyncClient, accept: str):
    answer = await client.post("/api/v1/imports/customers", content=CUSTOMERS, headers={"accept": accept})
    assert (answer.headers["content-type"], answer.json()["inserted"]) == ("application/json", 2)


async def test_a_refused_file_is_a_problem_in_the_stream(client: httpx.AsyncClient):
    headers = {"accept": "text/event-stream"}
    answer = await client.post("/api/v1/imports/customers", content="", headers=headers)
    assert "event: problem" in answer.text
    assert '"status":422' in answer.text


async def test_a_kept_row_tells_everything_and_a_fix_loads_it(client: httpx.AsyncClient, post, kept):
    await post("customers", CUSTOMERS + "three,Cook,B2B\n")
    [row] = await kept(dataset="customers", status="open", reason="wrong-type")
    assert (row["source"], row["line"], row["status"]) == ("request", 4, "open")
    assert row["raw"] == {"Customer_Id": "three", "Occupation": "Cook", "Type": "B2B"}
    assert row["message"] == 'customer_id: "three" is not a whole number'
    address = f"/api/v1/quarantine/{row['id']}"
    still = await client.patch(address, json={"raw": {"Customer_Id": "-3"}})
    assert (still.status_code, still.json()["errors"][0]["field"]) == (422, "customer_id")
    assert (await client.get(address)).json() == row
    fixed = await client.patch(address, json={"raw": {"customer_id": 3}})
    assert (fixed.status_code, fixed.json()["status"], fixed.json()["original"]) == (
        200,
        "loaded",
        row["raw"],
    )
    again = await client.patch(address, json={"raw": {"customer_id": 3}})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert (await post("customers", CUSTOMERS + "3,Cook,B2B\n"))["unchanged"] == 3
    assert (await post("customers", CUSTOMERS + "three,Cook,B2B\n\n"))["quarantined"] == 1
    assert len(await kept()) == 1


async def test_a_fix_frees_what_waited_for_it(client: httpx.AsyncClient, post, kept):
    await post("customers", CUSTOMERS + "four,Cook,B2B\n")
    await post("external_interactions", INTERACTIONS)
    [row] = await kept(dataset="customers")
    await client.patch(f"/api/v1/quarantine/{row['id']}", json={"raw": {"Customer_Id": "4"}})
    assert [each["status"] for each in await kept(dataset="external_interactions")] == ["loaded"]


async def test_a_row_with_too_many_fields_is_fixed_by_its_columns(client: httpx.AsyncClient, post, kept):
    await post("customers", "customer_id,occupation,type\n1,Smith,Sons,B2B\n")
    assert (await client.post("/api/v1/quarantine/retry?dataset=customers")).json()["quarantined"] == 1
    [row] = await kept()
    raw = {"occupation": "Smith, Sons", "type": "B2B"}
    answer = await client.patch(f"/api/v1/quarantine/{row['id']}", json={"raw": raw})
    assert (answer.status_code, answer.json()["status"]) == (200, "loaded")


async def test_a_discarded_row_stays_to_be_seen_and_does_not_come_back(client: httpx.AsyncClient, post, kept):
    await post("customers", CUSTOMERS + "x,Cook,B2B\n")
    [row] = await kept()
    address = f"/api/v1/quarantine/{row['id']}"
    assert (await client.delete(address)).status_code == 204
    assert (await client.get(address)).json()["status"] == "discarded"
    assert (await client.delete(address)).status_code == 409
    assert (await client.patch(address, json={"raw": {"customer_id": 9}})).status_code == 409
    assert (await post("customers", CUSTOMERS + "x,Cook,B2B\n4,Cook,B2B\n"))["quarantined"] == 1
    assert [each["status"] for each in await kept()] == ["discarded"]


async def test_a_retry_loads_what_has_become_sound(client: httpx.AsyncClient, clone, post, kept):
    await post("external_interactions", INTERACTIONS)
    async with clone.transaction() as tx:
        await tx._connection.execute("INSERT INTO data.customers (customer_id) VALUES (1)")
    answer = await client.post("/api/v1/quarantine/retry?dataset=external_interactions")
    assert answer.json() == {
        "rows_read": 2,
        "inserted": 1,
        "updated": 0,
        "unchanged": 0,
        "quarantined": 1,
        "reasons": {"orphan": 1},
        "released": {},
    }
    assert sorted(each["status"] for each in await kept()) == ["loaded", "open"]


async def test_an_export_is_fixed_and_imported_back(client: httpx.AsyncClient, post, kept):
    await post("customers", "Customer_Id,Occupation,Type\nx,=1+1,B2B\ny,-5,B2B\nz,Cook,B2B\n")
    exported = await client.get("/api/v1/quarantine/export?dataset=customers")
    assert exported.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert list(rows[0]) == ["customer_id", "occupation", "type", "quarantine_id", "reason", "message"]
    assert {row["occupation"] for row in rows} == {"'=1+1", "'-5", "Cook"}
    numbers = {"x": "1", "y": "2", "z": "zero"}
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows([row | {"customer_id": numbers[row["customer_id"]]} for row in rows])
    report = await post("customers", text.getvalue())
    assert (report["inserted"], report["quarantined"], report["reasons"]) == (2, 1, {"wrong-type": 1})
    assert sorted((each["status"], each["raw"].get("customer_id", "")) for each in await kept()) == [
        ("loaded", "1"),
        ("loaded", "2"),
        ("open", ""),
    ]


async def test_pages_of_large_rows_are_short_and_lose_none(
    client: httpx.AsyncClient, post, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quarantine, "PAGE_BYTES", 3000)
    sizes = [5000, 1, 1, 1, 900, 900, 5000, 5000, 2800, 1]
    rows = [f"x{at},{'y' * size},B2B\n" for at, size in enumerate(sizes)]
    for row in rows:
        await post("customers", f"Customer_Id,Occupation,Type\n{row}")
    pages, cursor = [], {}
    while not pages or cursor["cursor"]:
        answer = await client.get("/api/v1/quarantine", params={"limit": 4, **cursor})
        pages.append([int(each["raw"]["Customer_Id"][1:]) for each in answer.json()["items"]])
        cursor = {"cursor": answer.json()["next_cursor"]}
    assert pages == [[0], [1, 2, 3, 4], [5], [6], [7], [8, 9]]
    exported = await client.get("/api/v1/quarantine/export?dataset=customers")
    found = csv.DictReader(io.StringIO(exported.text))
    assert [len(row["occupation"]) for row in found] == sizes


async def test_facts_that_were_fixed_count_beside_their_equals(client: httpx.AsyncClient, clone, post):
    await post("metric_records", "id,date,alert_type\na,2025-06-03,Warning\na,2025-06-33,Warning\n")
    exported = (await client.get("/api/v1/quarantine/export?dataset=metric_records")).text
    fixed = exported.replace("2025-06-33", "2025-06-03")
    assert (await post("metric_records", fixed))["inserted"] == 1
    assert (await post("metric_records", fixed + "\n"))["unchanged"] == 1
    whole = "id,date,alert_type\na,2025-06-03,Warning\na,2025-06-03,Warning\n"
    assert (await post("metric_records", whole))["unchanged"] == 2


async def test_an_id_of_the_export_that_is_not_open_is_a_conflict(post):
    text = "customer_id,occupation,type,quarantine_id,reason,message\n"
    report = await post("customers", text + "1,Cook,B2B,nothing,,\n2,Cook,B2B,,,\n")
    assert (report["inserted"], report["reasons"]) == (1, {"conflict": 1})


async def test_a_fix_keeps_the_digits_of_its_numbers(client: httpx.AsyncClient, clone, post, kept):
    await post("metric_records", '[{"id": "a", "date": "2025-06-33", "obsolescence_val": 1.10}]')
    (row,) = await kept()
    address = f"/api/v1/quarantine/{row['id']}"
    assert '"obsolescence_val":1.10' in (await client.get(address)).text
    fix = '{"raw": {"date": "2025-06-03", "obsolescence": 12345678901234567890.125}}'
    answer = await client.patch(address, content=fix, headers={"Content-Type": "application/json"})
    assert '"obsolescence":12345678901234567890.125' in answer.text
    assert '"obsolescence_val":1.10' in answer.text
    facts = Statement("facts", "SELECT obsolescence::text AS value FROM data.metrics", Fact)
    assert await clone.read(facts) == [Fact("12345678901234567890.125")]


async def test_contracts_are_json_schema(client: httpx.AsyncClient):
    listed = (await client.get("/api/v1/datasets")).json()["items"]
    assert [each["name"] for each in listed] == [
        "queries",
        "metrics",
        "layouts",
        "metric_records",
        "customers",
        "external_interactions",
        "products_of_discussion",
    ]
    schema = (await client.get("/api/v1/datasets/customers")).json()
    customer_id = schema["$defs"]["Customers"]["properties"]["customer_id"]
    assert (customer_id["type"], customer_id["minimum"], customer_id["x-key"]) == ("integer", 1, True)


async def test_an_export_of_large_rows_holds_each_once(client: httpx.AsyncClient, post):
    rows = [{"Customer_Id": f"none{n}", "Occupation": 'x, "' * 750_000} for n in range(4)]
    await post("customers", json.dumps(rows))
    answer = await client.get("/api/v1/quarantine/export", params={"dataset": "customers"})
    limit = csv.field_size_limit(4_000_000)
    try:
        lines = list(csv.DictReader(io.StringIO(answer.text)))
    finally:
        csv.field_size_limit(limit)
    assert sorted(line["customer_id"] for line in lines) == [row["Customer_Id"] for row in rows]
    assert {line["occupation"] for line in lines} == {rows[0]["Occupation"]}
