"""The OpenAPI document with the metrics, and the pages of problems, from a running service."""

import pytest
from openapi_spec_validator import validate

from service.errors import all_problems

SQL = (
    "SELECT date::date AS day, count(*) AS n, sum(obsolescence_val) AS total FROM metrics"
    " WHERE alert_type = :kind AND date BETWEEN '2025-06-01' AND '2025-06-30' GROUP BY 1"
)


async def test_each_metric_is_a_path_with_its_own_parameters_and_columns(client):
    made = await client.post("/metrics", json={"sql": SQL, "title": "Alerts per day, 2025"})
    twin = await client.post("/metrics", json={"sql": "SELECT 1 AS n", "title": "Alerts per day, 2025"})
    document = (await client.get("/openapi.json?metrics=true")).json()
    validate(document)
    operation = document["paths"][f"/api/v1/metrics/{made.json()['id']}"]["get"]
    other = document["paths"][f"/api/v1/metrics/{twin.json()['id']}"]["get"]
    assert (operation["summary"], other["summary"]) == ("Alerts per day, 2025",) * 2
    assert operation["operationId"] != other["operationId"]
    assert {operation["operationId"][:17], other["operationId"][:17]} == {"getAlertsPerDay20"}
    given = {each["name"]: each for each in operation["parameters"]}
    assert given["kind"]["required"] is True
    assert given["start_date"]["schema"] == {"type": "string", "format": "date", "default": "2025-06-01"}
    assert {"format", "excel", "If-None-Match"} <= given.keys()
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    row = schema["allOf"][1]["properties"]["records"]["items"]
    assert row["required"] == ["day", "n", "total"]
    assert row["properties"]["n"] == {
        "type": ["integer", "null"],
        "format": "int64",
        "description": "bigint",
    }
    assert row["properties"]["total"]["format"] == "decimal"
    plain = (await client.get("/openapi.json")).json()
    assert len(document["paths"]) - len(plain["paths"]) == 2


async def test_a_title_like_that_of_an_operation_makes_no_second_one(client):
    titles = ["Health", "Metric result", "health"]
    made = [
        (await client.post("/metrics", json={"sql": "SELECT 1", "title": each})).json() for each in titles
    ]
    document = (await client.get("/openapi.json?metrics=true")).json()
    validate(document)
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))
    assert f"getHealth{made[0]['id'].replace('-', '').upper()}" in ids


async def test_a_metric_that_cannot_run_is_described_by_its_problem(client, make_metric):
    broken = await make_metric("SELECT nothing FROM nowhere")
    document = (await client.get("/openapi.json?metrics=true")).json()
    validate(document)
    assert "nowhere" in document["paths"][f"/api/v1/metrics/{broken}"]["get"]["description"]


async def test_metrics_in_the_document_need_the_scope_of_metrics(visitor, token):
    assert (await visitor.get("/openapi.json")).status_code == 200
    assert (await visitor.get("/openapi.json?metrics=true")).status_code == 401
    with_items = await visitor.get("/openapi.json?metrics=true", headers=token("items:read"))
    assert with_items.status_code == 403
    with_metrics = await visitor.get("/openapi.json?metrics=true", headers=token("metrics:read"))
    assert with_metrics.status_code == 200


@pytest.mark.parametrize("kind", all_problems(), ids=lambda kind: kind.code)
async def test_the_type_of_a_problem_is_a_page_that_says_how_to_mend_it(visitor, kind):
    page = await visitor.get(kind().document()["type"])
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert kind.title in page.text
    assert kind.code in page.text


async def test_an_unknown_problem_page_is_404_and_names_what_there_is(visitor):
    missing = await visitor.get("/problems/nonsense")
    assert missing.status_code == 404
    assert "not-found" in missing.json()["detail"]
    assert missing.json()["type"] == "/problems/not-found"
