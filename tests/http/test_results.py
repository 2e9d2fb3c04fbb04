"""Results over HTTP: cached, fresh, stale and said so; the shortcut answers as the endpoint does."""

import asyncio
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import httpx
import msgspec
import pytest

from service.app import create_app, layered
from service.database.gateway import open_database
from service.database.queries import Command
from service.errors import DatabaseUnavailable
from service.metrics.batch import SIDE_BY_SIDE
from service.observe.log import set_up_logs
from service.results.cache_hits import CacheHitMiddleware
from service.settings import Logs, Results
from tests.conftest import held
from tests.waiting import until

COUNT = "SELECT count(*) AS n FROM metrics"
FACT = "INSERT INTO data.metrics (id, date) VALUES ('a', '2025-06-01')"


def status(answer):
    return answer.headers["cache-status"]


def count(answer):
    return answer.json()["records"][0]["n"]


@pytest.fixture
async def owner(addresses):
    connection = await asyncpg.connect(addresses.url)
    yield connection
    await connection.close()


@pytest.fixture
async def service(settings):
    """The app as a server runs it: with the shortcut for cache hits, and without it."""
    async with running(settings) as found:
        yield found


@pytest.fixture
def client(service):
    """What `make_metric` waits for."""
    return service.fast


@asynccontextmanager
async def running(settings):
    set_up_logs(Logs(level="error"))
    app = create_app(settings)
    async with held(app.lifespan()):
        lane = layered(app)
        async with calls(lane) as fast, calls(lane._app) as slow:
            yield Service(app, lane, fast, slow)


def calls(app):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


class Service(msgspec.Struct):
    app: object
    lane: CacheHitMiddleware
    fast: httpx.AsyncClient
    slow: httpx.AsyncClient

    def moved(self):
        """Fulfilled when the next change has been heard."""
        return asyncio.ensure_future(self._moved(self.generations()))

    def generations(self):
        counters = self.app.state.base.results.generations._counters
        return {table: counter.generation for table, counter in counters.items()}

    async def _moved(self, before):
        await until(lambda: self.generations() != before)


async def ask(client, metric, **headers):
    answer = await client.get(f"/api/v1/metrics/{metric}", headers=headers)
    assert answer.status_code in {200, 304}, answer.text
    return answer


async def fresh(service, metric):
    """The first answer that is not marked stale."""

    async def once():
        answer = await ask(service.fast, metric)
        return None if "detail=stale" in status(answer) else answer

    return await until(once)


async def test_the_second_answer_is_a_hit_with_the_same_bytes(service, make_metric):
    metric = await make_metric(COUNT)
    first, second = [await ask(service.fast, metric) for _ in range(2)]
    assert (status(first), status(second)) == ("tally; fwd=miss", "tally; hit")
    assert first.content == second.content
    assert service.lane.hits == 1
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
    before = shared_service.lane.hits
    await ask(shared_service.fast, shared_metric, origin=SITE)
    other = await ask(shared_service.fast, shared_metric, origin="https://elsewhere.test")
    assert "access-control-allow-origin" not in other.headers
    assert shared_service.lane.hits == before + 2


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
    from service.settings import Auth, Settings
    from tests.conftest import _cloned

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


async def test_the_lane_did_answer_in_the_comparison(shared_service, shared_metric):
    before = shared_service.lane.hits
    for _ in range(3):
        await ask(shared_service.fast, shared_metric)
    assert shared_service.lane.hits >= before + 2


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
    assert service.lane.hits >= 3


async def test_a_change_is_seen_and_until_then_the_old_answer_says_that_it_is_stale(
    service, make_metric, owner
):
    metric = await make_metric(COUNT)
    before = [await ask(service.fast, metric) for _ in range(2)][-1]
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    after = await fresh(service, metric)
    assert (count(before), count(after)) == (0, 1)
    assert before.headers["etag"] != after.headers["etag"]
    assert status(await ask(service.fast, metric)) == "tally; hit"


async def test_a_change_that_does_not_show_keeps_the_tag(service, make_metric, owner):
    metric = await make_metric("SELECT count(*) AS n FROM metrics WHERE id = 'other'")
    before = await ask(service.fast, metric)
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    again = await fresh(service, metric)
    assert status(again).startswith("tally; fwd=stale")
    assert (await ask(service.fast, metric, **{"if-none-match": before.headers["etag"]})).status_code == 304


