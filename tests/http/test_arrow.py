# ruff: noqa: DTZ001 (timestamps without a zone)
"""Results as Arrow streams, read by pyarrow: every value exact, whatever Postgres has."""

import datetime as dt
import math
from decimal import Decimal
from uuid import UUID

import asyncpg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.connect import arrow
from service.settings import Auth, Settings
from tests.conftest import held, serving, store_metric, visible, whole_service

MEDIA_TYPE = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def service(shared_service):
    return shared_service


def read(answer):
    assert (answer.status_code, answer.headers["content-type"]) == (200, MEDIA_TYPE), answer.text
    table = pa.ipc.open_stream(answer.content).read_all()
    table.validate(full=True)
    return table


@pytest.fixture
def table(service):
    async def get(sql, query=""):
        [metric] = await service.store(sql)
        return read(await service.client.get(f"/metrics/{metric}{query}", headers={"Accept": MEDIA_TYPE}))

    return get


@pytest.fixture
def column(table):
    """The type and the values of a column with these values and a null."""

    async def get(type_name, *values):
        rows = ", ".join(f"(CAST({value} AS {type_name}))" for value in values)
        found = (await table(f"SELECT v FROM (VALUES {rows}, (NULL)) AS t (v)")).column("v")
        assert found[-1].as_py() is None
        return found.type, [each.as_py() for each in found][:-1]

    return get


