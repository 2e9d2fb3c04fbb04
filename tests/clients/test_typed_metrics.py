"""`python -m tally_client metrics`: modules with the types of each metric, whatever its names are."""

import os
import subprocess
import sys
from decimal import Decimal
from importlib import import_module

import pytest

from tests.clients.conftest import run_node, type_check_python, type_check_typescript

WEIRD = """
    SELECT 1 AS class, 2::bigint AS "a-b", 'x' AS "日本", 1.50 AS n, 3 AS n, 9007199254740993 AS "it""s",
      123456789012345678901234567890.5 AS huge, 0.1::float8 AS half, NULL::date AS never, true AS "*/ yes",
      ARRAY[1.5, 2] AS many, '{"deep": 1.10}'::jsonb AS json
"""
TITLES = {
    "class": WEIRD,
    "Twin": "SELECT 1 AS n",
    "twin": "SELECT 1 AS n",
    "T win": "SELECT 1 AS n",
    "int": "SELECT 1 AS n",
    "日本": "SELECT 1 AS n",
    '"""; */ import os # ${x}': "SELECT 1 AS n",
    "2025 report": "SELECT 1 AS n",
    "Health": "SELECT 1 AS n",
    "Nothing": "SELECT FROM days",
    "Asked": "SELECT day, 1::int AS one FROM days WHERE day = :day::date ORDER BY 1",
}


@pytest.fixture(scope="module")
def made(tally_client, address, secret):
    token = tally_client.ClientCredentials(address, "sdk", secret)
    with tally_client.Client(address, token=token) as api:
        ids = {
            title: str(api.create_metric({"sql": sql, "title": title}).id) for title, sql in TITLES.items()
        }
        yield ids
        for each in ids.values():
            api.delete_metric(each)


def written(sdk, address, token, *options):
    command = [sys.executable, "-m", "tally_client", "metrics", "--url", address, *options]
    environment = os.environ | {"PYTHONPATH": str(sdk / "python"), "TALLY_TOKEN": token}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


USE_PYTHON = """
from datetime import date
from decimal import Decimal
from typing import assert_type
import metrics_of_test as metrics
from tally_client import Client

def use(client: Client) -> None:
    row = metrics.class_.get(client).records[0]
    assert_type(row["class"], int | None)
    assert_type(row["n"], Decimal | None)
    assert_type(row["huge"], Decimal | None)
    assert_type(row["half"], float | None)
    assert_type(row["日本"], str | None)
    assert_type(row["*/ yes"], bool | None)
    asked = metrics.asked.get(client, {"day": "2025-06-01"}).records[0]
    assert_type(asked["one"], int | None)
"""


@pytest.fixture(scope="module")
def programs(sdk, made, address, token_of, tmp_path_factory):
    """The folder of a program that takes the types for what they are, and of one that does not."""
    folder = tmp_path_factory.mktemp("programs")
    status, text, error = written(sdk, address, token_of)
    assert (status, error) == (0, "")
    (folder / "metrics_of_test.py").write_text(text)
    (folder / "use.py").write_text(USE_PYTHON)
    (folder / "wrong.py").write_text(USE_PYTHON.replace('row["half"], float', 'row["half"], Decimal'))
    return folder


def test_the_python_client_and_its_rows_have_the_types_that_they_say(sdk, programs):
    found = type_check_python(sdk, programs)
    assert found.keys() == {"wrong.py"}, found
    [message] = found["wrong.py"]
    assert "assert_type" in message


def test_python_rows_are_what_their_types_say(made, client, programs):
    sys.path.insert(0, str(programs))
    try:
        metrics = import_module("metrics_of_test")
    finally:
        sys.path.remove(str(programs))
    [row] = metrics.class_.get(client).records
    assert row == {
        "class": 1,
        "a-b": 2,
        "日本": "x",
        "n": Decimal("1.50"),
        "n_2": 3,
        'it"s': 9007199254740993,
        "huge": Decimal("123456789012345678901234567890.5"),
        "half": 0.1,
        "never": None,
        "*/ yes": True,
        "many": [Decimal("1.5"), Decimal(2)],
        "json": {"deep": Decimal("1.10")},
    }
    assert [type(row[name]) for name in ("class", "n", "half")] == [int, Decimal, float]
    assert metrics.nothing.get(client).records[:2] == [{}, {}]
    assert metrics.asked.get(client, {"day": "2025-06-02"}).records == [{"day": "2025-06-02", "one": 1}]
    assert set(made.values()) <= {
        each.id for each in vars(metrics).values() if isinstance(each, metrics.Metric)
    }


USE_TYPESCRIPT = """
import assert from 'node:assert/strict';
import { Tally } from './js/tally-client.js';
import * as metrics from './metrics.mts';

const [url, token] = process.argv.slice(2);
const api = new Tally({ url, token });
const { records: [row] } = await metrics.class$.get(api);
assert(row);
const one: number | null = row['class'];
const huge: number | bigint | string | null = row['huge'];
const half: number | null = row['half'];
const text: string | null = row['日本'];
const yes: boolean | null = row['*/ yes'];
assert.deepEqual([one, huge, half, text, yes], [1, '123456789012345678901234567890.5', 0.1, 'x', true]);
assert.deepEqual(row['it"s'], 9007199254740993n);
assert.deepEqual([row['n'], row['n_2'], row['never'], row['many']], [1.5, 3, null, [1.5, 2]]);
assert.deepEqual((await metrics.nothing.get(api)).records[0], {});
assert.equal((await metrics.asked.get(api, { day: '2025-06-02' })).records[0]?.one, 1);
const plain = new Tally({ url, token, numbers: 'plain' });
assert.equal((await metrics.class$.get(plain)).records[0]?.['it"s'], 9007199254740992);
console.log('well');
"""


def test_the_typescript_client_and_its_rows_have_the_types_that_they_say(sdk, address, made, token_of):
    status, text, error = written(sdk, address, token_of, "--typescript", "--package", "./js/tally-client.js")
    assert (status, error) == (0, "")
    (sdk / "metrics.mts").write_text(text)
    (sdk / "use.mts").write_text(USE_TYPESCRIPT)
    (sdk / "wrong.mts").write_text(USE_TYPESCRIPT.replace("half: number", "half: string"))
    try:
        found = type_check_typescript(sdk)
        assert run_node(sdk / "use.mts", address, token_of) == "well\n"
    finally:
        for name in ("metrics.mts", "use.mts", "wrong.mts"):
            (sdk / name).unlink()
    assert found.keys() == {"wrong.mts"}, found
    [message] = found["wrong.mts"]
    assert "'number | null' is not assignable to type 'string | null'" in message


def test_who_may_not_read_metrics_is_told_so(sdk, address):
    status, text, error = written(sdk, address, "")
    assert (status, text) == (1, "")
    assert "TALLY_TOKEN" in error
    assert "401" in error
    status, text, error = written(sdk, "http://127.0.0.1:1", "")
    assert (status, text) == (1, "")
    assert "nobody answers" in error
