"""Our data source and dashboard for Grafana's Infinity plugin: fields as documented, requests tried live."""

import hashlib
import json
import re
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.processes import serving_seeds

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(Path(__file__).with_name("infinity.schema.json").read_text())
PROVISIONED = (ROOT / "deploy" / "grafana" / "infinity.yml").read_text()
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "infinity.json").read_text())
SECRET = "tried-in-a-test-only"
FROM, TO = (datetime.fromisoformat(DASHBOARD["time"][each]) for each in ("from", "to"))
LAYOUTS = {"2006-01-02": "%Y-%m-%d"}  # Go's way to write a format
ACCEPT = "application/json;q=0.9,text/plain"  # what the plugin sends for JSON
KINDS = {"number": (int, float), "string": str, "timestamp": str}


def queries() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target) for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable["query"]["infinityQuery"]


QUERIES = dict(queries())


def check(value: object, definition: str) -> None:
    schema = {"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]}
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(value)


def filled(text: str, variables: dict[str, str]) -> str:
    """The text with Grafana's variables in their places."""
    days = {"__from": FROM, "__to": TO}
    text = re.sub(
        r"\$\{(__from|__to):date:YYYY-MM-DD\}",
        lambda found: f"{days[found[1]].astimezone(UTC):%Y-%m-%d}",
        text,
    )
    return re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], text)


@pytest.fixture(scope="module")
def source() -> Generator[dict[str, Any]]:
    """The data source as Grafana provisions it, of a running service that asks for tokens."""
    hashed = hashlib.sha256(SECRET.encode()).hexdigest()
    with serving_seeds(AUTH="on", AUTH_CLIENTS=f"grafana:{hashed}:metrics:read") as address:
        variables = {"TALLY_URL": address, "TALLY_CLIENT_ID": "grafana", "TALLY_CLIENT_SECRET": SECRET}
        (found,) = yaml.safe_load(filled(PROVISIONED, variables))["datasources"]
        yield found


@pytest.fixture(scope="module")
def client(source) -> Generator[httpx.Client]:
    """As the plugin signs in: id and secret in the header, a bearer token from then on."""
    settings, secret = source["jsonData"]["oauth2"], source["secureJsonData"]["oauth2ClientSecret"]
    body = {"grant_type": "client_credentials", "scope": " ".join(settings["scopes"])}
    answer = httpx.post(settings["token_url"], data=body, auth=(settings["client_id"], secret))
    assert answer.status_code == 200, answer.text
    headers = {
        "Authorization": f"Bearer {answer.json()['access_token']}",
        "Accept": ACCEPT,
    }
    with httpx.Client(base_url=source["url"], headers=headers) as opened:
        yield opened


def ask(client: httpx.Client, source: dict[str, Any], query: dict[str, Any], **variables: str) -> list[Any]:
    url = source["url"] + filled(query["url"], variables)
    assert any(url.startswith(host) for host in source["jsonData"]["allowedHosts"])
    pairs = query["url_options"].get("params", [])
    params = {each["key"]: filled(each["value"], variables) for each in pairs}
    answer = client.request(query["url_options"]["method"], url, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()[query["root_selector"]]


def test_data_source_and_queries_have_the_fields_of_the_plugin():
    check(yaml.safe_load(PROVISIONED), "provisioning")
    for panel in DASHBOARD["panels"]:
        check(panel["datasource"], "source")
        for target in panel["targets"]:
            check(target, "query")
    for variable in DASHBOARD["templating"]["list"]:
        check(variable["query"], "variable")


def test_panels_have_places_of_their_own():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells
        taken |= cells


@pytest.mark.parametrize("title", [title for title in QUERIES if title != "Any metric"])
def test_what_a_query_asks_for_is_there_with_its_types(client, source, title: str):
    query = QUERIES[title]
    rows = ask(client, source, query)
    assert rows
    for column in query["columns"]:
        values = [row[column["selector"]] for row in rows]
        assert all(each is None or isinstance(each, KINDS[column["type"]]) for each in values)
        assert any(each is not None for each in values)
        if layout := column.get("timestampFormat"):
            days = [datetime.strptime(each, LAYOUTS[layout]).replace(tzinfo=UTC) for each in values]
            assert FROM <= min(days) <= max(days) <= TO


def test_any_metric_of_the_list_can_be_chosen(client, source):
    listed = ask(client, source, QUERIES["metric"])
    assert len(listed) >= 5
    tried = 0
    for each in listed:
        definition = client.get(f"/api/v1/metrics/{each['id']}/definition").json()
        if not any(parameter["required"] for parameter in definition["parameters"]):
            assert isinstance(ask(client, source, QUERIES["Any metric"], metric=each["id"]), list)
            tried += 1
    assert tried >= 10


def test_the_health_check_passes_with_the_token_and_not_without(client, source):
    address = source["jsonData"]["customHealthCheckUrl"]
    assert client.get(address).status_code == 200
    assert httpx.get(address).status_code == 401
