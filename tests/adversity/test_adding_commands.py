"""`tally add`: what it prints, its exit status, and files that are no export."""

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.adversity.conftest import Commanded
from tests.processes import PATIENCE_S, ROOT, environment, tally
from tests.waiting import eventually

EXPORTS = Path(__file__).parents[1] / "exports"


@pytest.fixture
def database(addresses) -> dict[str, str]:
    return {"DATABASE_URL": addresses.url, "READER_DATABASE_URL": addresses.reader_url}


def lines(text: str):
    return [json.loads(line) for line in text.splitlines()]


def test_what_is_refused_is_listed_and_told_by_the_status(command: Commanded, database):
    file = str(EXPORTS / "redash-dashboard.json")
    done = command("add", "redash", file, "--dry-run", **database)
    assert (done.returncode, done.stderr) == (3, "tally: 7 of 10 taken\n")
    assert {each["state"] for each in lines(done.stdout)} == {"would add", "refused"}
    assert all(each["why"] for each in lines(done.stdout) if each["state"] == "refused")

    done = command("add", "redash", file, "--dashboard", "desk", **database)
    assert (done.returncode, done.stderr) == (3, "tally: 7 of 10 taken on the dashboard desk\n")
    boards = lines(command("dashboard", "list", **database).stdout)
    assert {"id": "desk", "title": "Customer desk", "metrics": 7} in boards

    again = command("add", "redash", file, "--dashboard", "desk", "--csv", **database)
    rows = list(csv.DictReader(again.stdout.splitlines()))
    assert [row["state"] for row in rows].count("unchanged") == 7


def test_two_processes_that_take_the_same_file_at_once_store_each_metric_once(database, addresses):
    """Both have read the catalogue before one of them may store: a lock holds them until both wait."""
    file = str(EXPORTS / "redash-dashboard.json")
    with psycopg.connect(addresses.url, autocommit=True) as session:
        before = session.execute("SELECT count(*) FROM catalog.metric").fetchone()
        session.execute("SELECT pg_advisory_lock(hashtextextended('tally add', 0))")
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "service", "add", "redash", file],
                cwd=ROOT,
                env=environment(**database),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        try:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            eventually(lambda: session.execute(waiting).fetchone() == (2,))
            session.execute("SELECT pg_advisory_unlock_all()")
            done = [process.communicate(timeout=PATIENCE_S) for process in started]
        finally:
            for process in started:
                process.kill()
        states = [Counter(line["state"] for line in lines(out)) for out, _ in done]
        assert sorted((each["added"], each["unchanged"]) for each in states) == [(0, 7), (7, 0)], done
        after = session.execute("SELECT count(*) FROM catalog.metric").fetchone()
        assert after[0] - before[0] == 7
        boards = session.execute("SELECT count(*) FROM catalog.dashboard WHERE title = 'Customer desk'")
        assert boards.fetchone() == (1,)


@pytest.mark.parametrize(("tool", "taken", "parts"), [("grafana", 7, 12), ("metabase", 4, 8)])
def test_dashboards_of_all_tools_are_taken(command: Commanded, database, tool: str, taken: int, parts: int):
    done = command("add", tool, str(EXPORTS / f"{tool}-dashboard.json"), **database)
    assert (done.returncode, done.stderr) == (
        3,
        f"tally: {taken} of {parts} taken on the dashboard customer-desk\n",
    )


def test_a_file_that_is_taken_whole_is_status_0(command: Commanded, database, tmp_path):
    query = {"id": 4, "name": "One", "query": "SELECT 1 AS n", "data_source_id": 1, "options": {}}
    file = tmp_path / "query.json"
    file.write_text(json.dumps(query))
    done = command("add", "redash", str(file), **database)
    assert (done.returncode, lines(done.stdout)[0]["state"]) == (0, "added")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"{", "is not JSON"),
        (b'"\xff"', "is not UTF-8"),
        (b'{"items": []}', "is no export of Redash"),
        (b'{"panels": [], "schemaVersion": 39}', "an export of Grafana: use `tally add grafana`"),
        (b'{"dashcards": []}', "an export of Metabase: use `tally add metabase`"),
        (b" " * ((16 << 20) + 1), "bytes: it is no export"),
    ],
    ids=["empty", "truncated", "encoding", "other", "grafana", "metabase", "huge"],
)
def test_a_bad_file_is_one_sentence_and_exit_2(command: Commanded, tmp_path, content, why):
    file = tmp_path / "export.json"
    file.write_bytes(content)
    done = command("add", "redash", str(file))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert why in done.stderr


def test_standard_input_is_read_too():
    done = tally("add", "metabase", "-", stdin='{"widgets": []}')
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tally: this looks like an export of Redash: use `tally add redash`\n"


def test_a_missing_file_and_a_bad_id_are_one_sentence(command: Commanded, database, tmp_path):
    missing = command("add", "redash", str(tmp_path / "none.json"))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "No such file" in missing.stderr
    file = str(EXPORTS / "redash-dashboard.json")
    bad = command("add", "redash", file, "--dashboard", "No id", **database)
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
    assert "a-z, 0-9 and -" in bad.stderr
