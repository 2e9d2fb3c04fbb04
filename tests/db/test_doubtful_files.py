# ruff: noqa: E501 (tables read by the row)
"""Cells that could be read in two ways: the row is kept back whole, all others are stored as they stand."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.audit import Actor
from service.database.gateway import Transaction
from service.errors import InvalidInput, UnsupportedMediaType
from service.imports.datasets import find
from service.imports.readers import Upload, inspect
from service.imports.readers.records import Records
from service.imports.readers.tables import Doubtful, guarded, unguarded
from service.imports.run.imports import Options, Report, import_file

OPTIONS = Options(validate_sql=lambda sql: sql, bytes_limit=32 << 20, actor=Actor("test", None))
HEAD = "customer_id,occupation,type\n"
FACTS = "id;date;obsolescence\n"


@pytest.fixture
def load(tx: Transaction, tmp_path: Path):
    async def load(
        dataset: str, content: str | bytes, charset: str | None = None, source="request"
    ) -> Report:
        path = tmp_path / "file"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        found = find(dataset)
        assert found
        return await import_file(tx, Upload(path, source, charset), found, OPTIONS)

    return load


@pytest.fixture
def stored(tx: Transaction):
    async def stored(column: str = "occupation") -> dict[int, str]:
        rows = await tx._connection.fetch(f"SELECT customer_id, {column} FROM data.customers ORDER BY 1")
        return {row[0]: row[1] for row in rows}

    return stored


@pytest.fixture
def kept(tx: Transaction):
    async def kept() -> list[tuple[str, dict]]:
        rows = await tx._connection.fetch("SELECT reason, raw FROM quarantine.row ORDER BY line")
        return [(row["reason"], row["raw"]) for row in rows]

    return kept


# Rows after the heading, what is stored, and the own text of those that are kept back.
QUOTES: list[tuple[str, str, dict[int, str], list[str]]] = [
    ("not doubled", '1,"Pump 5" wide",a\n2,b,a\n', {2: "b"}, ['1,"Pump 5" wide",a']),
    ("in pairs but not doubled", '1,"He said "hi" to me",a\n', {}, ['1,"He said "hi" to me",a']),
    ("text behind a closing quote", '1,"abc"x,a\n', {}, ['1,"abc"x,a']),
    ("a blank behind a closing quote", '1,"abc" ,a\n', {}, ['1,"abc" ,a']),
    ("escaped by a backslash", '1,"say \\"hi\\" now",a\n', {}, ['1,"say \\"hi\\" now",a']),
    ("a blank before a quote", '1, "Smith",a\n', {}, ['1, "Smith",a']),
    ("a wide blank before a quote", '1,\u00a0"Smith",a\n', {}, ['1,\u00a0"Smith",a']),
    ("a blank before the first quote", ' "1",Smith,a\n', {}, [' "1",Smith,a']),
    ("a row within a stray cell", '1,"a"x,"b\n9,Cook,a\nc"\n2,b,a\n', {2: "b"}, ['1,"a"x,"b\n9,Cook,a\nc"']),
    ("the first of several lines", '1,"a"x,b\r\n2,"c\nd",a\r\n', {2: "c\nd"}, ['1,"a"x,b']),
    ("inside a bare cell", '1,5" bolt,a\n2,6"x8",a\n', {1: '5" bolt', 2: '6"x8"'}, []),
    ("doubled", '1,"ok ""quoted"" ok",a\n2,"""all""",a\n', {1: 'ok "quoted" ok', 2: '"all"'}, []),
    ("a blank and a doubled quote", '1," ""a",b\n', {1: '"a'}, []),
    ("a blank before a quote in a quoted cell", '1,"a, ""b""",c\n', {1: 'a, "b"'}, []),
    ("too many cells", "1,a," + "," * 2000 + "\n2,b,a\n", {2: "b"}, ["1,a," + "," * 2000]),
    ("many commas in a cell", f'1,"{"," * 150}",a\n', {1: "," * 150}, []),
]  # fmt: skip


@pytest.mark.parametrize(("_", "rows", "sound", "texts"), QUOTES, ids=[case[0] for case in QUOTES])
async def test_a_row_of_stray_quotes_is_kept_with_its_own_text(*, load, stored, kept, _, rows, sound, texts):
    report = await load("customers", HEAD + rows)
    assert await stored() == sound
    assert await kept() == [("field-count", {"text of the row": text}) for text in texts]
    assert report.rows_read == len(sound) + len(texts)


