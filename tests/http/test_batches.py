"""Batches over HTTP: each entry is answered alone, in order and within bounds."""

from uuid import uuid4

import pytest

from service.database.gateway import Database
from service.database.queries import Command
from tests.http.metrics import EXACT, FACTS, JUNE, problem


@pytest.fixture(scope="module")
def client(shared_service):
    return shared_service.client


@pytest.fixture(scope="module")
def clone(shared_service):
    return shared_service.database


@pytest.fixture(scope="module")
async def facts(clone: Database) -> None:
    await clone.write(Command("facts", FACTS))


async def test_a_batch_answers_each_entry_alone_and_in_order(client, make_metric, facts):
    good, bad = await make_metric(JUNE), await make_metric("SELECT 1 / (count(*) - count(*)) FROM metrics")
    unknown = str(uuid4())
    answer = await client.post(
        "/metrics/batch",
        json={
            "metrics": [
                {"id": good, "parameters": {"start_date": "2025-05-01"}},
                {"id": bad},
                {"id": unknown},
                {"id": "abc"},
                {"id": good, "parameters": {"nope": 1}},
                {"id": good},
            ]
        },
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [each["id"] for each in results] == [good, bad, unknown, "abc", good, good]
    assert [each["status"] for each in results] == [200, 422, 404, 422, 422, 200]
    assert results[0]["result"]["row_count"] == 3
    assert results[1]["problem"]["code"] == "query-failed"
    assert results[5]["etag"].startswith('"')


async def test_what_does_not_fit_into_a_batch_is_told_tile_by_tile(client, make_metric):
    large = "SELECT repeat('x', 10000) AS t, :n::int AS k FROM generate_series(1, 700)"
    metric, small = await make_metric(large), await make_metric("SELECT 1 AS n")
    entries = [{"id": metric, "parameters": {"n": n}} for n in range(6)]
    answer = await client.post("/metrics/batch", json={"metrics": [*entries, {"id": small}]})
    *large_results, small_result = answer.json()["results"]
    assert sorted(each["status"] for each in large_results) == [200, 200, 200, 200, 413, 413]
    assert small_result["status"] == 200
    refused = next(each for each in large_results if each["status"] == 413)
    assert refused["problem"]["code"] == "result-too-large"
    alone = await client.post("/metrics/batch", json={"metrics": [entries[large_results.index(refused)]]})
    assert alone.json()["results"][0]["status"] == 200


async def test_an_entry_of_a_batch_that_is_too_large_fails_alone(client, make_metric):
    metric = await make_metric("SELECT 1 AS n")
    large = {"id": metric, "parameters": {f"p{n}": "x" * 20 for n in range(20_000)}}
    answer = await client.post("/metrics/batch", json={"metrics": [large, {"id": metric}]})
    refused, good = answer.json()["results"]
    assert (refused["id"], refused["status"], good["status"]) == (metric, 422, 200)
    assert refused["problem"]["errors"] == [{"field": "entry", "message": "it takes more than 524288 bytes"}]


async def test_copies_of_a_result_in_a_batch_are_counted(client, make_metric):
    metric = await make_metric("SELECT repeat('x', 10000) AS t FROM generate_series(1, 700)")
    answer = await client.post("/metrics/batch", json={"metrics": [{"id": metric}] * 5})
    assert {each["status"] for each in answer.json()["results"]} == {413}


async def post_batch(client, text):
    return await client.post("/metrics/batch", content=text, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("entry", "named", "fault"),
    [
        ("5", None, "entry: Expected `object`"),
        ("null", None, "entry: Expected `object`"),
        ('{"parameters": {}}', None, "entry.id: Object missing"),
        ('{"id": 5}', None, "entry.id: Expected `str`"),
        ('{"id": "abc", "parameters": []}', "abc", "entry.parameters: Expected `object`"),
        ('{"id": "abc", "parameters": null}', "abc", "entry.parameters: Expected `object`"),
        ('{"id": "abc", "colour": "red"}', "abc", "entry.colour: Object contains unknown"),
        (
            f'{{"id": "abc", "parameters": {{"n": 1e{"9" * 20}}}}}',
            "abc",
            "entry.parameters[...]: Number out of",
        ),
        (
            f'{{"id": "abc", "parameters": {{"n": {"1" * 5000}}}}}',
            "abc",
            "entry.parameters[...]: Integer value out",
        ),
    ],
)
async def test_an_entry_that_cannot_be_read_fails_alone(client, make_metric, entry, named, fault):
    good = await make_metric("SELECT 1 AS n")
    answer = await post_batch(client, f'{{"metrics": [{{"id": "{good}"}}, {entry}, {{"id": "{good}"}}]}}')
    assert answer.status_code == 200
    first, wrong, last = answer.json()["results"]
    assert (first["status"], last["status"]) == (200, 200)
    assert (wrong["id"], wrong["status"]) == (named, 422)
    assert '{"id": "<UUID' in wrong["problem"]["detail"]
    [error] = wrong["problem"]["errors"]
    assert f"{error['field']}: {error['message']}".startswith(fault)


async def test_an_entry_in_another_encoding_fails_alone(client, make_metric):
    good = await make_metric("SELECT 1 AS n")
    text = f'{{"metrics": [{{"id": "caf\xe9"}}, {{"id": "{good}"}}]}}'.encode("latin-1")
    results = (await post_batch(client, text)).json()["results"]
    assert [(each["id"], each["status"]) for each in results] == [(None, 422), (good, 200)]
    assert results[0]["problem"]["errors"] == [{"field": "entry", "message": "JSON must be UTF-8"}]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '{"metrics": 5}', '{"metrics": {}}', '{"metrics": []}', '{"metrics": [tru]}',
        '{"metrics": [{"id": "abc"}], "colour": "red"}', '{"metrics": [' + "[" * 100_000,
        '{"metrics": [' + ",".join(['{"id": "abc"}'] * 101) + "]}",
    ],
    ids=range(11),
)  # fmt: skip
async def test_a_body_that_is_no_batch_is_422(client, text):
    answer = await post_batch(client, text)
    assert (answer.status_code, problem(answer)["code"]) == (422, "invalid-input")


@pytest.mark.parametrize("number", EXACT)
async def test_a_number_in_a_batch_is_taken_as_it_is_written(client, make_metric, number):
    metric = await make_metric("SELECT :n::numeric AS n, CAST(:all AS numeric[]) AS all")
    entry = f'{{"id": "{metric}", "parameters": {{"n": {number}, "all": [{number}, 1.5e0]}}}}'
    answer = await post_batch(client, f'{{"metrics": [{entry}]}}')
    assert f'"records":[{{"n":{number},"all":[{number},1.5]}}]' in answer.text


async def test_a_number_and_its_text_are_not_the_same_entry(client, make_metric):
    metric = await make_metric("SELECT :t::text AS t")
    entries = [{"id": metric, "parameters": {"t": value}} for value in ("1.5", 1.5)]
    results = (await client.post("/metrics/batch", json={"metrics": entries})).json()["results"]
    assert [each["status"] for each in results] == [200, 422]