async def test_a_slow_query_is_served_stale_at_once_while_it_runs_again(service, make_metric, owner):
    metric = await make_metric("SELECT count(*) AS n, pg_sleep(0.4) IS NULL FROM metrics", trusted=True)
    await ask(service.fast, metric)
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    stale = await ask(service.fast, metric)
    assert (count(stale), status(stale)) == (0, "tally; hit; ttl=-1; detail=stale")
    assert count(await fresh(service, metric)) == 1


async def test_no_cache_forces_a_run_and_max_age_one_that_is_young_enough(service, make_metric):
    metric = await make_metric(COUNT)
    first = await ask(service.fast, metric)
    forced = await ask(service.fast, metric, **{"cache-control": "no-cache"})
    assert status(forced) == "tally; fwd=request"
    assert forced.json()["as_of"] > first.json()["as_of"]
    assert status(await ask(service.fast, metric, **{"cache-control": "max-age=60"})) == "tally; hit"
    assert status(await ask(service.fast, metric, **{"cache-control": "max-age=0"})) == "tally; fwd=request"


@pytest.mark.parametrize(
    ("later_s", "expected", "said"), [(9, 0, "detail=stale"), (10, 1, "fwd=stale"), (40, 1, "fwd=stale")]
)
async def test_the_old_answer_is_served_for_a_moment_only(
    service, make_metric, owner, monkeypatch, *, later_s, expected, said
):
    metric = await make_metric("SELECT count(*) AS n, pg_sleep(0.4) IS NULL FROM metrics", trusted=True)
    await ask(service.fast, metric)
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    results = service.app.state.base.results
    counter = results.generations._counters["data.metrics"]
    monkeypatch.setattr(results, "clock", lambda: counter.last_rose_at + later_s)
    answer = await ask(service.fast, metric)
    assert (count(answer), said in status(answer)) == (expected, True)


async def test_a_forced_run_that_fails_ends_the_freshness_of_what_is_held(
    settings, make_metric, owner, monkeypatch
):
    """Nobody else has noticed yet."""
    monkeypatch.setattr("service.results.changes.POLL_S", 3600)
    await owner.execute("CREATE TABLE data.plain AS SELECT 1 AS n; GRANT SELECT ON data.plain TO PUBLIC")
    metric = await make_metric("SELECT n FROM plain")
    async with running(settings) as service:
        for _ in range(2):
            kept = await ask(service.fast, metric)
        assert status(kept) == "tally; hit"
        await owner.execute("ALTER TABLE data.plain RENAME n TO m")
        forced = await service.fast.get(f"/metrics/{metric}", headers={"cache-control": "no-cache"})
        assert (forced.status_code, forced.json()["sqlstate"]) == (422, "42703")
        for side in (service.fast, service.slow):
            after = await side.get(f"/metrics/{metric}")
            assert after.status_code == 422 or "detail=stale" in status(after)


async def fails():
    raise DatabaseUnavailable


async def hangs():
    await asyncio.Event().wait()


@pytest.mark.parametrize("poll", [fails, hangs])
async def test_without_a_poll_nothing_is_known_to_be_fresh(service, make_metric, monkeypatch, poll):
    metric = await make_metric(COUNT)

    async def hit():
        return status(await ask(service.fast, metric)) == "tally; hit"

    async def doubtful():
        return not await hit()

    await until(hit)
    with monkeypatch.context() as patched:
        patched.setattr("service.results.changes.POLL_DEADLINE_S", 0.5)
        patched.setattr(service.app.state.services.changes, "poll", poll)
        await until(doubtful, 5)
        for _ in range(3):
            assert "fwd=stale" in status(await ask(service.fast, metric))
    await until(hit)


async def test_what_changes_while_it_is_first_understood_is_not_missed(
    service, make_metric, owner, monkeypatch
):
    await owner.execute("CREATE VIEW data.seen AS SELECT count(*) AS n FROM data.metrics")
    metric = await make_metric("SELECT n FROM seen")
    reader = service.app.state.services.executor._reader
    describe, changes = reader.describe, iter(["metrics AS m", "customers"])

    async def interrupted(sql, watch=None):
        description = await describe(sql, watch)
        if table := next(changes, None):
            await owner.execute(f"CREATE OR REPLACE VIEW data.seen AS SELECT count(*) AS n FROM data.{table}")
        return description

    monkeypatch.setattr(reader, "describe", interrupted)

    async def understood():
        definition = await service.fast.get(f"/metrics/{metric}/definition")
        return definition.json()["tables"] == ["data.customers"]

    await until(understood)