async def test_a_long_text_of_many_commas_is_one_cell(load, tx: Transaction):
    sql = "select " + ",\n".join(["1"] * 1500)
    report = await load("queries", f'id,sql\nlong,"{sql}"\nnext,select 1\n')
    assert (report.inserted, report.quarantined) == (2, 0)
    assert await tx._connection.fetchval("SELECT sql FROM catalog.query WHERE id = 'long'") == sql


@given(
    st.lists(st.lists(st.text('a", \n\r;\t\u00a0'), min_size=2, max_size=4), min_size=1, max_size=5),
    st.data(),
)
def test_what_a_writer_quotes_is_read_back_and_nothing_is_altered(rows, data):
    text = io.StringIO()
    csv.writer(text, quoting=data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))).writerows(rows)
    read = [
        row for _, row in Records(io.StringIO(text.getvalue(), newline=""), "x", ",", damaged=False).rows()
    ]
    assert read == rows


@given(st.text('"",,a \n', max_size=40))
def test_the_lines_of_a_file_are_in_its_rows_one_by_one(text):
    source = io.StringIO(text, newline="")
    try:
        found = list(Records(source, "x", ",", damaged=False).rows())
    except InvalidInput:
        return
    generous = csv.reader(io.StringIO(text, newline=""))
    starts, line = list[int](), 1
    for row in generous:
        starts += [line] if len(row) > 1 or (row and row[0].strip()) else []
        line = generous.line_num + 1
    assert {line for line, row in found if not isinstance(row, Doubtful)} <= set(starts)
    assert set(starts) <= {line for line, _ in found}
    for _, row in found:
        assert not isinstance(row, Doubtful) or row.text in text


async def test_a_decimal_comma_in_another_column_keeps_a_number_back(load):
    text = "id;date;obsolescence;obsolescence_val\na;2025-01-01;1.234;\nb;2025-01-01;;1,5\n"
    report = await load("metric_records", text)
    assert report.reasons == {"conflict": 1, "wrong-type": 1}


@pytest.mark.parametrize("sign", ["5-", "5-3", "+", "1+"])
async def test_a_sign_that_is_none_is_no_matter_of_digits(load, sign):
    assert (await load("customers", f"{HEAD}{sign},a,b\n")).reasons == {"wrong-type": 1}


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["sep={}\n", "SEP={}\r\n", '"sep={}"\n', "\ufeffsep={}\r"])
async def test_a_first_line_tells_the_delimiter(load, stored, mark, first):
    rows = "customer_id,occupation,type,\n1,a,b,\n2,a,b,\n".replace(",", mark)
    report = await load("customers", first.format(mark) + rows)
    assert (report.inserted, list(await stored())) == (2, [1, 2])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("2.000", None), ("12.000", None), ("+1.000", None), ("1.001", None), ("1.000.000", None), ("2.0", 2), ("2.00", 2),
     ("2.0000", 2), ("1234.000", 1234), ("2", 2)],
)  # fmt: skip
async def test_a_point_that_may_mark_thousands_keeps_a_whole_number_back(load, stored, kept, cell, expected):
    report = await load("customers", f"{HEAD.replace(',', ';')}{cell};a;b\n")
    assert list(await stored()) == ([] if expected is None else [expected])
    assert report.reasons == ({"wrong-type": 1} if expected is None else {})


@pytest.mark.parametrize(
    ("cells", "loaded"),
    [(["1.234", "2.5"], ["1.234", "2.5"]), (["1.234", "2,5"], []), (["1.234", "1.234,56", "7"], ["7"]),
     (["1.234", "1.234.567"], []), (["0.123", "1.2345", "3,5"], ["0.123", "1.2345"]), (["1.234", "12 345,60"], []),
     (["1.234", "5,0 €"], []), (["1.234", "€ 5,0"], []), (["1.234", "12,5%"], []), (["1.234", "1,5e3"], []),
     (["1.234", "(1,5)"], []), (["1.234", ",5"], []), (["1.234", "€1.234.567"], []), (["1.234", "1,234.5"], ["1.234"]),
     (["1.234", "none, 5 of them"], ["1.234"])],
    ids=["no commas", "a comma", "points and a comma", "groups", "not to be mistaken", "spaces between thousands",
         "a currency behind", "a currency before", "a percentage", "an exponent", "in brackets", "no digit before",
         "groups with a currency", "thousands in English", "words"],
)  # fmt: skip
async def test_a_point_in_a_column_of_decimal_commas_keeps_a_number_back(
    load, tx: Transaction, cells, loaded
):
    rows = "".join(f"a{at};2025-01-01;{cell}\n" for at, cell in enumerate(cells))
    report = await load("metric_records", FACTS + rows)
    found = await tx._connection.fetch("SELECT obsolescence::text FROM data.metrics ORDER BY id")
    assert [row[0] for row in found] == loaded
    assert report.quarantined == len(cells) - len(loaded)


