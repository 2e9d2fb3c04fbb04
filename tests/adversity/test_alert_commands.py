"""`tally alert`, and the rule that the sample brings."""

import json

import pytest

from service.database.embedded import running
from tests.adversity.conftest import Commanded
from tests.processes import seeded


@pytest.fixture(scope="module")
def folder():
    with seeded() as opened, running(opened):
        yield opened


def lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_sample_watches_interactions_per_day_and_channel(command: Commanded, folder):
    (rule,) = lines(command("alert", "rules", DATA_DIR=folder))
    assert (rule["kind"], rule["by"], rule["missing"]) == ("anomaly", ["channel"], "zero")
    found = lines(
        command(
            "alert", "preview", rule["metric_id"], "--column", "interactions", "--kind", "threshold",
            "--above", "3", "--by", "channel", DATA_DIR=folder,
        )
    )  # fmt: skip
    assert found
    assert {"series", "point", "value", "expected"} == found[0].keys()
    # Seeding again changes nothing, and brings back nothing that was deleted.
    assert lines(command("alert", "rules", DATA_DIR=folder)) == [rule]
    assert command("alert", "delete", rule["id"], DATA_DIR=folder).returncode == 0
    assert command("seed", DATA_DIR=folder).returncode == 0
    assert lines(command("alert", "rules", DATA_DIR=folder)) == []


def test_rules_are_made_and_lists_are_empty_at_first(command: Commanded, folder):
    metric = json.loads(command("metric", "add", "--sql", "SELECT 7 AS n", DATA_DIR=folder).stdout)["id"]
    done = command(
        "alert", "add", "Seven", metric, "--column", "n", "--kind", "threshold", "--above", "5",
        "--webhook", "http://127.0.0.1:9/", DATA_DIR=folder,
    )  # fmt: skip
    (rule,) = lines(done)
    assert rule["webhook_secret"].startswith("whsec_")
    assert lines(command("alert", "list", "--open", DATA_DIR=folder)) == []
    assert lines(command("alert", "deliveries", DATA_DIR=folder)) == []
    table = command("alert", "rules", "--csv", DATA_DIR=folder).stdout
    assert "Seven" in table
    wrong = command("alert", "add", "Six", metric, "--column", "m", DATA_DIR=folder)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no column 'm'" in wrong.stderr
    assert command("alert", "replay", "msg_none", DATA_DIR=folder).returncode == 2
    assert command("alert", "list", "--open", "--state", "firing", DATA_DIR=folder).returncode == 2