async def test_what_reads_the_clock_stays_fresh_for_a_while_only(service, make_metric):
    metric = await make_metric("SELECT now() AS t")
    answer = [await ask(service.fast, metric) for _ in range(2)][-1]
    assert answer.headers["cache-control"].startswith("private, max-age=")
    max_age = int(answer.headers["cache-control"].split("max-age=")[1].split(",")[0])
    assert 0 <= max_age <= 60
    assert status(answer).startswith("tally; hit; ttl=")


async def test_a_thousand_callers_of_a_cold_metric_cost_one_execution(service, make_metric, owner):
    sql = "SELECT count(*) AS n, pg_sleep(0.3) IS NULL, clock_timestamp() AS t FROM metrics"
    metric = await make_metric(sql, trusted=True)
    answers = await asyncio.gather(*(ask(service.fast, metric) for _ in range(1000)))
    assert len({answer.content for answer in answers}) == 1
    assert sorted({status(answer) for answer in answers}) == ["tally; fwd=miss", "tally; fwd=miss; collapsed"]


async def test_an_error_is_the_same_for_all_who_wait(service, make_metric):
    metric = await make_metric("SELECT 1 / count(*) AS n FROM metrics")
    answers = await asyncio.gather(*(service.fast.get(f"/metrics/{metric}") for _ in range(50)))
    assert {(answer.status_code, answer.json()["sqlstate"]) for answer in answers} == {(422, "22012")}
    assert len({answer.json()["request_id"] for answer in answers}) == 50


async def test_an_error_ends_with_the_data_that_made_it(service, make_metric, owner):
    metric = await make_metric("SELECT 1 / count(*) AS n FROM metrics")
    assert (await service.fast.get(f"/metrics/{metric}")).status_code == 422
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    assert count(await ask(service.fast, metric)) == 1


async def test_a_changed_definition_is_seen_at_once(service, make_metric):
    metric = await make_metric(COUNT)
    for _ in range(2):
        await ask(service.fast, metric)
    await service.fast.patch(f"/metrics/{metric}", json={"title": "Anew", "sql": "SELECT 7 AS n"})
    answer = await ask(service.fast, metric)
    assert (answer.json()["title"], count(answer)) == ("Anew", 7)
    await service.fast.delete(f"/metrics/{metric}")
    assert (await service.fast.get(f"/metrics/{metric}")).status_code == 404


async def test_a_redefined_view_is_noticed(service, make_metric, owner):
    await owner.execute("CREATE VIEW data.seen AS SELECT count(*) AS n FROM data.metrics")
    metric = await make_metric("SELECT n FROM seen")
    assert count(await ask(service.fast, metric)) == 0
    await owner.execute("CREATE OR REPLACE VIEW data.seen AS SELECT count(*) + 5 AS n FROM data.customers")
    await owner.execute("SELECT pg_stat_force_next_flush()")

    async def redefined():
        return count(await ask(service.fast, metric)) == 5

    await until(redefined)
    moved = service.moved()
    await owner.execute("INSERT INTO data.customers VALUES (1, 'Cook', 'Gold')")
    await moved
    assert count(await fresh(service, metric)) == 6


async def test_what_was_redefined_while_it_was_understood_is_understood_anew(
    service, make_metric, monkeypatch
):
    metric = await make_metric("SELECT 1 AS n")
    executor = service.app.state.services.executor
    plan_metric, understood = executor.plan_metric, []

    async def interrupted(metric):
        understood.append(await plan_metric(metric))
        if len(understood) == 1:
            executor.forget()
        return understood[-1]

    monkeypatch.setattr(executor, "plan_metric", interrupted)
    executor.forget()
    await ask(service.fast, metric)
    assert len(understood) == 2


async def test_a_view_is_followed_to_a_table_that_was_renamed(service, make_metric, owner):
    await owner.execute(
        "CREATE TABLE data.first (x int); SELECT app.watch('data.first');"
        "CREATE VIEW data.seen AS SELECT count(*) AS n FROM data.first"
    )
    metric = await make_metric("SELECT n FROM seen")
    assert count(await ask(service.fast, metric)) == 0
    await owner.execute("ALTER TABLE data.first RENAME TO second")

    async def renamed():
        await ask(service.fast, metric)
        definition = await service.fast.get(f"/metrics/{metric}/definition")
        return definition.json()["tables"] == ["data.second"]

    await until(renamed)
    await ask(service.fast, metric)
    await owner.execute("INSERT INTO data.second VALUES (1)")

    async def seen():
        return count(await ask(service.fast, metric)) == 1

    await until(seen)