async def test_words_are_one_whatever_nobody_sees_in_them(load, stored, tx: Transaction):
    unseen = [
        "Plum\u00adber",
        "\u200ePlumber",
        "Plumber\u200b",
        "Plumber\u2003",
        "\u2060Plumber\u2009",
        "plu\ufe0fmber",
        "\u3000Plumber\u0085",
        "Plumber\U000e0020",
        "Plumber",
    ]
    await load("customers", HEAD + "".join(f"{at},{word},Red\n" for at, word in enumerate(unseen, 1)))
    assert set((await stored()).values()) == {"Plumber"}
    spellings = await tx._connection.fetch("SELECT spelling FROM data.vocabulary WHERE list = 'occupation'")
    assert [row[0] for row in spellings] == ["Plumber"]


async def test_unseen_marks_are_trimmed_from_numbers_and_kept_inside_of_texts(load, stored, tx: Transaction):
    await load("customers", f"{HEAD}\u200b137\u2003,\u200b,a\n")
    assert await stored() == {137: None}
    await load("metric_records", "id,date\n\u2003a\u200db\u00a0c\u200b,2025-01-01\n")
    assert await tx._connection.fetchval("SELECT id FROM data.metrics") == "a\u200db\u00a0c"


NAME = "Инженер"


@pytest.mark.parametrize(
    "charset",
    ["windows-1251", "KOI8-R", "iso-8859-5", "utf-8", "utf-16le", "UTF-16BE", "gb18030", "mac-cyrillic"],
)
async def test_a_stated_charset_is_used(load, stored, charset):
    await load("customers", f"{HEAD}1,{NAME},a\n".encode(charset), charset)
    assert await stored() == {1: NAME}


async def test_the_same_bytes_are_read_again_in_another_charset(load, stored):
    content = f"{HEAD}1,{NAME},a\n".encode("cp1251")
    await load("customers", content)
    await load("customers", content, "windows-1251")
    assert await stored() == {1: NAME}


@pytest.mark.parametrize(
    "charset", ["klingon", "utf-7", "idna", "rot13", "unicode_escape", "hex", "zip", "", "\0", "utf-32"]
)
async def test_a_charset_that_is_none_of_texts_is_refused(load, charset):
    with pytest.raises(UnsupportedMediaType, match="charset"):
        await load("customers", f"{HEAD}1,a,b\n", charset)


async def test_json_in_another_charset_is_refused(load):
    with pytest.raises(UnsupportedMediaType, match="JSON must be UTF-8"):
        await load("customers", '[{"customer_id": 1}]', "windows-1251")


@pytest.mark.parametrize(
    ("content", "charset", "says"),
    [
        (f"{HEAD}1,a,b\n".encode("utf-16-le"), None, "byte order mark"),
        (f"{HEAD}1,a,b\n".encode("utf-16-be"), None, "byte order mark"),
        (f"{HEAD}1,a,b\n".encode("utf-16-le"), "utf-16", "byte order mark"),
        (f"{HEAD}1,{NAME},b\n".encode("utf-16-le"), "windows-1251", "byte order mark"),
        (f"{HEAD}1,a,b\n".encode("utf-32"), None, "UTF-32"),
        (f"{HEAD}1,a,b\n".encode("utf-16"), "utf-8", "byte order mark"),
        (f"{HEAD}1,a,b\n".encode("utf-8-sig"), "windows-1251", "byte order mark"),
        (f"{HEAD}1,a,b\n".encode("utf-16-le")[:-1], "utf-16le", "is stated to be"),
    ],
    ids=["little", "big", "without an end stated", "under another charset", "utf-32", "not utf-8", "not 1251", "cut"],
)  # fmt: skip
async def test_contradicting_bytes_refuse_the_file(load, content, charset, says):
    with pytest.raises(InvalidInput, match=says):
        await load("customers", content, charset)