@pytest.mark.parametrize(
    ("type_name", "written", "kind", "expected"),
    [
        ("smallint", ["-32768", "32767"], pa.int16(), [-32768, 32767]),
        ("integer", ["-2147483648", "0"], pa.int32(), [-(2**31), 0]),
        ("bigint", ["-9223372036854775808", "9223372036854775807"], pa.int64(), [-(2**63), 2**63 - 1]),
        ("boolean", ["true", "false"], pa.bool_(), [True, False]),
        ("text", ["''", "'é☃ \"x\" ='", "'=1+1'"], pa.string(), ["", 'é☃ "x" =', "=1+1"]),
        ("varchar(3)", ["'abc'"], pa.string(), ["abc"]),
        ("bytea", [r"'\x00ff'", "''"], pa.binary(), [b"\x00\xff", b""]),
        ("numeric", ["1.50", "-0.001", "10"], pa.decimal128(38, 3), ["1.500", "-0.001", "10.000"]),
        ("numeric", ["12345678901234567890123456789012345.678"], pa.decimal128(38, 3),
         ["12345678901234567890123456789012345.678"]),
        ("numeric", ["9" * 50 + ".25", "-1"], pa.decimal256(76, 2), ["9" * 50 + ".25", "-1.00"]),
        ("numeric", ["9" * 80, "0.5"], pa.string(), ["9" * 80, "0.5"]),
        ("numeric", ["'NaN'", "1.5"], pa.string(), ["NaN", "1.5"]),
        ("numeric", ["'-Infinity'"], pa.string(), ["-Infinity"]),
        ("numeric", ["1e20", "1e-20"], pa.decimal256(76, 20), None),
        ("date", ["'2025-06-01'", "'0001-01-01'", "'9999-12-31'"], pa.date32(),
         [dt.date(2025, 6, 1), dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
        ("date", ["'infinity'", "'2025-06-01'"], pa.string(), ["infinity", "2025-06-01"]),
        ("time", ["'00:00'", "'23:59:59.999999'", "'01:02:03.5'"], pa.time64("us"),
         [dt.time(0), dt.time(23, 59, 59, 999999), dt.time(1, 2, 3, 500000)]),
        ("time", ["'24:00'", "'12:00'"], pa.string(), ["24:00:00", "12:00:00"]),
        ("timetz", ["'12:00+02'"], pa.string(), ["12:00:00+02"]),
        ("timestamp", ["'2025-06-01 12:00:00.000001'", "'1969-12-31 23:59:59'"], pa.timestamp("us"),
         [dt.datetime(2025, 6, 1, 12, 0, 0, 1), dt.datetime(1969, 12, 31, 23, 59, 59)]),
        ("timestamp", ["'-infinity'"], pa.string(), ["-infinity"]),
        ("timestamptz", ["'2025-06-01 12:00+02'"], pa.timestamp("us", "UTC"),
         [dt.datetime(2025, 6, 1, 10, tzinfo=dt.UTC)]),
        ("uuid", ["'c797b618-df12-45f7-bbb2-cc6695a48e46'"], pa.uuid(),
         [UUID("c797b618-df12-45f7-bbb2-cc6695a48e46")]),
        ("interval", ["'1 year 2 mons -3 days 04:05:06.5'", "'-1 mons -00:00:00.000001'", "'0'"],
         pa.month_day_nano_interval(), [(14, -3, 14706500000000), (-1, 0, -1000), (0, 0, 0)]),
        ("interval", ["'178000000 years'"], pa.month_day_nano_interval(), [(2136000000, 0, 0)]),
        ("interval", ["'3000000 hours'", "'1 day'"], pa.string(), ["PT3000000H", "P1D"]),
        ("jsonb", ["'{\"a\": [1.10, null]}'"], pa.string(), ['{"a": [1.10, null]}']),
        ("int[]", ["'{1,NULL,3}'", "'{}'"], pa.string(), ["[1,null,3]", "[]"]),
        ("oid", ["7"], pa.int64(), [7]),
        ("inet", ["'10.0.0.1/8'"], pa.string(), ["10.0.0.1/8"]),
    ],
)  # fmt: skip
async def test_each_type_has_its_arrow_type(column, type_name, written, kind, expected):
    found, values = await column(type_name, *written)
    assert found == kind
    if type_name == "numeric":
        values = [str(each) for each in values]
        expected = expected or ["100000000000000000000.00000000000000000000", "1E-20"]
    assert values == expected


async def test_floats_keep_what_json_cannot(column):
    for type_name, kind in (("double precision", pa.float64()), ("real", pa.float32())):
        found, values = await column(type_name, "0.1", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'")
        assert found == kind
        assert math.isnan(values[1])
        assert values[2:4] == [math.inf, -math.inf]
        assert math.copysign(1, values[4]) == -1
        assert pa.scalar(values[0], kind) == pa.scalar(0.1, kind)


async def test_far_dates_and_times(table):
    """What Python's calendar does not have: compared with the seconds that Postgres counts."""
    dates = ["4713-01-01 BC", "0044-03-15 BC", "0001-12-31 BC", "10000-02-29", "294276-12-31"]
    sql = ", ".join(f"('{each}'::date, '{each}'::timestamp, '{each}'::timestamptz)" for each in dates)
    sql = "SELECT *, d - '1970-01-01'::date AS days FROM (VALUES " + sql + ") AS t (d, t, z)"
    for rows in (sql + " WHERE d < '200000-01-01'", sql):
        found = await table(rows)
        days = found.column("days").to_pylist()
        assert found.column("d").cast(pa.int32()).to_pylist() == days
        if found.num_rows < len(dates):
            for name in ("t", "z"):
                assert found.column(name).cast(pa.int64()).to_pylist() == [
                    day * 86_400 * 10**6 for day in days
                ]
        else:  # past the microseconds of 64 bits
            assert found.column("t").to_pylist()[-1].startswith("294276-12-31")


async def test_composites_and_domains(service, table):
    connection = await asyncpg.connect(service.settings.url)
    await connection.execute(
        "CREATE TYPE data.pair AS (a int, b numeric); CREATE DOMAIN data.cents AS bigint;"
        "CREATE TYPE data.mood AS ENUM ('sad', 'glad')"
    )
    await connection.close()
    found = await table(
        "SELECT (1, 2.50)::data.pair AS p, 5::data.cents AS c, 'glad'::data.mood AS m, NULL::data.mood AS n"
    )
    assert found.to_pylist() == [{"p": '{"a":1,"b":2.50}', "c": 5, "m": "glad", "n": None}]


async def test_empty_results_keep_their_types(table):
    found = await table("SELECT 1 AS a, 'x' AS b, 1.5 AS c, now() AS d WHERE false")
    assert [str(each) for each in found.schema.types] == [
        "int32",
        "string",
        "decimal128(38, 0)",
        "timestamp[us, tz=UTC]",
    ]
    assert (found.num_rows, found.column_names) == (0, ["a", "b", "c", "d"])


async def test_only_nulls(table):
    found = await table(
        "SELECT NULL::int AS a, NULL::text AS b, NULL::numeric AS c, NULL::uuid AS d, NULL::bool AS e"
    )
    assert found.to_pylist() == [dict.fromkeys("abcde")]


async def test_no_columns_and_repeated_names(table):
    found = await table('SELECT 1 AS a, 2 AS a, 3 AS "a_2", 4 AS "ü "')
    assert found.to_pylist() == [{"a": 1, "a_2": 2, "a_2_2": 3, "ü ": 4}]
    assert (await table("SELECT FROM generate_series(1, 3)")).column_names == []


async def test_many_rows(table, monkeypatch):
    monkeypatch.setattr(arrow, "_VALUES_OF_A_PART", 100)
    found = await table(
        "SELECT n, CASE WHEN n % 3 > 0 THEN n::text END AS t, CASE WHEN n % 7 > 0 THEN n / 100.0 END AS d,"
        " n % 2 = 0 AS b FROM generate_series(1, 9999) AS n"
    )
    assert found.column("n").to_pylist() == [*range(1, 10_000)]
    assert found.column("t").to_pylist() == [str(n) if n % 3 else None for n in range(1, 10_000)]
    assert found.column("d").to_pylist() == [Decimal(n) / 100 if n % 7 else None for n in range(1, 10_000)]
    assert found.column("b").to_pylist() == [n % 2 == 0 for n in range(1, 10_000)]


# asyncpg writes the first and the last day as infinities.
DAYS = {"min_value": dt.date(1, 1, 2), "max_value": dt.date(9999, 12, 30)}
MOMENTS = {"min_value": dt.datetime(1, 1, 2), "max_value": dt.datetime(9999, 12, 30)}
TYPES = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "numeric": st.decimals(
        allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30
    ),
    "double precision": st.floats(allow_nan=False),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    "date": st.dates(**DAYS),
    "timestamp": st.datetimes(**MOMENTS),
    "timestamptz": st.datetimes(**MOMENTS, timezones=st.just(dt.UTC)),
    "time": st.times(),
    "uuid": st.uuids(),
    "bytea": st.binary(max_size=20),
    "boolean": st.booleans(),
}
KINDS = {
    "bigint": pa.int64(), "numeric": None, "double precision": pa.float64(), "text": pa.string(),
    "date": pa.date32(), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"), "uuid": pa.uuid(), "bytea": pa.binary(), "boolean": pa.bool_(),
}  # fmt: skip
ROWS = st.lists(st.tuples(*[st.none() | each for each in TYPES.values()]), max_size=8)


@pytest.fixture(scope="module")
async def made_up(service):
    """A table with a column of each type, and the metric that reads it."""
    connection = await asyncpg.connect(service.settings.url)
    columns = ", ".join(f'"{name}" {name}' for name in TYPES)
    await connection.execute(f"CREATE TABLE data.made_up (place int, {columns})")
    names = ", ".join(f'"{name}"' for name in TYPES)
    [metric] = await service.store(f"SELECT {names} FROM data.made_up ORDER BY place")
    yield connection, metric
    await connection.close()


@given(rows=ROWS)
@settings(max_examples=40)
async def test_whatever_is_stored_comes_back(made_up, service, rows):
    connection, metric = made_up
    await connection.execute("TRUNCATE data.made_up")
    records = [(place, *row) for place, row in enumerate(rows)]
    await connection.copy_records_to_table("made_up", schema_name="data", records=records)
    answer = await service.client.get(
        f"/metrics/{metric}?format=arrow", headers={"Cache-Control": "no-cache"}
    )
    found = read(answer)
    for (name, kind), values in zip(KINDS.items(), zip(*rows, strict=True), strict=False):
        assert found.schema.field(name).type == kind or kind is None, name
        assert found.column(name).to_pylist() == [*values], name


async def test_it_is_a_format_like_the_others(service):
    [metric] = await service.store("SELECT 1 AS n, repeat('x', 5000) AS t")
    path = f"/metrics/{metric}"
    get = service.client.get
    first = await get(path, headers={"Accept": MEDIA_TYPE, "Accept-Encoding": "identity"})
    assert (first.headers["cache-status"], first.headers["vary"]) == (
        "tally; fwd=miss",
        "Accept, Accept-Encoding",
    )
    again = await get(f"{path}?format=arrow", headers={"Accept-Encoding": "identity"})
    assert (again.headers["cache-status"], again.headers["etag"]) == ("tally; hit", first.headers["etag"])
    assert again.content == first.content
    afresh = await get(
        f"{path}?format=arrow", headers={"Cache-Control": "no-cache", "Accept-Encoding": "identity"}
    )
    assert (afresh.headers["etag"], afresh.content) == (first.headers["etag"], first.content)
    known = await get(
        f"{path}?format=arrow", headers={"If-None-Match": first.headers["etag"], "Accept-Encoding": ""}
    )
    assert (known.status_code, known.content) == (304, b"")
    head = await service.client.head(f"{path}?format=arrow", headers={"Accept-Encoding": "identity"})
    assert (head.headers["content-length"], head.content) == (str(len(first.content)), b"")
    zipped = await get(f"{path}?format=arrow", headers={"Accept-Encoding": "gzip"})
    assert (zipped.headers["content-encoding"], zipped.content) == ("gzip", first.content)
    assert zipped.headers["etag"] != first.headers["etag"]
    assert (await get(f"{path}?format=csv")).headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (MEDIA_TYPE, MEDIA_TYPE),
        (f"application/json;q=0.5, {MEDIA_TYPE}", MEDIA_TYPE),
        (f"application/json, {MEDIA_TYPE};q=0.5", "application/json"),
        (f"{MEDIA_TYPE};q=0, */*;q=0.1", "application/json"),
        ("application/*", "application/json"),
        ("*/*", "application/json"),
    ],
)
async def test_weights_choose(service, accept, expected):
    [metric] = await service.store("SELECT 1 AS n")
    for _ in range(2):
        answer = await service.client.get(f"/metrics/{metric}", headers={"Accept": accept})
        assert answer.headers["content-type"] == expected


