"""Results are fresh, or stale and said so."""

import asyncio

import pytest

from service.errors import DatabaseUnavailable
from tests.http.results.asking import COUNT, FACT, ask, count, fresh, running, status
from tests.waiting import until


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


async def test_what_changes_while_a_metric_is_planned_is_not_missed(service, make_metric, owner, monkeypatch):
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

    async def planned():
        definition = await service.fast.get(f"/metrics/{metric}/definition")
        return definition.json()["tables"] == ["data.customers"]

    await until(planned)


async def test_what_reads_the_clock_stays_fresh_for_a_while_only(service, make_metric):
    metric = await make_metric("SELECT now() AS t")
    answer = [await ask(service.fast, metric) for _ in range(2)][-1]
    assert answer.headers["cache-control"].startswith("private, max-age=")
    max_age = int(answer.headers["cache-control"].split("max-age=")[1].split(",")[0])
    assert 0 <= max_age <= 60
    assert status(answer).startswith("tally; hit; ttl=")


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


async def test_what_was_redefined_while_it_was_planned_is_planned_anew(service, make_metric, monkeypatch):
    metric = await make_metric("SELECT 1 AS n")
    executor = service.app.state.services.executor
    plan_metric, planned = executor.plan_metric, []

    async def interrupted(metric):
        planned.append(await plan_metric(metric))
        if len(planned) == 1:
            executor.forget()
        return planned[-1]

    monkeypatch.setattr(executor, "plan_metric", interrupted)
    executor.forget()
    await ask(service.fast, metric)
    assert len(planned) == 2


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
