"""Whether a metric lets callers choose its days, why not, and how to say that its dates are no period."""

import pytest

PERIOD = "SELECT count(*) AS n FROM metrics WHERE date BETWEEN '2025-06-01' AND '2025-06-30'"
BIRTH = "SELECT count(*) AS n FROM metrics WHERE date >= '1980-01-01' AND date < '1990-01-01'"
HALF = [
    pytest.param(
        "SELECT count(*) FROM metrics\n"
        "WHERE date < '2025-04-01' AND (obsolescence IS NULL OR date >= '2025-03-01')",
        "as of",
        (2, 14),
        id="lone upper bound",
    ),
    pytest.param(
        "SELECT count(*)::numeric / (DATE '2025-06-30' - DATE '2025-06-01' + 1) FROM metrics\n"
        "WHERE date BETWEEN '2025-06-01' AND '2025-06-30'",
        "'2025-06-30'",
        (1, 34),
        id="days of the period reckoned",
    ),
    pytest.param(
        "SELECT count(*)\n / 30.0 FROM metrics WHERE date >= now() - interval '30 days'",
        "30.0",
        (2, 4),
        id="days of the period counted",
    ),
    pytest.param(
        "SELECT d, count(m.id)"
        " FROM generate_series(DATE '2025-02-01', DATE '2025-02-28', interval '1 day') AS d\n"
        "LEFT JOIN metrics AS m ON m.date = d AND m.date BETWEEN '2025-02-01' AND '2025-02-28' GROUP BY d",
        "'2025-02-01'",
        (1, 49),
        id="a series of its days",
    ),
    pytest.param(
        "SELECT sum(CASE WHEN date < '2025-06-15'\nTHEN 1 END) FROM metrics"
        " WHERE date BETWEEN '2025-06-01' AND '2025-06-30'",
        "'2025-06-15'",
        (1, 29),
        id="case",
    ),
    pytest.param(
        "SELECT id FROM metrics WHERE date BETWEEN '2025-06-01' AND '2025-06-30'\n"
        "GROUP BY id HAVING max(date) >= '2025-01-01'::timestamp + interval '50 days'",
        "'2025-01-01'",
        (2, 33),
        id="having",
    ),
]


async def window_of(client, metric):
    return (await client.get(f"/metrics/{metric}/definition")).json()["window"]


@pytest.mark.parametrize(("sql", "says", "place"), HALF)
async def test_a_window_that_would_move_half_a_statement_is_refused(client, make_metric, sql, says, place):
    metric = await make_metric(sql)
    window = await window_of(client, metric)
    assert (window["mode"], window["offered"]) == ("auto", False)
    assert (window["line"], window["column"]) == place
    assert says in window["why"]
    for name, value in (("start_date", "2025-07-01"), ("end_date", "2025-07-31"), ("day_range", "600")):
        answer = await client.get(f"/metrics/{metric}?{name}={value}")
        assert answer.status_code == 422
        problem = answer.json()
        assert window["why"] in problem["detail"]
        assert f"line {place[0]}, column {place[1]}" in problem["detail"]
        assert ":start_date" in problem["detail"]
        assert problem["errors"][0]["field"] == name
    assert (await client.get(f"/metrics/{metric}")).status_code == 200


async def test_a_statement_without_dates_tells_how_to_take_them(client, make_metric):
    metric = await make_metric("SELECT count(*) FROM metrics")
    window = await window_of(client, metric)
    assert (window["offered"], window["line"], window["column"]) == (False, None, None)
    problem = (await client.get(f"/metrics/{metric}?start_date=2025-01-01")).json()
    assert window["why"] in problem["detail"]
    assert ":start_date" in problem["detail"]


async def test_a_window_that_moves_is_offered(client, make_metric):
    offered = {"mode": "auto", "offered": True, "why": None, "line": None, "column": None}
    assert await window_of(client, await make_metric(PERIOD)) == offered
    authored = await make_metric("SELECT count(*) / 30.0 FROM metrics WHERE date >= :start_date")
    assert await window_of(client, authored) == offered


async def test_dates_that_are_no_period_can_be_told_so(client, make_metric):
    metric = await make_metric(BIRTH)
    address = f"/metrics/{metric}"
    tag = (await client.get(f"{address}/definition")).headers["etag"]
    assert (await client.get(f"{address}?start_date=2025-01-01")).status_code == 200
    changed = await client.patch(address, json={"window": "off"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert changed.json()["window"]["mode"] == "off"
    assert "no reporting period" in changed.json()["window"]["why"]
    assert changed.json()["parameters"] == []
    refused = await client.get(f"{address}?start_date=2025-01-01")
    assert refused.status_code == 422
    assert "no reporting period" in refused.json()["detail"]
    versions = (await client.get(f"{address}/versions")).json()["items"]
    assert [each["window"] for each in versions] == ["off", "auto"]
    restored = await client.post(f"{address}/versions/1/restore")
    assert restored.json()["window"]["offered"]
    assert (await client.get(f"{address}?start_date=2025-01-01")).status_code == 200


async def test_a_metric_can_be_made_without_a_window_and_keeps_that_with_other_sql(client):
    made = await client.post("/metrics", json={"sql": BIRTH, "window": "off"})
    assert made.json()["parameters"] == []
    changed = await client.patch(made.headers["location"], json={"sql": PERIOD})
    assert (changed.json()["window"]["mode"], changed.json()["window"]["offered"]) == ("off", False)
    taken = await client.patch(made.headers["location"], json={"window": "auto"})
    assert taken.json()["window"]["offered"]


async def test_named_days_stay_parameters_whatever_the_window_says(client):
    sql = "SELECT count(*) AS n FROM metrics WHERE date BETWEEN :start_date AND :end_date"
    made = await client.post("/metrics", json={"sql": sql, "window": "off"})
    period = {"start_date": "2025-01-01", "end_date": "2025-01-31"}
    answer = await client.get(made.headers["location"], params=period)
    assert (answer.status_code, answer.json()["parameters"]) == (200, period)
    one = await client.get(made.headers["location"], params={"start_date": "2025-01-01"})
    assert (one.status_code, one.json()["errors"][0]["field"]) == (422, "end_date")


@pytest.mark.parametrize("window", ["on", "", None, True, "OFF"])
async def test_a_window_is_auto_or_off(client, make_metric, window):
    metric = await make_metric(PERIOD)
    answer = await client.patch(f"/metrics/{metric}", json={"window": window})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "window"


async def test_a_window_on_what_is_no_date_is_told_with_its_place(client, make_metric):
    metric = await make_metric("SELECT count(*) AS n FROM metrics WHERE id >= '2025-06-01'")
    window = await window_of(client, metric)
    assert (window["offered"], window["line"]) == (False, 1)
    assert "date or timestamp column" in window["why"]


async def test_the_document_knows_windows(client):
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    change = schemas["MetricChange"]["properties"]["window"]
    assert "off" in str(change)
    assert {"mode", "offered", "why", "line", "column"} <= schemas["Window"]["properties"].keys()
