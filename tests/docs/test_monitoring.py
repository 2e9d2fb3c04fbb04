"""Alerts and dashboard fit the metrics that the service really gives, and each alert has its section."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as read

from service.observe.families import FAMILIES
from tests.conftest import Running
from tests.programs import program

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "tally.json").read_text())
PANELS = DASHBOARD["panels"]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
OF_PROMETHEUS = {"instance", "job", "le"}


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in ALERTS)
    for panel in PANELS:
        yield from (target["expr"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield re.fullmatch(r"label_values\((.*), instance\)", variable["query"]["query"])[1]  # type: ignore[index]


async def test_alerts_and_panels_name_only_metrics_that_the_service_gives(shared_service: Running):
    given: set[str] = set()
    for family in read((await shared_service.client.get("/internal/prometheus")).text):
        given |= {family.name, f"{family.name}_total"} if family.type == "counter" else {family.name}
        given |= {sample.name for sample in family.samples}
    named = {name for each in expressions() for name in re.findall(r"\btally_\w+", each)}
    assert len(named) > 12
    assert named <= given


def test_every_metric_has_a_panel_and_a_line_in_the_docs():
    shown = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    for family in FAMILIES:
        assert family.name in shown, family.name
        suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
        labels = ", ".join(f"`{label}`" for label in family.labels)
        assert f"| `{family.name}{suffix}` | {labels}{' ' if labels else ''}| " in OPERATIONS


def test_alerts_and_panels_name_only_labels_that_their_metrics_have():
    known = {label for family in FAMILIES for label in family.labels} | OF_PROMETHEUS
    for each in expressions():
        groups = ",".join(re.findall(r"by \(([^)]*)\)", each))
        matchers = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", each)
        assert {label.strip() for label in groups.split(",") if label.strip()} | set(matchers) <= known, each


def anchor(heading: str) -> str:
    """The anchor that GitHub and its like give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_each_alert_has_a_section_of_its_own_and_each_section_an_alert():
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.*)$", OPERATIONS, re.MULTILINE)}
    for rule in ALERTS:
        page, _, name = rule["annotations"]["runbook"].partition("#")
        assert (page, name) == ("docs/operations.md", rule["alert"].lower())
        assert name in anchors
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    section = OPERATIONS.split("\n## Alerts\n")[1].split("\n## ")[0]
    assert re.findall(r"^### (.*)$", section, re.MULTILINE) == [rule["alert"] for rule in ALERTS]
    assert DASHBOARD["description"].endswith("docs/operations.md#metrics")
    assert "metrics" in anchors


def test_panels_do_not_lie_on_each_other():
    places = [
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) == 23
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool")


def checked(*command: str) -> None:
    done = subprocess.run(command, cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_alerts_fire_and_are_silent_when_they_should(promtool: str):
    checked(promtool, "check", "rules", RULES.name)
    checked(promtool, "test", "rules", "rules_test.yml")


def test_each_alert_is_tested_both_ways():
    cases = [
        case
        for test in yaml.safe_load(RULES.with_name("rules_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in ALERTS}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_prometheus_can_read_what_the_panels_ask(promtool: str, tmp_path: Path):
    fill = {"$__rate_interval": "5m", "$instance": ".*"}
    rules = []
    for number, each in enumerate(expressions()):
        text = each
        for name, value in fill.items():
            text = text.replace(name, value)
        rules.append({"record": f"panel:{number}", "expr": text})
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked(promtool, "check", "rules", str(file))
