"""Files that hold no rows or no columns, and values that the column's type would round."""

import msgspec
import pytest

from service.imports import quarantine
from service.imports.contracts import find_among
from service.imports.derived import read_datasets
from service.imports.run.turns import Turns
from tests.db.test_derived_datasets import ACTOR, Shop, bare, counts  # noqa: F401 (a fixture)

TABLE = """
CREATE DOMAIN public.realm AS text;
CREATE DOMAIN public.nap AS interval;
CREATE TABLE public.odd (
    id integer PRIMARY KEY, note text, at timestamptz, at_second timestamptz(0), hour time, hour_zoned timetz,
    second time(0), pause interval, amounts numeric(10,2)[], shares real[], moments timestamp(0)[],
    number numeric, whole smallint, body jsonb, letter "char", short name,
    place public.realm, price money, prices money[], spot point, ring polygon, paper xml, papers xml[],
    hours time[], days date[], stay tsrange, ref oid, bodies jsonb[], texts text[], pauses interval[],
    nap public.nap, way jsonpath
);
CREATE TABLE public.free (note text, number integer DEFAULT 7)
"""


@pytest.fixture
async def odd(bare: Shop) -> Shop:  # noqa: F811
    await bare.run(TABLE)
    for table in ("public.odd", "public.free"):
        await bare.add(table)
    return bare


@pytest.mark.parametrize(
    "text", ["[]", '{"items": null}', '{"items": []}', '{"items": {}}', '{"layouts": [1]}']
)
@pytest.mark.parametrize("dataset", ["odd", "free"])
async def test_a_document_without_rows_is_an_import_of_none(odd: Shop, dataset: str, text: str):
    report = await odd.put(dataset, text, "file.json")
    assert (report.inserted, report.rows_read - report.quarantined) == (0, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"text"', "wrong-type"),
        ("12", "wrong-type"),
        ("[1, null]", "wrong-type"),
        ('{"data": [{"id": 1}]}', "unknown-column"),
        ("{}", "missing-value"),
        ('{"x": ""}', "missing-value"),
    ],
)
@pytest.mark.parametrize("dataset", ["odd", "free"])
async def test_a_row_without_any_column_waits(odd: Shop, dataset: str, text: str, reason: str):
    report = await odd.put(dataset, text, "file.json")
    assert report.rows_read == report.quarantined > 0
    assert next(each[1] for each in await odd.kept()) == reason


async def test_a_line_that_is_no_object_waits_alone(odd: Shop):
    report = await odd.put("odd", '{"id": 1}\n5\n"x"\n{"id": 2}\n', "file.ndjson")
    assert counts(report) == (4, 2, 0, 0, 2)
    assert await odd.kept() == [
        (2, "wrong-type", "a row must be an object"),
        (3, "wrong-type", "a row must be an object"),
    ]


@pytest.mark.parametrize("source", ["request", "file.json"])
async def test_a_json_text_sequence_is_read(odd: Shop, source: str):
    report = await odd.put("odd", '\x1e{"id": 1}\n\x1e{"id": 2}\n', source)
    assert counts(report) == (2, 2, 0, 0, 0)


async def test_headings_that_are_all_unknown_are_told_by_their_rows(odd: Shop):
    report = await odd.put("free", "a,b\n1,2\n,\n")
    assert (report.inserted, report.reasons) == (0, {"missing-value": 1, "unknown-column": 1})
    assert "free has note, number" in (await odd.kept())[1][2]


@pytest.mark.parametrize(
    "given", ['"\\u0000"', '"\\ud800"', '{"a": 1}', "[1]", "12", "true", "0.5"], ids=range(7)
)
async def test_an_id_of_the_quarantine_that_is_none_keeps_its_row_alone(odd: Shop, given: str):
    text = f'[{{"id": 1, "quarantine_id": {given}}}, {{"id": 2}}]'
    report = await odd.put("odd", text, "file.json")
    assert (report.inserted, report.reasons) == (1, {"conflict": 1})


