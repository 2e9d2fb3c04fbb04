"""`tally alert`, and the rule that the sample brings."""

import json

import pytest

from tests.processes import open_folder, tally


@pytest.fixture(scope="module")
def folder():
    with open_folder() as opened:
        assert tally("migrate", DATA_DIR=opened).returncode == 0
        assert tally("seed", DATA_DIR=opened).returncode == 0
        yield opened


def lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_sample_watches_interactions_per_day_and_channel(folder):
    (rule,) = lines(tally("alert", "rules", DATA_DIR=folder))
    assert (rule["kind"], rule["by"], rule["missing"]) == ("anomaly", ["channel"], "zero")
    found = lines(
        tally(
            "alert", "preview", rule["metric_id"], "--column", "interactions", "--kind", "threshold",
            "--above", "3", "--by", "channel", DATA_DIR=folder,
        )
    )  # fmt: skip
    assert found
    assert {"series", "point", "value", "expected"} == found[0].keys()
    # Seeding again changes nothing, and brings back nothing that was deleted.
    assert lines(tally("alert", "rules", DATA_DIR=folder)) == [rule]
    assert tally("alert", "delete", rule["id"], DATA_DIR=folder).returncode == 0
    assert tally("seed", DATA_DIR=folder).returncode == 0
    assert lines(tally("alert", "rules", DATA_DIR=folder)) == []


def test_rules_are_made_and_lists_are_empty_at_first(folder):
    metric = json.loads(tally("metric", "add", "--sql", "SELECT 7 AS n", DATA_DIR=folder).stdout)["id"]
    done = tally(
        "alert", "add", "Seven", metric, "--column", "n", "--kind", "threshold", "--above", "5",
        "--webhook", "http://127.0.0.1:9/", DATA_DIR=folder,
    )  # fmt: skip
    (rule,) = lines(done)
    assert rule["webhook_secret"].startswith("whsec_")
    assert lines(tally("alert", "list", "--open", DATA_DIR=folder)) == []
    assert lines(tally("alert", "deliveries", DATA_DIR=folder)) == []
    table = tally("alert", "rules", "--csv", DATA_DIR=folder).stdout
    assert "Seven" in table
    wrong = tally("alert", "add", "Six", metric, "--column", "m", DATA_DIR=folder)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no column 'm'" in wrong.stderr
    assert tally("alert", "replay", "msg_none", DATA_DIR=folder).returncode == 2
    assert tally("alert", "list", "--open", "--state", "firing", DATA_DIR=folder).returncode == 2
