"""Results show every Postgres type exactly: no value is rounded, shifted or refused."""

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.database.queries import Command
from tests.conftest import Running, held, whole_service

TYPES = """
CREATE TYPE data.pair AS (n numeric, t text, d date);
CREATE TYPE data.mood AS ENUM ('sad', 'it''s "fine"');
CREATE DOMAIN data.price AS numeric CHECK (VALUE >= 0);
CREATE DOMAIN data.mild AS data.mood;
CREATE DOMAIN data.day AS date;
CREATE DOMAIN data.ints AS int[];
CREATE DOMAIN data.couple AS data.pair;
CREATE DOMAIN data.span AS int4range;
CREATE TYPE data.nested AS (p data.pair, ps data.pair[], m data.mood);
CREATE TYPE data.event AS (at timestamptz, body bytea, share float8)
"""

# One expression each, and its JSON, byte for byte.
VALUES: dict[str, tuple[str, str]] = {
    "smallint": ("(-32768)::int2", "-32768"),
    "bigint beyond 2^53": ("9007199254740993", "9007199254740993"),
    "least bigint": ("(-9223372036854775808)::bigint", "-9223372036854775808"),
    "numeric keeps its zeros": ("1.10", "1.10"),
    "tiny numeric": ("1e-30::numeric", "0.000000000000000000000000000001"),
    "huge numeric": ("1e40::numeric", "1" + "0" * 40),
    "numeric of the longest": ("'9e131071'::numeric", "9" + "0" * 131071),
    "numeric NaN": ("'NaN'::numeric", "null"),
    "numeric infinity": ("'-Infinity'::numeric", "null"),
    "real": ("1.1::float4", "1.1"),
    "huge real": ("3.4e38::float4", "3.4e+38"),
    "real NaN": ("'NaN'::float4", "null"),
    "double": ("0.1::float8 + 0.2", "0.30000000000000004"),
    "huge double": ("1.7976931348623157e308::float8", "1.7976931348623157e308"),
    "double NaN": ("'NaN'::float8", "null"),
    "double infinity": ("'Infinity'::float8", "null"),
    "boolean": ("true", "true"),
    "oid": ("4294967295::oid", "4294967295"),
    "date": ("'2025-01-02'::date", '"2025-01-02"'),
    "date without end": ("'infinity'::date", '"infinity"'),
    "date before Christ": ("'0044-03-15 BC'::date", '"0044-03-15 BC"'),
    "date after 9999": ("'10000-01-01'::date", '"10000-01-01"'),
    "timestamp": ("'2025-01-02 03:04:05.6'::timestamp", '"2025-01-02T03:04:05.6"'),
    "timestamp without end": ("'-infinity'::timestamp", '"-infinity"'),
    "timestamp before Christ": ("'0044-03-15 10:00 BC'::timestamp", '"0044-03-15 10:00:00 BC"'),
    "timestamp after 9999": ("'10000-01-01 10:00'::timestamp", '"10000-01-01 10:00:00"'),
    "first year": ("'0001-01-01 00:00:00.000001'::timestamp", '"0001-01-01T00:00:00.000001"'),
    "timestamp with zone": ("'2025-01-02 03:04:05+02'::timestamptz", '"2025-01-02T01:04:05Z"'),
    "timestamp with zone without end": ("'infinity'::timestamptz", '"infinity"'),
    "timestamp with zone after 9999": ("'10000-01-01 10:00Z'::timestamptz", '"10000-01-01 10:00:00+00"'),
    "time": ("'03:04:05.6'::time", '"03:04:05.6"'),
    "midnight at the end": ("'24:00'::time", '"24:00:00"'),
    "time with zone": ("'03:04+02:30'::timetz", '"03:04:00+02:30"'),
    "month": ("'1 month'::interval", '"P1M"'),
    "thirty days": ("'30 days'::interval", '"P30D"'),
    "mixed interval": ("'-1 year 2 days 3.5 seconds'::interval", '"P-1Y2DT3.5S"'),
    "bytea": (r"'\xdeadbeef'::bytea", '"3q2+7w=="'),
    "empty bytea": ("''::bytea", '""'),
    "uuid": ("'00000000-0000-0000-0000-00000000000A'::uuid", '"00000000-0000-0000-0000-00000000000a"'),
    "text": ("""E'a"\\n\\\\é日'""", '"a\\"\\n\\\\é日"'),
    "padded text": ("'x'::bpchar(3)", '"x  "'),
    "char of the catalogue": ("""'a'::"char\"""", '"a"'),
    "name": ("'n'::name", '"n"'),
    "inet": ("'10.0.0.1/24'::inet", '"10.0.0.1/24"'),
    "cidr": ("'10.0.0.0/8'::cidr", '"10.0.0.0/8"'),
    "macaddr": ("'08:00:2b:01:02:03'::macaddr", '"08:00:2b:01:02:03"'),
    "bit": ("B'101'", '"101"'),
    "bit varying": ("''::varbit", '""'),
    "money": ("12.5::money", '"$12.50"'),
    "point": ("point '(1,2.5)'", '"(1,2.5)"'),
    "box": ("box '(1,1),(0,0)'", '"(1,1),(0,0)"'),
    "path": ("path '[(0,0),(1,1)]'", '"[(0,0),(1,1)]"'),
    "tsvector": ("'a:1 b'::tsvector", "\"'a':1 'b'\""),
    "tsquery": ("'a & b'::tsquery", "\"'a' & 'b'\""),
    "xml": ("NULL::xml", "null"),  # the embedded Postgres is built without more of it
    "json as it stands": (
        """'{"a": 1.10, "a": 12345678901234567890.5, "b":"\\u0000"}'::json""",
        '{"a": 1.10, "a": 12345678901234567890.5, "b":"\\u0000"}',
    ),
    "json on one line": ("""E'{"a":\\n1,\\r\\n"b":"\\\\n"}'::json""", '{"a": 1,  "b":"\\n"}'),
    "jsonb": ("""'{"b":1.10,"a":1e3}'::jsonb""", '{"a": 1000, "b": 1.10}'),
    "jsonb null": ("'null'::jsonb", "null"),
    "jsonpath": ("'$.a'::jsonpath", '"$.\\"a\\""'),
    "array": ("ARRAY[1, NULL]", "[1,null]"),
    "empty array": ("'{}'::int[]", "[]"),
    "nested array of numeric": ("ARRAY[[1.10, 2], [3, 'NaN'::numeric]]", "[[1.10,2],[3,null]]"),
    "array that begins elsewhere": ("'[2:3]={1,2}'::int[]", "[1,2]"),
    "array of text": (
        """ARRAY['a,b', 'c"d', 'NULL', NULL, '', '{}']""",
        '["a,b","c\\"d","NULL",null,"","{}"]',
    ),
    "array of dates": ("ARRAY['2025-01-01'::date, 'infinity', NULL]", '["2025-01-01","infinity",null]'),
    "array of intervals": ("ARRAY['1 month'::interval]", '["P1M"]'),
    "array of timestamps": ("ARRAY['2025-01-02 03:04+02'::timestamptz]", '["2025-01-02T01:04:00Z"]'),
    "array of jsonb": ("""ARRAY['{"a": 1.10}'::jsonb, 'null', NULL]""", '[{"a": 1.10},null,null]'),
    "array of real": ("ARRAY[1.1::float4, 'NaN']", "[1.1,null]"),
    "array of bytea": (r"ARRAY['\xde'::bytea]", '["3g=="]'),
    "array of boxes": ("ARRAY['((1,1),(0,0))'::box, '((2,2),(1,1))']", '["(1,1),(0,0)","(2,2),(1,1)"]'),
    "array of enum": ("""ARRAY['sad', 'it''s "fine"', NULL]::mood[]""", '["sad","it\'s \\"fine\\"",null]'),
    "array of a composite": ("ARRAY[ROW(1.10, 'x', NULL)::pair, NULL]", '[{"n":1.10,"t":"x","d":null},null]'),
    "array of ranges": ("ARRAY[int4range(1, 2)]", '["[1,2)"]'),
    "array of multiranges": ("ARRAY[nummultirange(numrange(1.10, 2))]", '["{[1.10,2)}"]'),
    "array of a domain": ("ARRAY[1.10::price]", "[1.10]"),
    "array of a domain of enum": ("ARRAY['sad'::mild]", '["sad"]'),
    "array of a domain of arrays": ("ARRAY['{1,2}'::ints]", "[[1,2]]"),
    "array of a domain of composites": ("ARRAY[ROW(1, 'x', NULL)::couple]", '[{"n":1,"t":"x","d":null}]'),
    "array of records": ("ARRAY[ROW(1, 'a')]", '[{"f1":1,"f2":"a"}]'),
    "range": ("int4range(1, 5)", '"[1,5)"'),
    "range without end": ("daterange('2025-01-01', NULL)", '"[2025-01-01,)"'),
    "empty range": ("'empty'::numrange", '"empty"'),
    "multirange": ("nummultirange(numrange(1.10, 2))", '"{[1.10,2)}"'),
    "domain": ("1.10::price", "1.10"),
    "domain of date": ("'2025-01-02'::day", '"2025-01-02"'),
    "domain of array": ("'{1,2}'::ints", "[1,2]"),
    "domain of range": ("int4range(1, 2)::span", '"[1,2)"'),
    "domain of enum": ("'sad'::mild", '"sad"'),
    "domain of composite": ("ROW(1.10, 'x', '2025-01-02')::couple", '{"n":1.10,"t":"x","d":"2025-01-02"}'),
    "enum": ("'sad'::mood", '"sad"'),
    "composite": ("ROW(1.10, 'x', '2025-01-02')::pair", '{"n":1.10,"t":"x","d":"2025-01-02"}'),
    "nested composite": (
        "ROW(ROW(1, 'x', NULL), ARRAY[ROW(2, 'y', NULL)::pair], 'sad')::nested",
        '{"p":{"n":1,"t":"x","d":null},"ps":[{"n":2,"t":"y","d":null}],"m":"sad"}',
    ),
    "record": ("ROW(1.10, 'a', NULL)", '{"f1":1.10,"f2":"a","f3":null}'),
    "record of no numbers": (
        "ROW('NaN'::float8, 'Infinity'::numeric, '-Infinity'::float4, 'NaN'::text)",
        '{"f1":null,"f2":null,"f3":null,"f4":"NaN"}',
    ),
    "record of bytes": (
        r"ROW('\xdead'::bytea, ''::bytea, '\xdead'::text)",
        r'{"f1":"3q0=","f2":"","f3":"\\xdead"}',
    ),
    "record of moments": (
        "ROW('2025-01-01 02:00:00.5+02'::timestamptz, 'infinity'::timestamptz, '2025-01-01'::timestamp)",
        '{"f1":"2025-01-01T00:00:00.5Z","f2":"infinity","f3":"2025-01-01T00:00:00"}',
    ),
    "record of far moments": (
        "ROW('0044-03-15 10:00Z BC'::timestamptz, '10000-01-01 10:00'::timestamp)",
        '{"f1":"0044-03-15 10:00:00+00 BC","f2":"10000-01-01 10:00:00"}',
    ),
    "record of arrays": (
        r"ROW(ARRAY[['NaN', 1.10], [2, NULL]]::numeric[], ARRAY['\xde'::bytea, NULL], '{}'::float8[])",
        '{"f1":[[null,1.10],[2,null]],"f2":["3g==",null],"f3":[]}',
    ),
    "record of json": (
        """ROW('{"a": "NaN",\n "a": 1.10}'::json, '["x", {}]'::jsonb)""",
        '{"f1":{"a": "NaN",  "a": 1.10},"f2":["x", {}]}',
    ),
    "records in records": (
        "ROW(ARRAY[ROW('NaN'::float8, 1), NULL], ROW(ROW('infinity'::float4)), ROW(NULL, NULL))",
        '{"f1":[{"f1":null,"f2":1},null],"f2":{"f1":{"f1":null}},"f3":{"f1":null,"f2":null}}',
    ),
    "array of records of bytes": (r"ARRAY[ROW(1, '\xdead'::bytea)]", '[{"f1":1,"f2":"3q0="}]'),
    "composite of inexact parts": (
        r"ROW('2025-01-01Z', '\xdead', 'NaN')::event",
        '{"at":"2025-01-01T00:00:00Z","body":"3q0=","share":null}',
    ),
    "array of composites of inexact parts": (
        r"ARRAY[ROW('2025-01-01Z', '\xdead', 'NaN')::event, NULL]",
        '[{"at":"2025-01-01T00:00:00Z","body":"3q0=","share":null},null]',
    ),
    "row of a subquery": (
        r"(SELECT t FROM (SELECT 'NaN'::float8 AS x, '\xdead'::bytea AS y) AS t)",
        '{"x":null,"y":"3q0="}',
    ),
    "record of an array of domains": ("ROW(ARRAY[1.10::price], '{1}'::ints)", '{"f1":[1.10],"f2":[1]}'),
    "record of an object identifier": ("ROW(5::oid, ARRAY[6::oid])", '{"f1":5,"f2":[6]}'),
    "vector of small integers": ("ROW('1 2'::int2vector)", '{"f1":[1,2]}'),
}
NULLABLE = (
    "int", "bigint", "numeric", "float4", "float8", "bool", "date", "timestamp", "timestamptz", "time",
    "interval", "bytea", "uuid", "inet", "cidr", "macaddr", "bit", "varbit", '"char"', "name", "oid", "money",
    "point", "tsvector", "json", "jsonb", "int[]", "numeric[]", "int4range", "int4range[]", "nummultirange",
    "pair", "pair[]", "mood", "price", "ints", "couple", "record", "text",
)  # fmt: skip
# Whole statements, and their records.
STATEMENTS: dict[str, tuple[str, str]] = {
    "nulls": (
        "SELECT " + ", ".join(f"NULL::{name} AS c{n}" for n, name in enumerate(NULLABLE)),
        "[{" + ",".join(f'"c{n}":null' for n in range(len(NULLABLE))) + "}]",
    ),
    "names twice": ("SELECT 1 a, 2 a", '[{"a":1,"a_2":2}]'),
    "names thrice": ("SELECT 1 a, 2 a, 3 a", '[{"a":1,"a_2":2,"a_3":3}]'),
    "a name that is taken": ("SELECT 1 a, 2 a, 3 a_2", '[{"a":1,"a_2":2,"a_2_2":3}]'),
    "names twice with a composite": (
        "SELECT ROW(1)::text a, 2 a, ROW(3) a",
        '[{"a":"(1)","a_2":2,"a_3":{"f1":3}}]',
    ),
    "no rows": ("SELECT 1 a WHERE false", "[]"),
    "no columns": ("SELECT FROM generate_series(1, 3)", "[{},{},{}]"),
    "odd names": (
        'SELECT 1 "a""b", 2 "a\\b", 4 "é日", 6 "__class__", 7 "c0", 8 "self", 9 " "',
        '[{"a\\"b":1,"a\\\\b":2,"é日":4,"__class__":6,"c0":7,"self":8," ":9}]',
    ),
    "many columns": (
        "SELECT " + ", ".join(f"{n}::numeric AS n{n}" for n in range(1600)),
        "[{" + ",".join(f'"n{n}":{n}' for n in range(1600)) + "}]",
    ),
    "many columns with a composite": (
        "SELECT ROW(1) AS r, " + ", ".join(f"{n} AS n{n}" for n in range(1599)),
        '[{"r":{"f1":1},' + ",".join(f'"n{n}":{n}' for n in range(1599)) + "}]",
    ),
    "ordered rows of a composite": (
        "SELECT ROW(i) AS r FROM generate_series(1, 4) i ORDER BY i DESC -- last first",
        '[{"r":{"f1":4}},{"r":{"f1":3}},{"r":{"f1":2}},{"r":{"f1":1}}]',
    ),
}


