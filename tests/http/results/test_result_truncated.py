"""Rows past ROW_LIMIT are missing: each way to a result says so."""

import msgspec
import pyarrow as pa
import pytest

from service.database.gateway import Command
from service.results.stored import SharedResult, open_sealed, seal
from tests.conftest import held, whole_service
from tests.http.mcp import Assistant
from tests.pure.test_sharing import LIFE, _result

LIMIT = 3
ROWS = "SELECT n FROM generate_series(1, {}) AS n"
FORMATS = ("json", "csv", "ndjson", "arrow")
HEADER = "tally-truncated"


@pytest.fixture(scope="module")
async def limited(server, template):
    async with held(whole_service(server, template, row_limit=LIMIT)) as service:
        yield service


@pytest.fixture(scope="module")
async def metrics(limited):
    """One that has more rows than the limit, and one that has as many."""
    return await limited.store(ROWS.format(LIMIT + 1), ROWS.format(LIMIT))


async def write(limited, sql):
    await limited.database.write(Command("made", sql))


def rows_of(answer, form):
    match form:
        case "json":
            return len(answer.json()["records"])
        case "csv":
            return len(answer.text.splitlines()) - 1
        case "ndjson":
            return len(answer.text.splitlines())
        case _:
            return pa.ipc.open_stream(answer.content).read_all().num_rows


@pytest.mark.parametrize("form", FORMATS)
async def test_every_format_says_by_a_header_that_rows_are_missing(limited, metrics, form):
    cut, whole = metrics
    for _ in range(3):  # run, held, and by the shortcut
        answers = [await limited.client.get(f"/metrics/{each}?format={form}") for each in (cut, whole)]
        assert [each.headers.get(HEADER) for each in answers] == ["true", None]
        assert [rows_of(each, form) for each in answers] == [LIMIT, LIMIT]
    tag = {"If-None-Match": answers[0].headers["etag"]}
    unchanged = await limited.client.get(f"/metrics/{cut}?format={form}", headers=tag)
    assert (unchanged.status_code, unchanged.headers[HEADER]) == (304, "true")
    head = await limited.client.head(f"/metrics/{cut}?format={form}")
    assert head.headers[HEADER] == "true"


async def test_json_mcp_and_batches_say_so_in_the_result(limited, metrics):
    assistant = Assistant(limited.client)
    asked = {"metrics": [{"id": metric} for metric in metrics]}
    batch = (await limited.client.post("/metrics/batch", json=asked)).json()["results"]
    for metric, entry, expected in zip(metrics, batch, (True, False), strict=True):
        assert (await limited.client.get(f"/metrics/{metric}")).json()["truncated"] is expected
        told = await assistant.call("get_metric", id=metric)
        assert told["structuredContent"]["truncated"] is expected
        assert entry["result"]["truncated"] is expected


async def test_a_run_that_reads_the_same_rows_of_fewer_or_more_says_what_holds_now(limited):
    [metric] = await limited.store("SELECT 1 AS n FROM customers")
    address = f"/metrics/{metric}?format=ndjson"
    for count, expected in ((LIMIT, None), (LIMIT + 1, "true"), (LIMIT, None)):
        await write(limited, "DELETE FROM data.customers")
        await write(limited, f"INSERT INTO data.customers (customer_id) SELECT generate_series(1, {count})")
        answer = await limited.client.get(address, headers={"Cache-Control": "no-cache"})
        assert (rows_of(answer, "ndjson"), answer.headers.get(HEADER)) == (LIMIT, expected)


def test_another_node_learns_of_it():
    """As the shared store has it, signed."""
    cut = msgspec.structs.replace(_result(), truncated=True)
    found = open_sealed(seal(cut, LIFE), b"key", LIFE)
    assert isinstance(found, SharedResult)
    assert found.truncated