async def test_too_large_is_refused(server, template):
    """Sixteen bytes for each numeric, where CSV has three."""
    columns = ", ".join(f"1.5 AS c{number}" for number in range(10))
    async with held(whole_service(server, template, result_bytes_limit=10_000)) as service:
        [metric] = await service.store(f"SELECT {columns} FROM generate_series(1, 100)")
        assert (await service.client.get(f"/metrics/{metric}?format=csv")).status_code == 200
        answer = await service.client.get(f"/metrics/{metric}?format=arrow")
        assert (answer.status_code, answer.json()["code"]) == (413, "result-too-large")


async def test_rows_beyond_the_limit_are_told_by_the_schema_and_by_the_name_of_a_file(service, table):
    sql = "SELECT g AS n FROM generate_series(1, {}) AS g"
    cut, whole = await table(sql.format(10_001)), await table(sql.format(10_000))
    assert (cut.num_rows, cut.schema.metadata) == (10_000, {b"tally.truncated": b"true"})
    assert (whole.num_rows, whole.schema.metadata or {}) == (10_000, {})
    metrics = await service.store(sql.format(10_001), sql.format(10_000))
    for metric, told in zip(metrics, (True, False), strict=True):
        answer = await service.client.get(f"/metrics/{metric}?format=csv&bom=1")
        named = "_first-10000-rows-only_as-of-" in answer.headers["content-disposition"]
        assert (answer.text.count("\r\n"), named) == (10_001, told)


async def test_without_the_extra_it_is_406_with_the_remedy(addresses, clone, tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "available", lambda: False)
    async with serving(Settings(database=addresses, auth=Auth(mode="off"))) as client:
        metric = await store_metric(clone, "SELECT 1 AS n")
        await visible(client, metric)
        for query, accept in (("?format=arrow", "*/*"), ("", MEDIA_TYPE)):
            answer = await client.get(f"/metrics/{metric}{query}", headers={"Accept": accept})
            assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")
            assert "pip install 'tally-metrics[arrow]'" in answer.json()["detail"]
        other = await client.get(f"/metrics/{metric}", headers={"Accept": "image/png"})
        assert "pip install" not in other.json()["detail"]
        both = await client.get(
            f"/metrics/{metric}", headers={"Accept": f"{MEDIA_TYPE}, application/json;q=0.1"}
        )
        assert both.headers["content-type"] == "application/json"