@pytest.mark.parametrize("broken", [b"\xff", b"\xe9", b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\x81"])
async def test_a_broken_byte_keeps_its_row_back_alone(load, stored, kept, broken):
    content = f"{HEAD}1,Büro,a\n2,".encode() + broken + "x,b\n3,Küche,a\n".encode()
    report = await load("customers", content)
    assert await stored() == {1: "Büro", 3: "Küche"}
    assert (report.encoding, report.reasons) == ("utf-8", {"encoding": 1})
    [(_, raw)] = await kept()
    assert raw["text of the row"] == "2," + "".join(f"\\x{byte:02x}" for byte in broken) + "x,b"
    assert raw["customer_id"] == "2"


async def test_a_byte_that_a_stated_charset_lacks_keeps_its_row_back(load, stored):
    report = await load("customers", HEAD.encode() + b"1,\x98,a\n2,b,a\n", "windows-1251")
    assert (await stored(), report.reasons) == ({2: "b"}, {"encoding": 1})


async def test_a_character_over_the_border_of_two_reads_is_whole(load, stored):
    filler = "a" * ((1 << 20) - len(HEAD) - len("1,,b\n2,"))
    report = await load("customers", f"{HEAD}1,{filler},b\n2,é,b\n3,\U0001f600,b\n".encode())
    assert (await stored(), report.encoding) == ({2: "é", 3: "\U0001f600"}, "utf-8")


async def test_a_broken_byte_in_the_headings_refuses_the_file(load):
    with pytest.raises(InvalidInput, match="line 1: headings"):
        await load("customers", b"customer_id,occupation,type,\xe9\n1,a,b,\n2,B\xc3\xbcro,a,\n")


@pytest.mark.parametrize(
    ("rows", "reasons", "notes"),
    [
        ("1,a,b,\n2,c,d,\n", {}, ["a delimiter ends every row"]),
        ("1,a,b,\n2,c\n", {"field-count": 1}, ["a delimiter ends every row"]),
        ("1,a,b,\n2,c,d\n", {"field-count": 1}, []),
        ("1,a,b,\n2,c,d,x\n", {"field-count": 2}, []),
    ],
    ids=["on every row", "and a short row", "on one row", "a value behind it"],
)
async def test_a_delimiter_at_the_end_of_every_row_is_no_cell(load, rows, reasons, notes):
    report = await load("customers", HEAD + rows)
    assert (report.reasons, report.notes) == (reasons, notes)
    assert report.inserted + report.quarantined == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("," * (16 << 20), "line 1: a row is longer"),
        (HEAD + "," * (9 << 20), "line 2: a row is longer"),
        (HEAD + '1,"' + "\n12345678" * (1 << 20), "line 2: a cell is longer"),
        ("customer_id,occupation,type," + "h" * 300 + "\n", "heading 'hhh"),
        ('[{"customer_id": [' + "{}," * 300_000 + "{}]}]", "values"),
        ("[{" + '"a":1,' * 300_000 + '"a":1}]', "values"),
    ],
    ids=["headings", "a row", "lines", "a heading", "json of objects", "json of keys"],
)
async def test_what_no_row_holds_refuses_the_file(load, content, says):
    with pytest.raises(InvalidInput, match=says):
        await load("customers", content)


async def test_an_object_of_many_rows_is_no_row(load):
    rows = ",".join(f'{{"customer_id": {number}}}' for number in range(1, 120_001))
    assert (await load("customers", f'{{"items": [{rows}]}}')).inserted == 120_000


@pytest.mark.parametrize(
    "head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"%PDF-1.7\n", b"\x1f\x8b\x08\x00"]
)
def test_what_is_no_table_is_told_by_its_bytes(tmp_path: Path, head):
    path = tmp_path / "file.csv"
    path.write_bytes(head + HEAD.encode())
    with pytest.raises(UnsupportedMediaType, match="no table"):
        inspect(Upload(path, "file.csv"), bytes_limit=1 << 20)


@given(st.text("'=+-@\t\r\n \u00a0\u200b\u202e\ufeff\uff1da1", max_size=8))
def test_the_export_guards_every_formula_and_its_import_undoes_just_that(cell):
    assert unguarded(guarded(cell)) == cell
    assert (
        not guarded(cell).lstrip("\t\r\n \u00a0\u200b\u202e\ufeff").startswith(("=", "+", "-", "@", "\uff1d"))
    )
