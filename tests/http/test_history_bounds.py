"""What the history may cost and to whom it may speak: counts, bytes, time, several workers, rights."""

import asyncio

import msgspec
import pytest

from service.database.queries import Command, Statement
from service.history import recorder, store
from service.settings import Auth, History
from tests.conftest import serving, store_metric, visible
from tests.http.test_history import COUNT, PUT, READ, SQL, TABLE, WATCH, Number, history, kept
from tests.waiting import until

CLAIMS = "current_setting('request.claims', true)::json ->> 'sub'"
BODIES = Statement("b", "SELECT coalesce(sum(length(body)), 0)::bigint AS n FROM app.result_history", Number)
SERIES = Statement("s", "SELECT count(*) AS n FROM app.history_series", Number)


@pytest.fixture
async def sales(clone):
    for each in (TABLE, READ, WATCH):
        await clone.write(each)
    await clone.write(PUT, "north", "1")

    async def put(n):
        await clone.write(PUT, "north", str(n))

    return put


def with_history(settings, **fields):
    return msgspec.structs.replace(settings, auth=Auth(mode="off"), history=History(**fields))


async def number(clone, statement):
    return (await clone.read_one(statement)).n


async def last_value(client, metric):
    """The newest number of the history that an alike result was counted to."""
    items = (await history(client, metric))["items"]
    changed = items[0]["difference"]["changed"] if items and items[0]["difference"] else []
    return changed[0]["values"][0]["after"] if changed else None