async def test_row_security_ends_what_was_shared(service, make_metric, owner):
    await owner.execute("CREATE TABLE data.secret AS SELECT 1 AS n")
    await owner.execute("SELECT pg_stat_force_next_flush()")
    metric = await make_metric("SELECT count(*) AS n FROM secret")
    assert count(await ask(service.fast, metric)) == 1
    await owner.execute("ALTER TABLE data.secret ENABLE ROW LEVEL SECURITY")

    async def hidden():
        return count(await ask(service.fast, metric)) == 0

    await until(hidden)


async def test_a_dashboard_is_one_answer_with_one_tag(service, make_metric, owner):
    tiles = [await make_metric(COUNT), await make_metric("SELECT 1 AS n")]
    places = [{"i": tile, "x": 0, "y": 0, "w": 1, "h": 1} for tile in tiles]
    await service.fast.put("/dashboards/default/layouts", json={"lg": places})
    address = "/api/v1/dashboards/default/data"
    first, second = [await service.fast.get(address) for _ in range(2)]
    assert (status(first), status(second)) == ("tally; fwd=miss", "tally; hit")
    assert first.content == second.content
    assert service.lane.hits == 1
    tag = {"if-none-match": second.headers["etag"]}
    assert (await service.fast.get(address, headers=tag)).status_code == 304
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    await fresh(service, tiles[0])
    changed = await service.fast.get(address, headers=tag)
    assert {tile["result"]["records"][0]["n"] for tile in changed.json()["results"]} == {1}
    assert status(await service.fast.get(address)) == "tally; hit"


async def test_a_dashboard_with_a_failing_tile_is_not_kept(service, make_metric):
    tile = await make_metric("SELECT 1 / count(*) AS n FROM metrics")
    await service.fast.put(
        "/dashboards/default/layouts", json={"lg": [{"i": tile, "x": 0, "y": 0, "w": 1, "h": 1}]}
    )
    for _ in range(2):
        answer = await service.fast.get("/dashboards/default/data")
        assert answer.json()["results"][0]["status"] == 422
    assert service.lane.hits == 0


async def test_a_batch_shares_what_is_held(service, make_metric):
    metric = await make_metric("SELECT clock_timestamp() AS t")
    single = await ask(service.fast, metric)
    asked = {"metrics": [{"id": metric, "parameters": {}}] * 2}
    results = (await service.fast.post("/metrics/batch", json=asked)).json()["results"]
    assert [tile["etag"] for tile in results] == [single.headers["etag"]] * 2
    assert [tile["result"] for tile in results] == [single.json()] * 2


@pytest.fixture
async def slow_tiles(service, make_metric, monkeypatch):
    """Tiles that take longer than their request may, more than run side by side, ready to run."""
    slow = [await make_metric(f"SELECT pg_sleep(4), {n} AS n", trusted=True) for n in range(SIDE_BY_SIDE + 1)]
    for tile in slow:
        assert (await service.fast.get(f"/metrics/{tile}/definition")).status_code == 200
    monkeypatch.setattr(service.app.state.services.batcher, "_deadline_s", 0.5)
    return slow


async def batched(service, tiles):
    asked = {"metrics": [{"id": tile} for tile in tiles]}
    return await service.fast.post("/metrics/batch", json=asked)


async def on_a_dashboard(service, _tiles):
    return await service.fast.get("/dashboards/default/data")


@pytest.mark.parametrize("asked", [batched, on_a_dashboard])
async def test_what_is_held_does_not_wait_for_slow_tiles(service, make_metric, slow_tiles, asked):
    held = await make_metric("SELECT 1 AS n")
    tiles = [*slow_tiles, held]
    places = [{"i": tile, "x": 0, "y": y, "w": 1, "h": 1} for y, tile in enumerate(tiles)]
    await service.fast.put("/dashboards/default/layouts", json={"lg": places})
    await ask(service.fast, held)
    answer = await asked(service, tiles)
    assert [tile["status"] for tile in answer.json()["results"]] == [504] * len(slow_tiles) + [200]


