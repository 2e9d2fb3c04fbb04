"""The shortcut for cache hits answers as the endpoint does, in every coding."""

from uuid import UUID

import msgspec
import pytest

from service.settings import Auth, Settings
from tests.conftest import _cloned, held
from tests.http.results.asking import COUNT, FACT, ask, fresh, running, status


async def test_the_second_answer_is_a_hit_with_the_same_bytes(service, make_metric):
    metric = await make_metric(COUNT)
    first, second = [await ask(service.fast, metric) for _ in range(2)]
    assert (status(first), status(second)) == ("tally; fwd=miss", "tally; hit")
    assert first.content == second.content
    assert service.hits == 1
    assert "run;dur=" in first.headers["server-timing"]


async def test_every_answer_carries_the_contract(service, make_metric):
    metric = await make_metric(COUNT)
    for answer in [await ask(service.fast, metric) for _ in range(2)]:
        assert answer.headers["etag"].startswith('"')
        assert answer.headers["age"] == "0"
        expected = "private, max-age=0, stale-while-revalidate=10, stale-if-error=86400"
        assert answer.headers["cache-control"] == expected
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]


SUBJECT = "current_setting('request.claims', true)::json ->> 'sub'"
SITE = "https://board.test"
CASES = {
    "plain": {},
    "gzip": {"accept-encoding": "gzip"},
    "zstd": {"accept-encoding": "zstd, gzip;q=0.5"},
    "csv": {"accept": "text/csv"},
    "ndjson": {"accept": "application/x-ndjson"},
    "an unacceptable format": {"accept": "image/png"},
    "no-cache": {"cache-control": "no-cache"},
    "max-age": {"cache-control": "max-age=0"},
    "the same tag": {"if-none-match": "TAG"},
    "a weak tag": {"if-none-match": "W/TAG"},
    "a list of tags": {"if-none-match": '"other", TAG'},
    "any tag": {"if-none-match": "*"},
    "another tag": {"if-none-match": '"other"'},
    "a page of another site": {"origin": "http://elsewhere.test"},
    "a page of an allowed site": {"origin": SITE},
    "an image of another site": {"sec-fetch-site": "cross-site"},
    "another host": {"host": "evil.test"},
    "a request id": {"x-request-id": "abc"},
    "a bad request id": {"x-request-id": "a b"},
    "a range": {"range": "bytes=0-1"},
    "an old directive": {"pragma": "no-cache"},
    "no host": {"host": ""},
    "a broken host": {"host": "a@b"},
    "two ranges of media": {"accept": "text/csv;q=0.1, application/json"},
    "a body": {"content-length": "2"},
}


@pytest.mark.parametrize(
    "query", ["", "?rows=200", "?format=csv", "?format=xml", "?rows=2&rows=3", "?other=1", "?rows="]
)
@pytest.mark.parametrize("headers", CASES.values(), ids=CASES)
async def test_the_shortcut_answers_as_the_endpoint_does(shared_service, shared_metric, query, headers):
    address = f"/api/v1/metrics/{shared_metric}{query}"
    base = {"accept-encoding": "identity", **headers}
    first = await shared_service.slow.get(address, headers=base | {"if-none-match": '"none"'})
    sent = {name: value.replace("TAG", first.headers.get("etag", "")) for name, value in base.items()}
    sides = (shared_service.slow, shared_service.fast)
    for method in ("GET", "HEAD"):
        slow, fast = [comparable(await side.request(method, address, headers=sent)) for side in sides]
        assert fast == slow
        assert method == "GET" or not slow[2]


async def test_the_endpoint_takes_every_spelling_that_the_router_gives_to_its_route(
    shared_service, shared_metric
):
    """The route itself refuses whatever arrives."""
    found = UUID(shared_metric)
    first = await ask(shared_service.fast, found)
    for path in (
        f"/metrics/{found}/",
        f"//api///v1//metrics//{found}//",
        f"/api/v1/%6detrics/{found.hex.upper()}",
        f"/api%2Fv1%2Fmetrics%2f{found}",
    ):
        for side in (shared_service.slow, shared_service.fast):
            answer = await side.get(f"http://127.0.0.1:8000{path}")
            assert (answer.status_code, answer.content) == (200, first.content), path


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ("GET /metrics/batch", 405, "method-not-allowed"),
        ("GET /metrics/none", 422, "invalid-input"),
        ("HEAD /metrics/none", 422, None),
        ("GET /metrics/{}/nothing", 404, "not-found"),
        ("GET /api/v2/metrics/{}", 404, "not-found"),
        ("POST /metrics/{}", 405, "method-not-allowed"),
        ("BREW /metrics/{}", 405, "method-not-allowed"),
        ("OPTIONS /metrics/{}", 204, None),
    ],
)
async def test_the_router_answers_everything_else(shared_service, shared_metric, asked, status, code):
    method, path = asked.format(shared_metric).split()
    answer = await shared_service.fast.request(method, path)
    assert answer.status_code == status
    assert code is None or answer.json()["code"] == code


