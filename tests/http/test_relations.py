"""Results on partitioned tables, materialised views and foreign tables follow what docs/scaling.md says."""

import asyncio

import psycopg
import pytest

from service.database.watch import watch
from service.errors import Stop
from service.setup.doctor import examine
from tests.waiting import until

PARTITIONED = """
CREATE TABLE data.readings (day date NOT NULL, n bigint NOT NULL) PARTITION BY RANGE (day);
CREATE TABLE data.readings_2024 PARTITION OF data.readings FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE data.readings_2025 PARTITION OF data.readings FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
    PARTITION BY RANGE (day);
CREATE TABLE data.readings_2025_h1 PARTITION OF data.readings_2025
    FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
GRANT SELECT ON ALL TABLES IN SCHEMA data TO PUBLIC;
"""
ALL = ["data.readings", "data.readings_2024", "data.readings_2025", "data.readings_2025_h1"]
SUM = "SELECT coalesce(sum(n), 0)::int AS n FROM readings"


@pytest.fixture
def run(settings):
    """Run SQL as the owner, as another program would."""

    async def ran(sql):
        def work():
            with psycopg.connect(settings.database.url, autocommit=True) as session:
                session.execute(sql)

        await asyncio.to_thread(work)

    return ran


@pytest.fixture
def shows(client):
    """Ask for a metric until its answer is marked fresh and shows a number."""

    async def shown(metric, number):
        async def asked():
            answer = await client.get(f"/metrics/{metric}")
            assert answer.status_code == 200, answer.text
            fresh = "detail=stale" not in answer.headers["Cache-Status"]
            return fresh and answer.json()["records"] == [{"n": number}]

        await until(asked)

    return shown


def missing(settings) -> list[str]:
    """What doctor says of watched tables."""
    found = examine(settings, {}, quick=True)
    return [each.message for each in found if each.check == "watch" and each.status != "ok"]


@pytest.fixture
async def readings(run, settings):
    await run(PARTITIONED)
    assert await asyncio.to_thread(watch, settings.database.url, "data.readings") == ALL


async def test_writes_to_a_watched_partitioned_table_are_heard_whichever_name_they_use(
    readings, client, make_metric, run, shows
):
    metric = await make_metric(SUM)
    await shows(metric, 0)
    held = (await client.get(f"/metrics/{metric}/definition")).json()
    assert held["tables"] == ALL
    total = 0
    for table, day, n in (
        ("readings", "2024-02-01", 1),
        ("readings_2024", "2024-03-01", 2),
        ("readings", "2025-02-01", 4),
        ("readings_2025", "2025-03-01", 8),
        ("readings_2025_h1", "2025-04-01", 16),
    ):
        await run(f"INSERT INTO data.{table} VALUES ('{day}', {n})")
        total += n
        await shows(metric, total)
    await run("UPDATE data.readings SET day = '2025-05-01', n = 3 WHERE n = 1")  # to another partition
    await shows(metric, total + 2)
    await run("DELETE FROM data.readings_2025_h1 WHERE n = 3")
    await shows(metric, total - 1)
    await run("TRUNCATE data.readings_2024")
    await shows(metric, total - 3)


async def test_partitions_come_and_go(readings, make_metric, run, shows, settings):
    metric = await make_metric(SUM)
    await run("INSERT INTO data.readings VALUES ('2024-02-01', 1)")
    await shows(metric, 1)
    await run("CREATE TABLE data.readings_2026 (day date NOT NULL, n bigint NOT NULL)")
    await run("INSERT INTO data.readings_2026 VALUES ('2026-01-05', 10)")
    await run(
        "ALTER TABLE data.readings ATTACH PARTITION data.readings_2026"
        " FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
    )
    await shows(metric, 11)
    await run("INSERT INTO data.readings VALUES ('2026-02-05', 100)")
    await shows(metric, 111)
    (message,) = await asyncio.to_thread(missing, settings)
    assert "data.readings_2026" in message
    assert await asyncio.to_thread(watch, settings.database.url, "data.readings") == [
        *ALL,
        "data.readings_2026",
    ]
    assert await asyncio.to_thread(missing, settings) == []
    await run("INSERT INTO data.readings_2026 VALUES ('2026-03-05', 1000)")
    await shows(metric, 1111)
    await run("ALTER TABLE data.readings DETACH PARTITION data.readings_2024")
    await shows(metric, 1110)
    await run("INSERT INTO data.readings VALUES ('2025-02-05', 5)")
    await shows(metric, 1115)
    await run("DROP TABLE data.readings_2026")
    await shows(metric, 5)


@pytest.mark.parametrize("how", ["", "CONCURRENTLY"])
async def test_a_refresh_of_a_materialised_view_is_noticed(make_metric, run, shows, settings, how):
    await run("CREATE TABLE data.base (n int); GRANT SELECT ON data.base TO PUBLIC")
    await run("CREATE MATERIALIZED VIEW data.totals AS SELECT count(*)::int AS n FROM data.base")
    await run("CREATE UNIQUE INDEX ON data.totals (n); GRANT SELECT ON data.totals TO PUBLIC")
    metric = await make_metric("SELECT n FROM totals")
    await shows(metric, 0)
    await run("INSERT INTO data.base VALUES (1), (2)")
    await run(f"REFRESH MATERIALIZED VIEW {how} data.totals")
    await shows(metric, 2)
    with pytest.raises(Stop, match=r"data\.totals is no table and cannot announce changes"):
        await asyncio.to_thread(watch, settings.database.url, "data.totals")
    found = await asyncio.to_thread(examine, settings, {}, quick=True)
    told = [each.message for each in found if each.check == "engine"]
    assert any("1 materialized views" in each and "within 12 s" in each for each in told), told


async def test_a_foreign_table_is_told_by_doctor_and_refused_by_watch(run, settings):
    """The carried binaries have no wrapper that reads anything, so a result on one cannot be had here."""
    await run("CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing")
    await run("CREATE FOREIGN TABLE data.remote (n int) SERVER elsewhere")
    with pytest.raises(Stop, match=r"data\.remote is no table and cannot announce changes"):
        await asyncio.to_thread(watch, settings.database.url, "data.remote")
    found = await asyncio.to_thread(examine, settings, {}, quick=True)
    told = [each.message for each in found if each.check == "engine"]
    assert any("1 foreign tables" in each and "time bounds" in each for each in told), told