async def test_what_is_held_and_old_does_not_wait_for_slow_tiles(service, make_metric, slow_tiles, owner):
    held = await make_metric(COUNT)
    await ask(service.fast, held)
    moved = service.moved()
    await owner.execute(FACT)
    await moved
    answer = await batched(service, [*slow_tiles, held])
    assert [tile["status"] for tile in answer.json()["results"]] == [504] * len(slow_tiles) + [200]


async def test_the_sql_of_a_caller_who_left_is_cancelled(service, make_metric, owner):
    metric = await make_metric("SELECT pg_sleep(4), count(*) AS n FROM metrics", trusted=True)
    callers = [asyncio.create_task(ask(service.fast, metric)) for _ in range(3)]
    await until(lambda: running_sleeps(owner))
    for caller in callers[:2]:
        caller.cancel()
    await asyncio.gather(*callers[:2], return_exceptions=True)
    assert await running_sleeps(owner) == 1
    callers[2].cancel()
    await until(lambda: none_sleeps(owner))


async def running_sleeps(owner):
    return await owner.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )


async def none_sleeps(owner):
    return await running_sleeps(owner) == 0


async def test_a_closed_connection_counts_as_leaving(service, make_metric, owner):
    """As the server tells it: `http.disconnect` while the answer is awaited."""
    metric = await make_metric("SELECT pg_sleep(4), count(*) AS n FROM metrics", trusted=True)
    leave, sent = asyncio.Event(), []

    async def receive():
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/api/v1/metrics/{metric}",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }
    caller = asyncio.create_task(service.lane(scope, receive, send))
    await until(lambda: running_sleeps(owner))
    leave.set()
    await caller
    await until(lambda: none_sleeps(owner))
    assert sent == []


class Proxy:
    """Stands before Postgres, and can go away or hang as a server does."""

    def __init__(self, host, port):
        self._target = host, port
        self._server = None
        self._writers = set()
        self.port = 0
        self._flows = asyncio.Event()
        self._flows.set()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await self._server.wait_closed()

    @contextmanager
    def hanging(self):
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    async def _serve(self, reader, writer):
        other_reader, other_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, other_writer}
        await asyncio.gather(self._pump(reader, other_writer), self._pump(other_reader, writer))

    async def _pump(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
        writer.close()


@pytest.fixture
async def proxy(addresses):
    parts = urlsplit(addresses.url)
    found = Proxy(parts.hostname, parts.port)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def behind_proxy(settings, proxy):
    addresses = settings.database
    port = urlsplit(addresses.url).port
    urls = [url.replace(f":{port}/", f":{proxy.port}/") for url in (addresses.url, addresses.reader_url)]
    moved = msgspec.structs.replace(addresses, url=urls[0], reader_url=urls[1])
    return msgspec.structs.replace(settings, database=moved)


async def test_without_the_database_what_is_held_is_served_and_says_so(behind_proxy, make_metric, proxy):
    metric, unseen = await make_metric(COUNT), await make_metric("SELECT 1 AS n")
    async with running(behind_proxy) as service:
        kept = [await ask(service.fast, metric) for _ in range(2)][-1]
        await proxy.stop()
        await until(lambda: service.app.state.base.results.generations.silent_since is not None)
        for _ in range(3):
            stale = await ask(service.fast, metric)
            assert stale.content == kept.content
            assert status(stale).startswith("tally; hit; ttl=-")
            assert status(stale).endswith("detail=stale")
        missing = await service.fast.get(f"/metrics/{unseen}")
        assert (missing.status_code, missing.json()["code"]) == (503, "database-unavailable")
        assert int(missing.headers["retry-after"]) > 0
        await proxy.start()

        async def recovered():
            return status(await ask(service.fast, metric)) == "tally; hit"

        await until(recovered)


async def test_a_database_that_hangs_counts_as_away(behind_proxy, make_metric, proxy):
    """Its connections stay open; the reader's few are soon all waiting."""
    impatient = msgspec.structs.replace(
        behind_proxy.database, statement_timeout_ms=100, reader_pool_size=1, reader_queue_limit=1
    )
    metrics = [await make_metric(f"SELECT {n} AS n") for n in range(3)]
    async with running(msgspec.structs.replace(behind_proxy, database=impatient)) as service:
        kept = [await ask(service.fast, metric) for metric in metrics]
        with proxy.hanging():
            await until(lambda: service.app.state.base.results.generations.silent_since is not None)
            stale = await asyncio.gather(*(ask(service.fast, metric) for metric in metrics))
            assert [answer.content for answer in stale] == [answer.content for answer in kept]
            assert all(status(answer).endswith("detail=stale") for answer in stale)

        async def recovered():
            return status(await ask(service.fast, metrics[0])) == "tally; hit"

        await until(recovered)


async def test_a_database_that_hangs_keeps_no_service_from_ending(
    behind_proxy, make_metric, proxy, monkeypatch
):
    monkeypatch.setattr("service.database.gateway.CLOSE_WAIT_S", 0.1)
    metric = await make_metric(COUNT)
    with ExitStack() as until_the_end:
        async with asyncio.timeout(20), running(behind_proxy) as service:
            await ask(service.fast, metric)
            until_the_end.enter_context(proxy.hanging())


async def test_stale_if_error_ends(behind_proxy, make_metric, proxy):
    short = msgspec.structs.replace(behind_proxy, results=Results(stale_if_error_s=0))
    metric = await make_metric(COUNT)
    async with running(short) as service:
        await ask(service.fast, metric)
        await proxy.stop()

        async def refused():
            answer = await service.fast.get(f"/metrics/{metric}")
            return answer if answer.status_code != 200 else None

        assert (await until(refused)).json()["code"] == "database-unavailable"
        await proxy.start()


async def test_after_a_gap_everything_held_is_run_again(service, make_metric, owner):
    """The change is made while nobody listens."""
    metric = await make_metric(COUNT)
    await ask(service.fast, metric)
    epoch = service.app.state.base.results.generations.epoch
    async with owner.transaction():
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'tally listen' AND datname = current_database()"
        )
        await owner.execute("ALTER TABLE data.metrics DISABLE TRIGGER USER")
        await owner.execute(FACT)
        await owner.execute("ALTER TABLE data.metrics ENABLE TRIGGER USER")
    await until(lambda: service.app.state.base.results.generations.epoch != epoch)
    answer = await ask(service.fast, metric)
    assert (count(answer), status(answer)) == (1, "tally; fwd=stale")