async def test_lists_may_be_sent_in_several_lines(shared_service, shared_metric):
    address = f"/metrics/{shared_metric}"
    tag = (await shared_service.fast.get(address)).headers["etag"]
    lines = [("If-None-Match", '"other"'), ("If-None-Match", tag)]
    assert (await shared_service.fast.get(address, headers=lines)).status_code == 304
    lines = [("Accept", "image/png"), ("Accept", "text/csv")]
    answer = await shared_service.fast.get(address, headers=lines)
    assert answer.headers["content-type"].startswith("text/csv")


async def test_pages_of_allowed_sites_get_hits(shared_service, shared_metric):
    for client in (shared_service.slow, shared_service.fast):
        answer = await ask(client, shared_metric, origin=SITE)
        assert answer.headers["access-control-allow-origin"] == SITE
        assert answer.headers.get_list("vary") == ["Accept, Accept-Encoding", "Origin"]
    before = shared_service.hits
    await ask(shared_service.fast, shared_metric, origin=SITE)
    other = await ask(shared_service.fast, shared_metric, origin="https://elsewhere.test")
    assert "access-control-allow-origin" not in other.headers
    assert shared_service.hits == before + 2


def comparable(answer):
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    forced = "fwd=request" in headers.get("cache-status", "")
    if forced:  # each is a run of its own
        headers.pop("etag")
    if "problem" in headers.get("content-type", "") and answer.content:
        return answer.status_code, headers, {**answer.json(), "request_id": ""}
    return answer.status_code, headers, None if forced else answer.content


OWN = {"age", "x-request-id", "server-timing", "content-length"}


@pytest.fixture(scope="module")
async def shared_service(shared_settings):
    async with held(running(shared_settings)) as found:
        yield found


@pytest.fixture(scope="module")
async def shared_settings(server, template, tmp_path_factory):

    async with held(_cloned(server, template)) as addresses:
        own = msgspec.structs.replace(addresses, data_dir=tmp_path_factory.mktemp("shared"))
        yield Settings(database=own, auth=Auth(mode="off", cors_origins=(SITE,)))


@pytest.fixture(scope="module")
async def shared_metric(shared_settings, shared_service):
    sql = "SELECT n, 'row ' || n AS label FROM generate_series(1, :rows::int) AS n"
    made = await shared_service.slow.post(
        "/api/v1/metrics", json={"sql": sql, "parameters": {"rows": {"type": "integer", "default": 100}}}
    )
    return made.json()["id"]


@pytest.mark.parametrize("header", [("Range", "bytes=0-9"), ("Pragma", "no-cache")], ids=lambda each: each[0])
async def test_a_header_that_the_endpoint_ignores_leaves_a_hit_a_hit(shared_service, shared_metric, header):
    await ask(shared_service.fast, shared_metric)
    before = shared_service.hits
    answers = [
        await ask(each, shared_metric, **dict([header]))
        for each in (shared_service.slow, shared_service.fast)
    ]
    assert comparable(answers[0]) == comparable(answers[1])
    assert shared_service.hits == before + 1


async def test_the_shortcut_did_answer_in_the_comparison(shared_service, shared_metric):
    before = shared_service.hits
    for _ in range(3):
        await ask(shared_service.fast, shared_metric)
    assert shared_service.hits >= before + 2


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_each_coding_has_its_own_tag_and_the_same_content(shared_service, shared_metric, coding):
    plain, coded, again = [
        await ask(shared_service.fast, shared_metric, **{"accept-encoding": each})
        for each in ("identity", coding, coding)
    ]
    assert coded.headers["content-encoding"] == again.headers["content-encoding"] == coding
    assert plain.content == coded.content == again.content
    assert plain.headers["etag"] != coded.headers["etag"] == again.headers["etag"]
    assert plain.headers["vary"] == coded.headers["vary"] == "Accept, Accept-Encoding, Origin"


async def test_a_body_that_grows_is_compressed_from_then_on_and_one_that_shrinks_no_longer(
    service, make_metric, owner
):
    metric = await make_metric("SELECT id, date FROM metrics")
    await ask(service.fast, metric, **{"accept-encoding": "gzip"})
    for change, coding in (
        (FACT, None),
        ("INSERT INTO data.metrics (id, date) SELECT n, '2025-06-01' FROM generate_series(1, 99) n", "gzip"),
        ("DELETE FROM data.metrics WHERE id <> 'a'", None),
    ):
        moved = service.moved()
        await owner.execute(change)
        await moved
        plain = await fresh(service, metric)
        for client in (service.fast, service.fast, service.slow):
            answer = await ask(client, metric, **{"accept-encoding": "gzip"})
            assert answer.headers.get("content-encoding") == coding
            assert answer.content == plain.content
    assert service.hits >= 3
