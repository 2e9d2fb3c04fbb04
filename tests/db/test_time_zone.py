"""Days are those of TIME_ZONE: in windows, `day_range` and the clock's words; moments in JSON stay UTC."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from service.metrics.execute import until_midnight_s
from service.sql.parameters import Declared, analyse
from service.sql.validation import parse
from tests.conftest import Running, held, whole_service

# Both changes of the clock, an hour by thirty minutes, and far from UTC on both sides.
ZONES = {
    "Europe/Berlin": ("2025-03-30", "2025-10-26"),
    "Australia/Lord_Howe": ("2025-10-05", "2025-04-06"),
    "Pacific/Tongatapu": ("2025-06-01", "2025-12-31"),
    "Asia/Kolkata": ("2025-06-01", "2025-12-31"),
    "America/St_Johns": ("2025-03-09", "2025-11-02"),
    "Africa/Cairo": ("2025-04-25", "2025-10-30"),
}
CASES = [(zone, day) for zone, days in ZONES.items() for day in days]
MOMENTS = """
CREATE TABLE data.quarters AS
SELECT z FROM generate_series(timestamptz '2025-01-01 00:00Z', '2026-01-03 00:00Z', '15 minutes') AS z
UNION ALL
SELECT z - interval '1 microsecond'
FROM generate_series(timestamptz '2025-01-01 00:00Z', '2026-01-03 00:00Z', '15 minutes') AS z
"""
WRITTEN = {
    "between": "z BETWEEN '2025-06-01' AND '2025-06-30'",
    "half open": "z >= '2025-06-01' AND z < '2025-07-01'",
    "casts": "z >= '2025-06-01'::timestamptz AND z <= timestamptz '2025-06-30'",
    "days": "z::date BETWEEN '2025-06-01' AND '2025-06-30'",
    "truncated": "date_trunc('day', z) >= '2025-06-01' AND date_trunc('day', z) <= '2025-06-30'",
    "open": "z > '2025-05-31' AND z <= '2025-06-30 23:59:59'",
    "authored": "z BETWEEN :start_date AND :end_date",
    "authored half open": "z >= :start_date AND z < :end_date",
}


@pytest.fixture(scope="module", params=ZONES)
async def zoned(request, server, template):
    """A service in a zone; each module fixture serves all days of its own zone."""
    async with held(whole_service(server, template, time_zone=request.param)) as service:
        connection = await asyncpg.connect(service.settings.url)
        await connection.execute(MOMENTS)
        await connection.close()
        yield request.param, service


async def answer(service: Running, sql: str, **parameters: str):
    (metric,) = await service.store(sql)
    found = await service.client.get(f"/api/v1/metrics/{metric}", params=parameters)
    assert found.status_code == 200, found.text
    return found.json()["records"]


def minutes(zone: str, day: str) -> int:
    start, end = (
        datetime.combine(each, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
        for each in (date.fromisoformat(day), date.fromisoformat(day) + timedelta(days=1))
    )
    return int((end - start).total_seconds() / 60)


async def test_a_window_covers_the_zones_days_exactly(zoned):
    zone, service = zoned
    for day in ZONES[zone]:
        own = ZoneInfo(zone)
        for name, condition in WRITTEN.items():
            sql = f"SELECT count(*) AS n, min(z) AS first, max(z) AS last FROM quarters WHERE {condition}"
            (row,) = await answer(service, sql, start_date=day, end_date=day)
            first, last = (datetime.fromisoformat(row[end]).astimezone(own) for end in ("first", "last"))
            assert row["n"] == 2 * minutes(zone, day) / 15, (name, day)
            assert (str(first.date()), str(last.date())) == (day, day), name
            assert row["first"].endswith("Z")
            assert row["last"].endswith("Z")


async def test_the_clocks_words_and_truncation_follow_the_zone(zoned):
    zone, service = zoned
    sql = (
        "SELECT CURRENT_DATE AS today, (now() AT TIME ZONE 'UTC')::text AS utc, now()::date AS day,"
        " date_trunc('day', timestamptz '2025-03-30 12:00Z') AS midnight,"
        " timestamptz '2025-03-30 12:00Z' AS at,"
        " array[timestamptz '2025-03-30 12:00:00.5Z'] AS all, (timestamptz '2025-03-30 12:00Z', 1) AS pair,"
        " timestamptz 'infinity' AS never, timestamptz '1880-01-01 00:00Z' AS old"
    )
    (row,) = await answer(service, sql.replace("AS all", 'AS "all"'))
    own = ZoneInfo(zone)
    utc = datetime.fromisoformat(row["utc"]).replace(tzinfo=UTC)
    assert row["today"] == row["day"] == str(utc.astimezone(own).date())
    noon = datetime(2025, 3, 30, 12, tzinfo=UTC)
    midnight = datetime.combine(noon.astimezone(own).date(), datetime.min.time(), own).astimezone(UTC)
    assert row["midnight"] == f"{midnight:%Y-%m-%dT%H:%M:%S}Z"
    assert row["at"] == "2025-03-30T12:00:00Z"
    assert row["all"] == ["2025-03-30T12:00:00.5Z"]
    assert row["pair"]["f1"] == "2025-03-30T12:00:00Z"
    assert (row["never"], row["old"]) == ("infinity", "1880-01-01T00:00:00Z")


async def test_a_day_range_ends_with_the_zones_today(zoned):
    zone, service = zoned
    connection = await asyncpg.connect(service.settings.url)
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS data.recent AS"
        " SELECT now() + n * interval '1 hour' AS z FROM generate_series(-200, 100) AS n"
    )
    kept = await connection.fetch("SELECT z FROM data.recent")
    await connection.close()
    for condition in ("z BETWEEN :start_date AND :end_date", "z BETWEEN '2025-06-01' AND '2025-06-30'"):
        sql = f"SELECT count(*) AS n, CURRENT_DATE AS today FROM recent WHERE {condition}"
        (row,) = await answer(service, sql, day_range="3")
        today = date.fromisoformat(row["today"])
        days = [record["z"].astimezone(ZoneInfo(zone)).date() for record in kept]
        assert row["n"] == sum(today - timedelta(days=3) <= day <= today for day in days)


@pytest.mark.parametrize(("zone", "day"), CASES)
def test_a_clocks_result_is_fresh_until_the_zones_midnight(zone, day):
    start = datetime.combine(date.fromisoformat(day), datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    assert until_midnight_s(start, ZoneInfo(zone)) == minutes(zone, day) * 60
    assert until_midnight_s(start + timedelta(minutes=1), ZoneInfo(zone)) == minutes(zone, day) * 60 - 60


@pytest.mark.parametrize(
    ("postgres", "text", "canonical"),
    [
        ("timestamp", "2025-06-01T22:30:00Z", "2025-06-02T00:30:00.000000"),
        ("timestamp", "2025-06-01T22:30:00", "2025-06-01T22:30:00.000000"),
        ("timestamptz", "2025-06-01T22:30:00Z", "2025-06-01T22:30:00.000000+00"),
        ("timestamptz", "2025-06-01", "2025-06-01T00:00:00.000000"),
    ],
)
def test_a_given_moment_is_read_in_the_zone(postgres, text, canonical):
    template = analyse(parse("SELECT :at"), {}, time_zone="Europe/Berlin")
    typed = template.with_types({"at": postgres})
    assert typed.bind([("at", text)]).args == (canonical,)


async def test_a_declared_moment_covers_its_whole_day_in_the_zone(zoned):
    zone, service = zoned
    day = ZONES[zone][1]
    sql = "SELECT count(*) AS n FROM quarters WHERE z >= :start_date::timestamptz AND z <= :end_date"
    template = analyse(parse(sql), {"end_date": Declared("timestamp")}, time_zone=zone)
    bound = template.bind([("start_date", day), ("end_date", day)])
    connection = await asyncpg.connect(
        service.settings.url, server_settings={"timezone": zone, "search_path": "data"}
    )
    try:
        assert await connection.fetchval(bound.sql, *bound.args) == 2 * minutes(zone, day) / 15
    finally:
        await connection.close()