@pytest.fixture(scope="module")
async def service(server, template):
    async with held(whole_service(server, template)) as opened:
        for statement in TYPES.split(";"):
            await opened.database.write(Command("types", statement))
        yield opened


@pytest.fixture(scope="module")
async def ids(service: Running) -> dict[str, str]:
    statements = {name: f"SELECT {expression} AS v" for name, (expression, _) in VALUES.items()}
    statements |= {name: sql for name, (sql, _) in STATEMENTS.items()}
    # Trusted: casts to types of the data schemas are not tested here.
    return dict(zip(statements, await service.store(*statements.values(), trusted=True), strict=True))


async def records(service: Running, metric_id: str) -> str:
    answer = await service.client.get(f"/metrics/{metric_id}", headers={"Cache-Control": "no-cache"})
    assert answer.status_code == 200, answer.text
    json.loads(answer.content, parse_int=str)
    return answer.text.split('"records":', 1)[1].rsplit(',"row_count":', 1)[0]


@pytest.mark.parametrize("name", VALUES)
async def test_a_value_is_exact(service, ids, name):
    assert await records(service, ids[name]) == f'[{{"v":{VALUES[name][1]}}}]'


@pytest.mark.parametrize("name", STATEMENTS)
async def test_records_are_exact(service, ids, name):
    assert await records(service, ids[name]) == STATEMENTS[name][1]