async def test_a_number_of_more_digits_than_postgres_takes_keeps_its_row_alone(odd: Shop):
    report = await odd.put("odd", f'[{{"id": 1, "number": {"1" * 200_000}}}, {{"id": 2}}]', "file.json")
    assert (report.inserted, report.reasons) == (1, {"wrong-type": 1})


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("at", "2019-10-04T09:00:00.1234567Z"),
        ("at", "2019-10-04 09:00:00.0000001"),
        ("at_second", "2019-10-04 09:00:00.5"),
        ("hour", "09:00:00.1234567"),
        ("hour", "09:00+02"),
        ("hour", "09:00 Europe/Berlin"),
        ("hour", "2019-10-04 09:00"),
        ("hour", "20191004 0900"),
        ("hour_zoned", "09:00:00.1234567+02"),
        ("hour_zoned", "2019-10-04 09:00+02"),
        ("second", "09:00:00.5"),
        ("pause", "0.1234567 seconds"),
        ("pause", "PT0.1234567S"),
        ("amounts", "{1.00,1.005}"),
        ("amounts", "[1.005]"),
        ("shares", "{0.5,16777217}"),
        ("moments", '{"2019-10-04 09:00:00.5"}'),
        ("letter", "ab"),
        ("short", "x" * 70),
        ("price", "1.005"),
        ("price", "($1,234.567)"),
        ("price", "1,5"),
        ("price", "1,234"),
        ("price", "1,23.50"),
        ("price", "$12,34"),
        ("prices", "{1.00,0.001}"),
        ("prices", '{"1,5"}'),
        ("at", "2019-03-31 02:30 Europe/Berlin"),
        ("at", "2019-10-27 02:30 Europe/Berlin"),
        ("at", "05/04/2026 01:45:00 Australia/Lord_Howe"),
        ("spot", "(0.12345678901234567890,1)"),
        ("ring", "((0,0),(1,1),(12345678901234567,1))"),
        ("hours", "{09:00,09:00:00.1234567}"),
        ("hours", "{now}"),
        ("days", "[today]"),
        ("stay", "[2019-10-04 09:00:00.1234567,)"),
        ("stay", "[2019-10-04,Tomorrow)"),
        ("ref", "-1"),
        ("body", '{"a": 1, "b": {"c": 1, "c": 2}}'),
        ("bodies", '["{}", "{\\"a\\": 1, \\"a\\": 2}"]'),
        ("nap", "0.1234567 seconds"),
        ("nap", "90"),
        ("pause", "1,5 hours"),
        ("pause", "-1.5"),
        ("pause", "5 min 3"),
        ("pauses", "{1 hour,90}"),
        ("hour", "12:30.5"),
        ("hour", "1234.5"),
        ("hour", "12:"),
        ("hour_zoned", "12:30.5+02"),
        ("at", "2019-10-04 12:30.5"),
        ("at", "2019-10-04 1234.5Z"),
        ("at", "2019-10-04 12:30:00,5"),
    ],
)
async def test_a_value_that_the_type_would_change_waits(odd: Shop, column: str, cell: str):
    quoted = '"' + cell.replace('"', '""') + '"'
    report = await odd.put("odd", f"id,{column}\n1,{quoted}\n")
    assert (report.inserted, report.quarantined) == (0, 1)
    assert (await odd.kept())[0][2].startswith(f'{column}: "')