async def test_nodes_on_one_database_each_hear_of_changes(settings, make_metric, owner):
    metric = await make_metric(COUNT)
    async with running(settings) as one, running(settings) as other:
        for service in (one, other):
            assert count(await ask(service.fast, metric)) == 0
        moved = [service.moved() for service in (one, other)]
        await owner.execute(FACT)
        await asyncio.gather(*moved)
        for service in (one, other):
            assert count(await fresh(service, metric)) == 1


async def test_rows_of_one_caller_are_never_given_to_another(guarded, opened, token):
    """Row-level rights: each caller has an entry of their own, all others share one."""
    table = f"visits_{uuid4().hex[:8]}"
    async with open_database(guarded.database.url) as database:
        for statement in (
            f"CREATE TABLE data.{table} (name text)",
            f"INSERT INTO data.{table} VALUES ('ann'), ('bob')",
            f"ALTER TABLE data.{table} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY own ON data.{table} USING (name = {SUBJECT})",
        ):
            await database.write(Command("set_up", statement))
    service = await opened()
    write = token("metrics:write")
    made = await service.post("/metrics", json={"sql": f"SELECT name FROM {table}"}, headers=write)
    address = f"/metrics/{made.json()['id']}"
    for _ in range(3):
        for name in ("ann", "bob"):
            answer = await service.get(address, headers=token("metrics:read", subject=name))
            assert answer.json()["records"] == [{"name": name}]


async def test_the_lane_asks_for_the_same_rights(opened, token, guarded):
    service = await opened()
    made = await service.post("/metrics", json={"sql": "SELECT 1 AS n"}, headers=token("metrics:write"))
    address = f"/metrics/{made.json()['id']}"
    reads = token("metrics:read")
    for _ in range(3):
        assert (await service.get(address, headers=reads)).status_code == 200
    assert (await service.get(address)).status_code == 401
    assert (await service.get(address, headers={"Authorization": "Bearer x"})).status_code == 401
    assert (await service.get(address, headers=token("items:read"))).status_code == 403
    twice = [*reads.items(), *reads.items()]
    assert (await service.get(address, headers=twice)).status_code == 400
