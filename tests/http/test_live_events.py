"""Event streams: what a client is told, and when it is told nothing."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from service.database.gateway import open_database
from service.live.streams import PIECE_BYTES
from service.observe.events import QueryRun
from service.settings import Auth, Live, Settings
from tests.conftest import _cloned, held, serving, store_metric, visible
from tests.live import parsed, watching
from tests.waiting import until

COUNT = "SELECT count(*) AS n FROM data.counted WHERE k = :k"


class Service:
    """A service over a table of its own, and what happened in it."""

    def __init__(self, client, connection, database, events):
        self.client, self.connection, self.database, self.events = client, connection, database, events

    async def metric(self, sql=COUNT, **fields):
        metric = await store_metric(self.database, sql, **fields)
        await visible(self.client, metric)
        return metric

    async def write(self, sql):
        await self.connection.execute(sql)

    def runs(self, metric):
        return sum(isinstance(each, QueryRun) and str(each.metric_id) == metric for each in self.events)


@pytest.fixture(scope="module")
async def service(server, template):
    events = []
    async with held(_cloned(server, template)) as addresses:
        connection = await asyncpg.connect(addresses.url)
        await connection.execute(
            "CREATE TABLE data.counted (k int, note text); SELECT app.watch('data.counted');"
            "CREATE TABLE data.unwatched (k int)"
        )
        settings = Settings(database=addresses, auth=Auth(mode="off"), live=Live(heartbeat_s=0.2))
        async with (
            held(open_database(addresses.url or "")) as database,
            held(serving(settings, events.append)) as client,
        ):
            yield Service(client, connection, database, events)
        await connection.close()


@pytest.fixture
def k():
    """A key that no other test counts."""
    return uuid4().int % 2**31


async def test_a_commit_is_pushed_and_a_rollback_is_not(service, k):
    metric = await service.metric()
    async with watching(service.client, f"/metrics/{metric}/events?k={k}") as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert stream.headers["cache-control"] == "no-cache, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in stream.headers
        first = await stream.event()
        held_result = await service.client.get(f"/metrics/{metric}?k={k}")
        assert (first.name, first.n, first.id) == ("result", 0, held_result.headers["ETag"])
        assert first.data == held_result.json()
        await service.write(f"BEGIN; INSERT INTO data.counted VALUES ({k}); ROLLBACK")
        await service.write(f"INSERT INTO data.counted VALUES ({k})")
        assert (await stream.event()).n == 1
        await service.write(f"DELETE FROM data.counted WHERE k = {k}")
        assert (await stream.event()).n == 0


async def test_an_unchanged_result_sends_nothing_and_others_share_each_run(service, k):
    metric = await service.metric()
    path = f"/metrics/{metric}/events?k={k}"
    async with watching(service.client, path) as one, watching(service.client, f"/api/v1{path}") as other:
        assert (await one.event()).id == (await other.event()).id
        assert service.runs(metric) == 1
        await service.write(f"INSERT INTO data.counted VALUES ({k - 1})")
        await until(lambda: service.runs(metric) == 2)
        await service.write(f"INSERT INTO data.counted VALUES ({k})")
        for stream in (one, other):
            assert (await stream.event()).n == 1
        assert service.runs(metric) == 3


async def test_a_burst_is_few_runs_and_ends_with_the_last_state(service, k):
    metric = await service.metric()
    async with watching(service.client, f"/metrics/{metric}/events?k={k}") as stream:
        await stream.event()
        for _ in range(50):
            await service.write(f"INSERT INTO data.counted VALUES ({k})")
        while (await stream.event()).n < 50:
            pass
        assert service.runs(metric) < 40


async def test_a_pause_of_its_own_is_kept_between_runs(service, k):
    metric = await service.metric(refresh_every_s=3600.0)
    async with watching(service.client, f"/metrics/{metric}/events?k={k}") as stream:
        await stream.event()
        for _ in range(3):
            await service.write(f"INSERT INTO data.counted VALUES ({k})")
        other = await service.metric()
        async with watching(service.client, f"/metrics/{other}/events?k={k}") as quick:
            assert (await quick.event()).n == 3
        assert service.runs(metric) == 1


async def test_truncate_is_a_change(service, k):
    await service.write("CREATE TABLE data.emptied (n int); SELECT app.watch('data.emptied')")
    await service.write("INSERT INTO data.emptied VALUES (1)")
    metric = await service.metric("SELECT count(*) AS n FROM data.emptied")
    async with watching(service.client, f"/metrics/{metric}/events") as stream:
        assert (await stream.event()).n == 1
        await service.write("TRUNCATE data.emptied")
        assert (await stream.event()).n == 0


@pytest.mark.parametrize("spelled", ['"{}"', "{}", 'W/"{}"', '"{}-gzip"'])
async def test_a_client_that_holds_the_result_gets_only_the_next(service, k, spelled):
    metric = await service.metric()
    path = f"/metrics/{metric}/events?k={k}"
    etag = (await service.client.get(f"/metrics/{metric}?k={k}")).headers["ETag"].strip('"')
    async with (
        watching(service.client, path, last_event_id=spelled.format(etag)) as by_header,
        watching(service.client, f"{path}&last_event_id={etag}") as by_query,
        watching(service.client, path, last_event_id='"other"') as without,
    ):
        assert (await without.event()).n == 0
        await service.write(f"INSERT INTO data.counted VALUES ({k})")
        for stream in (by_header, by_query, without):
            assert (await stream.event()).n == 1


async def test_a_deleted_metric_is_gone_and_stays_gone(service, k):
    metric = await service.metric()
    path = f"/metrics/{metric}/events?k={k}"
    async with watching(service.client, path) as stream:
        await stream.event()
        assert (await service.client.delete(f"/metrics/{metric}")).status_code == 204
        assert (await stream.event()).name == "gone"
        assert await stream.event() is None
    async with watching(service.client, path) as again:
        assert again.status == 204
    async with watching(service.client, f"/metrics/{uuid4()}/events") as unknown:
        assert (unknown.status, unknown.problem["code"]) == (404, "not-found")


async def test_a_new_definition_is_pushed_and_a_wrong_one_told(service, k):
    metric = await service.metric()
    async with watching(service.client, f"/metrics/{metric}/events?k={k}") as stream:
        assert (await stream.event()).n == 0
        await service.client.patch(
            f"/metrics/{metric}", json={"sql": COUNT.replace("count(*)", "count(*) + 7")}
        )
        assert (await stream.event()).n == 7
        await service.client.patch(f"/metrics/{metric}", json={"sql": "SELECT 5 AS n"})
        told = await stream.event()
        assert (told.name, told.data["code"]) == ("problem", "invalid-input")
        await service.client.patch(
            f"/metrics/{metric}", json={"sql": COUNT.replace("count(*)", "count(*) + 8")}
        )
        assert (await stream.event()).n == 8


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/metrics/{}/events", 422, "invalid-input"),
        ("/metrics/{}/events?k=x", 422, "invalid-input"),
        ("/metrics/{}/events?k=1&other=1", 422, "invalid-input"),
        ("/metrics/no-uuid/events", 422, "invalid-input"),
        ("/events", 422, "invalid-input"),
        ("/events?ids=", 422, "invalid-input"),
        ("/events?ids={0}&ids={0}&k=1", 422, "invalid-input"),
        ("/events?ids=00000000-0000-0000-0000-000000000000", 404, "not-found"),
        ("/dashboards/none/events", 404, "not-found"),
    ],
)
async def test_a_stream_is_refused_as_a_get_is(service, path, status, code):
    metric = await service.metric()
    async with watching(service.client, path.format(metric)) as stream:
        assert (stream.status, stream.problem["code"]) == (status, code)


async def test_a_parameter_that_no_metric_of_a_list_takes_is_refused_by_name(service, k):
    one, other = await service.metric(), await service.metric("SELECT count(*) AS n FROM data.unwatched")
    path = f"/events?ids={one},{other}&k={k}"
    async with watching(service.client, f"{path}&colour=red&start_date=2025-06-01") as stream:
        assert (stream.status, stream.problem["code"]) == (422, "invalid-input")
        assert [each["field"] for each in stream.problem["errors"]] == ["colour", "start_date"]
    async with watching(service.client, f"{path}&k=1") as stream:
        assert (stream.status, stream.problem["errors"]) == (422, [{"field": "k", "message": "given twice"}])
    async with watching(service.client, path) as stream:  # one takes k, the other does not
        assert {(each.data["id"], each.n) for each in await stream.events(2)} == {(one, 0), (other, 0)}
    async with watching(service.client, f"/events?ids={other}&k={k}") as stream:
        assert stream.status == 422


async def test_a_metric_that_cannot_be_planned_leaves_a_list_its_parameters(service, k):
    broken = await service.metric("SELECT count(*) AS n FROM data.nowhere WHERE k = :colour")
    one = await service.metric()
    async with watching(service.client, f"/events?ids={broken},{one}&k={k}&colour=red") as stream:
        told = {each.data["id"]: each for each in await stream.events(2)}
    assert (told[broken].name, told[broken].data["code"]) == ("problem", "query-failed")
    assert told[one].n == 0


async def test_several_metrics_resume_by_their_vector(service, k):
    one, other = await service.metric(), await service.metric("SELECT count(*) AS n FROM data.unwatched")
    path = f"/events?ids={one},{other}&k={k}"
    async with watching(service.client, path) as stream:
        events = await stream.events(2)
        assert {each.data["id"] for each in events} == {one, other}
        vector = events[-1].id
        assert set(dict(part.split(":") for part in vector.split(","))) == {one, other}
    async with watching(service.client, path, last_event_id=vector) as again:
        await service.write(f"INSERT INTO data.counted VALUES ({k})")
        changed = await again.event()
        assert (changed.data["id"], changed.n) == (one, 1)
    before, after = (dict(part.split(":") for part in each.split(",")) for each in (vector, changed.id))
    assert (before[other], before[one] != after[one]) == (after[other], True)


async def test_a_dashboard_is_told_of_its_tiles_and_reopened_for_new_ones(service, k):
    metric = await service.metric()
    made = await service.client.post("/dashboards", json={"title": f"Board {k}"})
    board = made.json()["id"]
    place = {"lg": [{"i": metric, "x": 0, "y": 0, "w": 1, "h": 1}]}
    await service.client.put(f"/dashboards/{board}/layouts", json=place)
    async with watching(service.client, f"/dashboards/{board}/events?k={k}") as stream:
        assert (await stream.event()).data["id"] == metric
        other = await service.metric("SELECT 1 AS n")
        place["lg"].append({"i": other, "x": 1, "y": 0, "w": 1, "h": 1})
        await service.client.put(f"/dashboards/{board}/layouts", json=place)
        ended = await stream.event()
        assert (ended.name, await stream.event()) == ("reconnect", None)
        assert 1000 <= ended.retry <= 5000
    async with watching(service.client, f"/dashboards/{board}/events") as stream:
        await service.client.delete(f"/dashboards/{board}")
        while (event := await stream.event()).name != "gone":
            pass
        assert event.name == "gone"


async def test_a_client_that_never_reads_gets_the_newest_state_when_it_does(service, k):
    metric = await service.metric(refresh_every_s=0.0)
    path = f"/metrics/{metric}/events?k={k}"
    async with watching(service.client, path) as lazy, watching(service.client, path) as other:
        await lazy.event()
        await other.event()
        lazy.reads.clear()
        for _ in range(10):
            await service.write(f"INSERT INTO data.counted VALUES ({k})")
            while (newest := await other.event()).n < 1:
                pass
        while newest.n < 10:
            newest = await other.event()
        before = lazy.written
        lazy.reads.set()
        while (event := await lazy.event()).n < 10:
            pass
        assert event.id == newest.id
        assert lazy.written - before <= 3


async def test_a_large_result_is_written_in_pieces_and_what_changes_meanwhile_comes_after(service, k):
    large = "(SELECT string_agg(i::text, ' ') FROM generate_series(1, 60000) AS i) AS t"
    metric = await service.metric(COUNT.replace("AS n", f"AS n, {large}"), refresh_every_s=0.0)
    path = f"/metrics/{metric}/events?k={k}"
    async with watching(service.client, path) as lazy, watching(service.client, path) as other:
        assert (await other.event()).n == 0
        first = await lazy.next()
        lazy.reads.clear()
        for n in (1, 2, 3):
            await service.write(f"INSERT INTO data.counted VALUES ({k})")
            while (await other.event()).n < n:
                pass
        pieces = [first["body"]]
        lazy.reads.set()
        while b"".join(pieces).count(b"\n\n") < 3:
            pieces.append((await lazy.next())["body"])
        assert max(map(len, pieces)) == PIECE_BYTES
        events = [parsed(block.decode()) for block in b"".join(pieces).split(b"\n\n")[:3]]
        assert [each.n for each in events] == [0, 1, 3]  # its first piece waited when 2 came
        assert events[0].data["records"][0]["t"] == " ".join(map(str, range(1, 60_001)))


async def test_a_quiet_stream_is_kept_alive_by_comments(service, k):
    metric = await service.metric()
    async with watching(service.client, f"/metrics/{metric}/events?k={k}") as stream:
        await stream.event()
        assert (await stream.next())["body"] == b":\n\n"


async def test_a_result_bound_to_time_is_pushed_when_its_freshness_ends(service):
    metric = await service.metric("SELECT now()::text AS n", fresh_for_s=1)
    async with watching(service.client, f"/metrics/{metric}/events") as stream:
        first, second = await stream.events(2)
        assert first.n < second.n


async def test_a_change_between_the_subscription_and_the_first_result_is_not_lost(service, k):
    # A join would not sleep where Postgres begins with the table, which has no such row yet.
    slow = f"SELECT (SELECT count(*) FROM data.counted WHERE k = {k}) AS n FROM pg_sleep(1.5)"
    metric = await service.metric(slow, trusted=True)
    async with asyncio.TaskGroup() as group:

        async def watch():
            async with watching(service.client, f"/metrics/{metric}/events") as stream:
                while (event := await stream.event()).name != "result" or event.n < 1:
                    pass

        group.create_task(watch())
        await until(lambda: _sleeping(service))
        await service.write(f"INSERT INTO data.counted VALUES ({k})")


async def _sleeping(service):
    return await service.connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    )


async def test_what_pollers_asked_for_is_run_again_before_they_ask(service, k):
    metric = await service.metric()
    assert (await service.client.get(f"/metrics/{metric}?k={k}")).json()["records"] == [{"n": 0}]
    await service.write(f"INSERT INTO data.counted VALUES ({k})")
    await until(lambda: service.runs(metric) == 2)
    answer = await service.client.get(f"/metrics/{metric}?k={k}")
    assert answer.json()["records"] == [{"n": 1}]
    assert service.runs(metric) == 2


@pytest.mark.parametrize(
    "path", ["/metrics/{id}/events?k=1", "/events?ids={id}", "/dashboards/default/events"]
)
@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
async def test_a_stream_is_for_get_alone(service, method, path):
    metric = await service.metric()
    answer = await service.client.request(method, path.format(id=metric))
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