async def test_columns_show_the_type_names_of_postgres(service):
    (metric,) = await service.store(
        "SELECT 1.10 a, ARRAY[ROW(1, NULL, NULL)::pair] b, int4range(1, 2) c, 'x'::\"char\" d, now() e",
        trusted=True,
    )
    columns = (await service.client.get(f"/metrics/{metric}")).json()["columns"]
    assert [column["type"] for column in columns] == [
        "numeric", "pair[]", "int4range", '"char"', "timestamp with time zone",
    ]  # fmt: skip


async def test_csv_and_ndjson_show_the_same_values(service):
    sql = (
        "SELECT 1.10 n, ROW(1.10, 'x') r, ARRAY[1.10, NULL] a, 'NaN'::float8 f, E'a\\nb' t, '[1, 2]'::json j"
    )
    (metric,) = await service.store(sql)
    lines = (await service.client.get(f"/metrics/{metric}?format=ndjson")).text
    assert lines == '{"n":1.10,"r":{"f1":1.10,"f2":"x"},"a":[1.10,null],"f":null,"t":"a\\nb","j":[1, 2]}\n'
    table = (await service.client.get(f"/metrics/{metric}?format=csv")).text
    assert table == ('n,r,a,f,t,j\r\n1.10,"{""f1"":1.10,""f2"":""x""}","[1.10,null]",,"a\nb","[1, 2]"\r\n')


