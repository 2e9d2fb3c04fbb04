"""Numbers that callers send, or that data hold, come back as numbers with all their digits everywhere."""

import json
from decimal import Decimal

import pytest
from litestar.routes import HTTPRoute

from service.app.routes import routed
from service.http.requests import Exact
from tests.http.mcp import Assistant, message
from tests.live import conversing

JSON = {"Content-Type": "application/json"}
NUMBERS = ["1.5", "100000000000000000000", "0.123456789012345678901234567891", "1e400", "-0.0"]
SQL = "SELECT 1 AS n, :x::numeric AS x"


@pytest.fixture
def client(shared_service):
    return shared_service.client


def read(text):
    return json.loads(text, parse_float=Decimal)


def test_every_route_writes_numbers_exactly():
    handlers = {
        handler
        for route in routed().routes
        if isinstance(route, HTTPRoute)
        for handler, _ in route.route_handler_map.values()
    }
    assert {handler.resolve_response_class() for handler in handlers} == {Exact}


@pytest.mark.parametrize("number", NUMBERS)
async def test_the_default_of_a_parameter(client, number):
    body = f'{{"parameters":{{"x":{{"type":"number","default":{number}}}}},"sql":"{SQL}"}}'
    made = await client.post("/api/v1/metrics", content=body, headers=JSON)
    path, metric = made.headers["location"], made.json()["id"]
    restored = await client.post(f"{path}/versions/1/restore")
    for answer in (made, restored, await client.get(f"{path}/definition")):
        assert read(answer.text)["parameters"][0]["default"] == Decimal(number)
    for version in read((await client.get(f"{path}/versions")).text)["items"]:
        assert version["parameters"]["x"]["default"] == Decimal(number)
    result = read((await client.get(path)).text)
    assert result["parameters"]["x"] == result["records"][0]["x"] == Decimal(number)
    said = message("tools/call", {"name": "explain_metric", "arguments": {"id": metric}})
    explained = read((await Assistant(client).send(said, **{"Mcp-Name": "explain_metric"})).text)
    assert explained["result"]["structuredContent"]["parameters"][0]["default"] == Decimal(number)
    document = read((await client.get("/openapi.json", params={"metrics": "true"})).text)
    assert Decimal(number) in defaults(document["paths"][f"/api/v1/metrics/{metric}"])


def defaults(node):
    """The defaults in a part of an OpenAPI document."""
    if isinstance(node, list):
        return [each for item in node for each in defaults(item)]
    if not isinstance(node, dict):
        return []
    own = [node["default"]] if "default" in node else []
    return own + [each for item in node.values() for each in defaults(item)]


@pytest.mark.parametrize("number", NUMBERS)
async def test_the_parameter_of_a_caller(client, shared_service, number):
    (metric,) = await shared_service.store(SQL)
    entry = f'{{"id":"{metric}","parameters":{{"x":{number}}}}}'
    batch = await client.post("/api/v1/metrics/batch", content=f'{{"metrics":[{entry}]}}', headers=JSON)
    arguments = f'{{"id":"{metric}","parameters":{{"x":{number}}}}}'
    said = json.dumps(message("tools/call", {"name": "get_metric", "arguments": "ARGUMENTS"}))
    called = await Assistant(client).send_text(said.replace('"ARGUMENTS"', arguments))
    async with conversing(client) as socket:
        await socket.say_text(f'{{"type":"subscribe",{entry[1:]}')
        heard = read((await socket.next())["text"])
    assert heard["parameters"]["x"] == Decimal(number)
    found = [
        read(batch.text)["results"][0]["result"],
        read(called.text)["result"]["structuredContent"],
        heard["result"],
    ]
    for result in found:
        assert result["parameters"]["x"] == result["records"][0]["x"] == Decimal(number)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.123456789012345678901234567890", "0.123456789012345678901234567890"),
        ("9007199254740995", "9007199254740995"),
        ("1e400", "1" + "0" * 400),
        ("5.0", "5"),
        ("1e-7", "0.0000001"),
    ],
)
async def test_the_parameter_of_a_link(client, number, text):
    board = (await client.post("/dashboards", json={"title": f"A number {text[:40]}"})).json()["id"]
    body = {"sql": SQL, "dashboards": [{"id": board}]}
    assert (await client.post("/api/v1/metrics", json=body)).status_code == 201
    path = f"/api/v1/dashboards/{board}/links"
    made = await client.post(path, content=f'{{"parameters":{{"x":{number}}}}}', headers=JSON)
    assert made.json()["parameters"] == {"x": text}
    assert (await client.get(path)).json()["items"] == [made.json()]
    address = made.json()["url"].partition("8000")[2]
    (tile,) = read((await client.get(f"{address}/data")).text)["results"]
    assert tile["result"]["parameters"]["x"] == Decimal(number)
    huge = await client.post(path, content='{"parameters":{"x":1e999999999}}', headers=JSON)
    assert huge.status_code == 422