async def test_a_metric_keeps_its_last_results(settings, clone, sales):
    async with serving(with_history(settings, results=3)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        for n in range(2, 8):
            await client.get(f"/metrics/{metric}")
            await sales(n)

            async def told(n=n):
                await client.get(f"/metrics/{metric}")
                return await last_value(client, metric) == n or n == 2

            await until(told)
        assert await number(clone, COUNT) == 3


async def test_a_metric_that_never_rests_is_kept_seldom(settings, clone, sales):
    """After `BURST` results the next ones wait, and are counted."""
    async with serving(with_history(settings, results=1000)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        for n in range(100, 100 + 3 * recorder.BURST):
            await sales(n)

            async def shown(n=n):
                return (await client.get(f"/metrics/{metric}")).json()["records"][0]["n"] == n

            await until(shown)
        assert await number(clone, COUNT) <= recorder.BURST + 1


async def test_a_waiting_result_counts_those_that_it_replaced(settings, clone, sales, monkeypatch):
    monkeypatch.setattr(recorder, "BURST", 1)
    monkeypatch.setattr(recorder, "PAUSE_S", 1.0)
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await kept(client, metric, 1)
        for n in range(2, 6):
            await sales(n)

            async def shown(n=n):
                return (await client.get(f"/metrics/{metric}")).json()["records"][0]["n"] == n

            await until(shown)
        await until(lambda: is_last(client, metric, 5))
        items = (await history(client, metric))["items"]
        assert sum(each["left_out"] for each in items) + len(items) == 5


async def is_last(client, metric, n):
    return await last_value(client, metric) == n


async def test_ever_new_parameters_begin_few_histories(settings, clone, monkeypatch):
    monkeypatch.setattr(recorder, "NEW_AT_ONCE", 2)
    monkeypatch.setattr(recorder, "NEW_PAUSE_S", 3600.0)
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, "SELECT :turn::int AS n")
        await visible(client, metric)
        for turn in range(1, 7):
            assert (await client.get(f"/metrics/{metric}?turn={turn}")).status_code == 200

        async def begun():
            return await number(clone, SERIES) >= 2

        await until(begun)
        found = [
            (await client.get(f"/metrics/{metric}/history?turn={turn}")).json()["items"]
            for turn in range(1, 7)
        ]
        assert [len(each) for each in found] == [1, 1, 0, 0, 0, 0]


async def test_results_are_bounded_in_bytes(settings, clone, sales, monkeypatch):
    monkeypatch.setattr(store, "SERIES_BYTES", 300)
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        for n in range(2, 12):
            await sales(n)
            await until(lambda n=n: is_shown(client, metric, n))
        assert 0 < await number(clone, BODIES) <= 300
        assert await number(clone, COUNT) < 10


async def is_shown(client, metric, n):
    found = (await client.get(f"/metrics/{metric}")).json()["records"][0]["n"] == n
    return found and (await history(client, metric))["items"]


async def test_the_least_asked_parameters_are_dropped_and_never_the_defaults(settings, clone, sales):
    async with serving(with_history(settings)) as client:
        declared = msgspec.json.encode({"n": {"type": "integer", "default": 0}}).decode()
        metric = await store_metric(
            clone, "SELECT :n AS n FROM sales", parameters=msgspec.json.decode(declared)
        )
        await visible(client, metric)
        await kept(client, metric, 1)
        for n in range(1, store.SERIES + 5):
            await kept(client, metric, 1, n=n)
        assert await number(clone, SERIES) == store.SERIES + 1
        assert (await history(client, metric, n=1))["items"] == []
        assert len((await history(client, metric, n=store.SERIES + 4))["items"]) == 1
        assert len((await history(client, metric))["items"]) == 1


async def test_old_results_are_forgotten_and_the_present_one_stays(settings, clone, sales):
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        for n in (2, 3):
            await sales(n)
            await until(lambda n=n: is_shown(client, metric, n))
        await kept(client, metric, 2)
        await store.tidy(clone, 3600)
        assert await number(clone, COUNT) == 2
        await clone.write(
            Command("age", "UPDATE app.result_history SET created_at = now() - interval '2 hours'")
        )
        await store.tidy(clone, 3600)
        (left,) = (await history(client, metric))["items"]
        assert left["difference"] is None


async def test_an_emptied_history_begins_again(settings, clone, sales, monkeypatch):
    monkeypatch.setattr(recorder, "TIDY_S", 0.2)
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        (first,) = await kept(client, metric, 1)
        await clone.write(Command("empty", "TRUNCATE app.history_series CASCADE"))
        assert (await history(client, metric))["items"] == []
        (again,) = await kept(client, metric, 1)
        assert again["id"] > first["id"]
        await sales(2)
        (newest, _) = await kept(client, metric, 2)
        assert [each["kind"] for each in newest["causes"]] == ["commit"]


async def test_all_results_together_are_bounded(settings, clone, sales, monkeypatch):
    monkeypatch.setattr(store, "ALL_BYTES", 1)
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await kept(client, metric, 1)
        await store.tidy(clone, 3600)
        assert await number(clone, COUNT) == 0


async def test_two_workers_keep_each_result_once(settings, clone, sales):
    both = with_history(settings)
    async with serving(both) as one, serving(both) as other:
        metric = await store_metric(clone, SQL)
        for each in (one, other):
            await visible(each, metric)
            await each.get(f"/metrics/{metric}")
        await kept(one, metric, 1)
        for n in range(2, 7):
            await sales(n)

            async def shown(n=n):
                found = await asyncio.gather(*(each.get(f"/metrics/{metric}") for each in (one, other)))
                return all(each.json()["records"][0]["n"] == n for each in found)

            await until(shown)
            await until(lambda n=n: is_last(other, metric, n))
        items = (await history(one, metric))["items"]
        values = [each["difference"]["changed"][0]["values"][0] for each in items[:-1]]
        assert [(each["before"], each["after"]) for each in values] == [(n - 1, n) for n in range(6, 1, -1)]
        assert all(len(each["causes"]) == 1 for each in items[:-1])


async def test_the_history_survives_a_restart_and_says_what_it_missed(settings, clone, sales):
    both = with_history(settings)
    async with serving(both) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await kept(client, metric, 1)
    await sales(2)
    async with serving(both) as client:
        newest, _ = await kept(client, metric, 2)
    assert [each["kind"] for each in newest["causes"]] == ["unknown"]
    assert "heard no announcements" in newest["causes"][0]["why"]


async def test_an_import_while_nobody_listened_is_found_by_its_table(settings, clone):
    both = with_history(settings)
    text = b"customer_id,occupation,type\n9001,Nurse,HCP\n"
    async with serving(both) as client:
        metric = await store_metric(clone, "SELECT count(*) AS n FROM customers")
        await visible(client, metric)
        await kept(client, metric, 1)
    off = with_history(settings, results=0)
    async with serving(off) as client:
        answer = await client.post("/api/v1/imports/customers", content=text)
        assert answer.status_code == 201, answer.text
        note = (await history(client, metric))["note"]
        assert note == "No history is kept: HISTORY_RESULTS is 0."
    async with serving(both) as client:
        newest, _ = await kept(client, metric, 2)
    assert [each["kind"] for each in newest["causes"]] == ["import"]


async def test_nobody_sees_what_depends_on_another_caller(settings, clone, sales):
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, SQL)
        own = await store_metric(clone, f"SELECT {CLAIMS} AS me")
        await visible(client, own)
        await kept(client, metric, 1)
        await client.get(f"/metrics/{own}")
        for statement in (
            "ALTER TABLE data.sales ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY own ON data.sales USING (region = {CLAIMS})",
        ):
            await clone.write(Command("policy", statement))
        for each in (own, metric):
            found = await until(lambda each=each: noted(client, each))
            assert (found["items"], "depend on the caller" in found["note"]) == ([], True)
        assert await number(clone, COUNT) == 1  # kept before the policy, and shown to nobody


async def noted(client, metric):
    await client.get(f"/metrics/{metric}")
    found = await history(client, metric)
    return found if found["note"] else None


async def test_a_history_needs_the_scope_of_the_result(visitor, token, guarded_metric):
    path = f"/api/v1/metrics/{guarded_metric}/history"
    assert (await visitor.get(path)).status_code == 401
    assert (await visitor.get(path, headers=token("items:read"))).status_code == 403
    assert (await visitor.get(path, headers=token("metrics:read"))).status_code == 200


async def test_a_result_that_cannot_be_kept_at_once_is_kept_later(settings, clone, sales, monkeypatch):
    from service.errors import DatabaseUnavailable

    monkeypatch.setattr(recorder, "RETRY_S", 0.01)
    failed = []
    keep = store.keep

    async def failing(*args, **kwargs):
        if len(failed) < 2:
            failed.append(1)
            raise DatabaseUnavailable
        return await keep(*args, **kwargs)

    monkeypatch.setattr(store, "keep", failing)
    async with serving(with_history(settings)) as client:
        metric = await store_metric(clone, SQL)
        await visible(client, metric)
        await kept(client, metric, 1)
    assert len(failed) == 2