@pytest.mark.parametrize(
    ("column", "cell", "stored"),
    [
        ("at", "2019-10-04T09:00:00.12345600Z", "2019-10-04 09:00:00.123456+00"),
        ("at", "04/10/2019 09:00:00.5 Europe/Berlin", "2019-10-04 07:00:00.5+00"),
        ("at_second", "2019-10-04 09:00:00.0", "2019-10-04 09:00:00+00"),
        ("hour", "9:00 PM", "21:00:00"),
        ("hour", "0900", "09:00:00"),
        ("hour", "09:00:00.50", "09:00:00.5"),
        ("hour_zoned", "09:00+02", "09:00:00+02"),
        ("second", "09:00:00.0", "09:00:00"),
        ("pause", "1.5 days 00:00:00.123456", "1 day 12:00:00.123456"),
        ("amounts", "[1.10, 2]", "{1.10,2.00}"),
        ("shares", "{0.5,null}", "{0.5,NULL}"),
        ("letter", "a", "a"),
        ("place", "north", "north"),
        ("price", "1234.5", "$1,234.50"),
        ("price", "$1,234,567.5", "$1,234,567.50"),
        ("price", "1,234,567", "$1,234,567.00"),
        ("price", "(.5)", "-$0.50"),
        ("at", "2019-10-27 01:59 Europe/Berlin", "2019-10-26 23:59:00+00"),
        ("at", "2019-03-31T03:00:00Europe/Berlin", "2019-03-31 01:00:00+00"),
        ("at", "2019-03-31 02:30+01", "2019-03-31 01:30:00+00"),
        (
            "texts",
            '[{"a": 1.50, "a": 2}, 1e400, 1.10, null]',
            '{"{\\"a\\": 1.50, \\"a\\": 2}",1e400,1.10,NULL}',
        ),
        ("price", "-$0.10", "-$0.10"),
        ("price", "100", "$100.00"),
        ("prices", "[1, 2.50]", "{$1.00,$2.50}"),
        ("spot", "1.5, -2e3", "(1.5,-2000)"),
        ("hours", "{09:00:00.123456}", "{09:00:00.123456}"),
        ("stay", "[2019-10-04,)", '["2019-10-04 00:00:00",)'),
        ("ref", "7", "7"),
        ("bodies", '[{"a": 1.10}, null]', '{"{\\"a\\": 1.10}",NULL}'),
        ("nap", "1 hour", "01:00:00"),
        ("nap", "0", "00:00:00"),
        ("pause", "-1 day, 12:00:00", "-1 days +12:00:00"),
        ("pause", "P0001-02-03T04:05:06", "1 year 2 mons 3 days 04:05:06"),
        ("pause", "2 1:30", "2 days 01:30:00"),
        ("pauses", "{1 hour,90s}", "{01:00:00,00:01:30}"),
        ("hour", "123456.7", "12:34:56.7"),
        ("hour_zoned", "12:30:15.5 PM +02", "12:30:15.5+02"),
        ("at", "2019-10-04 1230+0200", "2019-10-04 10:30:00+00"),
        ("at", "2019-10-04 12:30 PM UTC", "2019-10-04 12:30:00+00"),
    ],
)
async def test_a_value_that_the_type_keeps_is_stored(odd: Shop, column: str, cell: str, stored: str):
    quoted = cell.replace('"', '""')
    await odd.put("odd", f'id,{column}\n1,"{quoted}"\n')
    assert await odd.ask(f"SELECT {column}::text FROM public.odd") == [(stored,)]


@pytest.mark.parametrize(("column", "cell"), [("paper", "<a"), ("papers", "{<a}"), ("way", "1e999999")])
async def test_a_type_whose_input_raises_errors_keeps_rows_back(odd: Shop, column: str, cell: str):
    report = await odd.put("odd", f"id,note,{column}\n1,a,{cell}\n2,b,\n")
    assert counts(report) == (2, 1, 0, 0, 1)
    ((_, reason, message),) = await odd.kept()
    assert reason == "wrong-type"
    assert message.startswith(f'{column}: "{cell}" is refused: ')


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ('{"id": 1, "note": "a", "note": "b", "note": "c", "x": "1", "x": "2", "x": "2"}', "file.json"),
        ("id,note,note,note,x,x,x\n1,a,b,c,1,2,2\n", "file.csv"),
    ],
)
async def test_every_value_of_a_repeated_name_is_kept(odd: Shop, text: str, source: str):
    await odd.run('ALTER TABLE public.odd ADD COLUMN "note 2" text')
    await odd.put("odd", text, source)
    ((raw,),) = await odd.ask("SELECT raw - 'id' FROM quarantine.row")
    assert raw == {"note": "a", "note (3)": "b", "note (4)": "c", "x": "1", "x (2)": "2", "x (3)": "2"}


async def test_many_values_of_one_name_are_kept_at_once(odd: Shop):
    many = ", ".join(f'"x": "{number}"' for number in range(90_000))
    report = await odd.put("odd", f'[{{"id": 1, {many}}}]', "file.json", bytes_limit=8 << 20)
    assert report.reasons == {"unknown-column": 1}
    assert await odd.ask("SELECT count(*) FROM quarantine.row, jsonb_object_keys(raw)") == [(90_001,)]


NUMBERS = '"number": 0.12345678901234567890123, "body": {"a": [1.10, 12345678901234567890.5], "a ": null}'