async def test_a_composite_that_changes_shows_its_new_shape(service):
    await service.database.write(Command("type", "CREATE TYPE data.changing AS (a int)"))
    await service.database.write(Command("table", "CREATE TABLE data.changed (c data.changing)"))
    await service.database.write(Command("row", "INSERT INTO data.changed VALUES (ROW(1))"))
    (metric,) = await service.store("SELECT c FROM changed")
    assert await records(service, metric) == '[{"c":{"a":1}}]'
    await service.database.write(Command("type", "ALTER TYPE data.changing ADD ATTRIBUTE b text"))
    assert await records(service, metric) == '[{"c":{"a":1,"b":null}}]'


async def test_the_part_types_of_a_composite_are_found_on_first_use(clone, reader):
    await clone.write(Command("table", "CREATE TABLE data.bookings (during tsrange, spans numrange[])"))
    described = await reader.describe("SELECT b FROM data.bookings AS b")
    assert described.json_columns == {0}


async def test_a_composite_counts_only_its_text_against_the_byte_limit(service):
    sql = "SELECT ROW(repeat('x', 3000000), repeat('y', 3000000)) AS r"
    (metric,) = await service.store(sql, trusted=True)  # validation refuses such sizes
    assert len(await records(service, metric)) > 6_000_000


async def test_a_column_that_becomes_a_record_is_described_again(service):
    body = "LANGUAGE sql AS $$ SELECT {} $$"
    await service.database.write(
        Command("function", f"CREATE FUNCTION data.turning() RETURNS int {body.format(1)}")
    )
    (metric,) = await service.store("SELECT turning() AS c", trusted=True)
    assert await records(service, metric) == '[{"c":1}]'
    await service.database.write(Command("drop", "DROP FUNCTION data.turning()"))
    await service.database.write(
        Command("function", f"CREATE FUNCTION data.turning() RETURNS record {body.format('(7, 8)')}")
    )
    assert await records(service, metric) == '[{"c":{"f1":7,"f2":8}}]'