async def test_numbers_keep_their_digits_when_their_row_is_fixed(odd: Shop):
    await odd.put("odd", f'[{{"id": "x", {NUMBERS}}}]', "file.json")
    ((row_id,),) = await odd.ask("SELECT id FROM quarantine.row")
    kept = await quarantine.one(odd.tx, row_id)
    assert str(kept.raw["number"]) == "0.12345678901234567890123"
    fix = {"id": 1, "whole": msgspec.json.decode("-5"), "note": "a"}
    await quarantine.fix(odd.tx, row_id, fix, lambda sql: sql, ACTOR, turns=Turns())  # type: ignore[arg-type]
    assert await odd.ask("SELECT id, number::text, body::text, whole, note FROM public.odd") == [
        (1, "0.12345678901234567890123", '{"a": [1.10, 12345678901234567890.5], "a ": null}', -5, "a")
    ]


@pytest.fixture
async def alike(odd: Shop) -> Shop:
    await odd.run(
        'CREATE TABLE public.alike (id int PRIMARY KEY, "Rate" text, rate text, "%" text, "#" text,'
        " reason text, message text)"
    )
    await odd.add("public.alike")
    return odd


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("id,Rate,rate,%,#\n1,a,b,c,d\n", "file.csv"),
        ("id,%,rate,#,Rate\n1,c,b,d,a\n", "file.csv"),
        ('[{"id": 1, "rate": "b", "#": "d", "Rate": "a", "%": "c"}]', "file.json"),
    ],
)
async def test_columns_that_differ_in_case_or_signs_are_told_apart(alike: Shop, text: str, source: str):
    assert (await alike.put("alike", text, source)).inserted == 1
    assert await alike.ask('SELECT "Rate", rate, "%", "#" FROM public.alike') == [("a", "b", "c", "d")]


@pytest.mark.parametrize("heading", ["RATE", "§", "~"])
async def test_a_heading_of_several_columns_or_of_none_is_not_guessed(alike: Shop, heading: str):
    assert (await alike.put("alike", f"id,{heading}\n1,a\n")).reasons == {"unknown-column": 1}


async def test_an_export_brings_back_columns_that_are_named_as_its_own(alike: Shop):
    await alike.put("alike", "id,reason,message\nx,=why,what\n")
    dataset = find_among(await read_datasets(alike.tx), "alike")
    assert dataset
    exported = b"".join([line async for line in quarantine.export(alike.tx, dataset)]).decode()
    assert (await alike.put("alike", exported.replace("x,", "1,", 1))).inserted == 1
    assert await alike.ask("SELECT id, reason, message FROM public.alike") == [(1, "=why", "what")]


@pytest.mark.parametrize(
    ("type_", "stored", "written"),
    [
        ("integer", "7", ["7", "007", "+7", "7.0", " 7 "]),
        ("date", "2019-10-04", ["2019-10-04", "04/10/2019", "4.10.2019", "43742"]),
        ("timestamp", "2019-10-04 09:00", ["2019-10-04T09:00", "04/10/2019 09:00", "43742.375"]),
        ("numeric", "1.50", ["1.5", "1.500", "15e-1"]),
        ("uuid", "c797b618-df12-45f7-bbb2-cc6695a48e46", ["C797B618DF1245F7BBB2CC6695A48E46"]),
        ("text", "\u00e9", ["e\u0301", "\u200b\u00e9"]),
        ("boolean", "true", ["yes", "1"]),
    ],
)
async def test_a_broken_row_is_no_gone_row_however_its_key_is_written(odd: Shop, type_, stored, written):
    await odd.run(f"CREATE TABLE public.kept (key {type_} PRIMARY KEY, n integer)")
    await odd.run(f"INSERT INTO public.kept VALUES ('{stored}', 1)")
    await odd.add("public.kept", mirror=True)
    for cell in written:
        report = await odd.put("kept", f"key,n\n{cell},x\n", mirror=True)
        assert (report.quarantined, report.gone) == (1, 0), cell
    assert (await odd.put("kept", "key,n\n,x\n", mirror=True)).gone == 1


async def test_a_row_of_other_fields_than_the_heading_says_how_many(alike: Shop):
    await alike.put("alike", "id,reason\nx\ny,a,b\n")
    says = await alike.ask('SELECT message FROM quarantine."row" ORDER BY line')
    assert [message for (message,) in says] == ["1 field, the heading has 2", "3 fields, the heading has 2"]