async def test_a_composite_may_contain_json_of_any_depth(service):
    (metric,) = await service.store("SELECT ROW((repeat('[', 3000) || repeat(']', 3000))::json) AS v")
    lines = (await service.client.get(f"/metrics/{metric}?format=ndjson")).text
    assert lines == '{"v":{"f1":' + "[" * 3000 + "]" * 3000 + "}}\n"


ECHO = """
SELECT ARRAY(SELECT nullif(e, '')::numeric FROM jsonb_array_elements_text(v -> 'n') AS e) AS n,
       ARRAY(SELECT e FROM jsonb_array_elements_text(v -> 't') AS e) AS t,
       ARRAY(SELECT e::bigint FROM jsonb_array_elements_text(v -> 'i') AS e) AS i
FROM (SELECT :v::jsonb) AS given(v)
"""


@pytest.fixture(scope="module")
async def echo(service):
    (metric,) = await service.store(ECHO, trusted=True)  # our parser reads `v ->` in a call as a lambda
    return metric


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=7) | st.none(), max_size=8),
    texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.none()),
    integers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8),
)
async def test_any_value_survives_the_round_trip(service, echo, numbers, texts, integers):
    given_values = {"n": ["" if n is None else f"{n:f}" for n in numbers], "t": texts, "i": integers}
    answer = await service.client.get(f"/metrics/{echo}", params={"v": json.dumps(given_values)})
    assert answer.status_code == 200, answer.text
    (record,) = msgspec.json.Decoder(dict, float_hook=Decimal).decode(answer.content)["records"]
    assert [None if n is None else Decimal(n) for n in record["n"]] == numbers
    assert record["t"] == texts
    assert record["i"] == integers
