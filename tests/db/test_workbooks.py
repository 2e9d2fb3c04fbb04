# ruff: noqa: E501 (tables read by the row)
"""Workbooks as people and programs write them: each row as the sheet shows it, or a clear no."""

import asyncio
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from service import process as launcher
from service.audit import Actor
from service.database.gateway import Transaction
from service.errors import InvalidInput, TooLarge
from service.imports import quarantine
from service.imports.datasets import find
from service.imports.readers import Upload, inspect, opened, workbooks
from service.imports.readers.workbooks import sheet_names
from service.imports.run.imports import Options, import_file
from service.imports.run.turns import Turns
from tests.waiting import until
from tests.workbook import cells, packed, parts, workbook

LIMIT = 16 << 20
OPTIONS = Options(validate_sql=lambda sql: sql, bytes_limit=LIMIT, actor=Actor("test", None))
HEADINGS = ["customer_id", "occupation", "type"]
SHEET = "xl/worksheets/sheet1.xml"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Upload]:
    def write(content: bytes) -> Upload:
        path = tmp_path / "book.xlsx"
        path.write_bytes(content)
        return Upload(path, path.name)

    return write


async def rows(upload: Upload, dataset: str = "customers") -> list[tuple[int, ...]]:
    """Line and cells of each row, in the order of the file's columns."""
    found = find(dataset)
    assert found
    facts = inspect(upload, bytes_limit=LIMIT)
    async with opened(upload, facts, found, bytes_limit=LIMIT, readers=asyncio.Semaphore(1)) as table:
        return [(record[0], *record[5:]) for record in table.records]


def sheet(body: str, *, shared: tuple[str, ...] = ()) -> bytes:
    """A sheet of the customers' headings and these rows."""
    head = cells([HEADINGS]).removesuffix("</sheetData>")
    return workbook({"customers": f"{head}{body}</sheetData>"}, shared=shared)


def row(*found: str) -> str:
    return f'<row r="2">{"".join(found)}</row>'


READ: list[tuple[str, bytes, list[tuple]]] = [
    ("places in lower case", sheet('<row r="2"><c r="a2"><v>1</v></c><c r="c2" t="str"><v>x</v></c></row>'), [(2, "1", "", "x")]),
    ("no places at all", sheet("<row/><row><c><v>1</v></c><c/><c t='str'><v>x</v></c></row>"), [(3, "1", "", "x")]),
    ("places here and there", sheet('<row r="5"><c><v>1</v></c><c r="C5" t="str"><v>x</v></c></row>'), [(5, "1", "", "x")]),
    ("places with dollars", sheet(row('<c r="$A$2"><v>1</v></c>', '<c r="B2" t="str"><v>x</v></c>')), [(2, "1", "x", "")]),
    ("cells out of order", sheet(row('<c r="C2" t="str"><v>x</v></c>', '<c r="A2"><v>1</v></c>')), [(2, "1", "", "x")]),
    ("a > in an attribute", sheet('<row r="2" x="a>b"><c x=">" r="A2"><v>1</v></c></row>'), [(2, "1", "", "")]),
    ("comments, CDATA and references", sheet(row('<c r="A2"><v>1<!-- 9 -->2</v></c>', '<c r="B2" t="str"><v><![CDATA[a<b]]>&amp;&#66;</v></c>')), [(2, "12", "a<b&B", "")]),
    ("rich text without its pronunciation", sheet(row('<c r="B2" t="s"><v>0</v></c>', '<c r="C2" t="inlineStr"><is><r><t>a</t></r><r><t xml:space="preserve"> b</t></r><rPh><t>no</t></rPh></is></c>'), shared=("<r><t>x</t></r><r><t>y</t></r><rPh sb='0' eb='1'><t>no</t></rPh><phoneticPr/>",)), [(2, "", "xy", "a b")]),
    ("an inline string in the place of a value", sheet(row('<c r="B2" t="inlineStr"><v>x</v></c>')), [(2, "", "x", "")]),
    ("escaped characters", sheet(row('<c r="B2" t="s"><v>0</v></c>', '<c r="C2" t="str"><v>_x005F_x0041_ _x0000_</v></c>'), shared=("a_x000A_b",)), [(2, "", "a\nb", "_x0041_ _x0000_")]),
    ("shared and array formulas", sheet(row('<c r="A2"><f t="shared" ref="A2:A3" si="0">1</f><v>1</v></c>', '<c r="B2" t="str"><f t="array" ref="B2">x</f><v>x</v></c>', '<c r="C2" t="str"><f>""</f></c>') + '<row r="3"><c r="A3"><f t="shared" si="0"/><v>2</v></c></row>'), [(2, "1", "x", ""), (3, "2", "", "")]),
    ("truth and errors", sheet(row('<c r="A2" t="e"><v>#N/A</v></c>', '<c r="B2" t="b"><v>1</v></c>', '<c r="C2" t="b"><v>0</v></c>')), [(2, "#N/A", "true", "false")]),
    ("written dates", sheet(row('<c r="B2" t="d"><v>2019-10-04T09:00:00.500</v></c>')), [(2, "", "2019-10-04 09:00:00.500000", "")]),
    ("formats", workbook({"customers": cells([HEADINGS, [(7, 0), (43742, 1), (43742.5, 2)], [(8, 0), (7, 0), (1.25, 3)], [(9, 9), (7, 4), (7, 5)]])}, formats=("000", 14, "dd/mm/yyyy hh:mm", "[h]:mm", '"K-"00', "#,##0")), [(2, "7", "2019-10-04", "2019-10-04 12:00:00"), (3, "8", "007", "30:00"), (4, "9", "K-07", "7")]),
    ("times that are rounded to the end of the day", workbook({"customers": cells([HEADINGS, [1, (0.99999999999, 0), (0.9999, 0)]])}, formats=("hh:mm",)), [(2, "1", "1900-01-01", "23:59:51.360000")]),
    ("durations", workbook({"customers": cells([HEADINGS, [1, (-0.5, 0), (1.5, 1)], [2, (-1.2503472222222222, 0), (0.0625, 2)], [3, (0.0625, 3), (-0.0001, 4)], [4, (2, 5), (1.000005, 6)], [5, (1, 7), (0, 0)], [6, (-0.00000000001, 0), (1e9, 0)]])}, formats=("[h]:mm", "[hh]:mm:ss", "[mm]:ss", "[m]", "[h]:mm;@", '[h]"h "mm', 46, "[s].00")), [(2, "1", "-12:00", "36:00:00"), (3, "2", "-30:00:30", "90:00"), (4, "3", "90", "-0:00:08.64"), (5, "4", "48:00:00", "24:00:00.432"), (6, "5", "86400", "0:00"), (7, "6", "0:00", "1000000000")]),
    ("colours of formats", workbook({"customers": cells([HEADINGS, [1, (7, 0), (7, 1)], [2, (7, 2), (7, 3)]])}, formats=("[Red]000", "00[color 5]0;[Blue]-0", "[>5]000;00", '[Magenta]"K-"00')), [(2, "1", "007", "007"), (3, "2", "7", "K-07")]),
    ("hidden behind blanks and styles", sheet('<row r="2"><c r="A2" s="0"/><c r="XFD2" s="0"/></row><row r="3"><c r="A3"><v>1</v></c><c r="XFD3" t="str"><v> </v></c></row>'), [(3, "1", "", "")]),
    ("merged downwards, told at the end", workbook({"customers": cells([HEADINGS, [1, "a", "b"], [2, None, None], [3, None, "c"], [4, None, None]], merged="B2:C4")}), [(2, "1", "a", "b"), (3, "2", "a", ""), (4, "3", "a", "c"), (5, "4", "", "")]),
    ("errors that belong to nobody", workbook({"customers": cells([[*HEADINGS, ("#REF!",), "other"], [1, "a", "b", None, ("#N/A",)], [None, None, None, None, ("#N/A",)]])}), [(2, "1", "a", "b")]),
    ("an error merged downwards", workbook({"customers": cells([HEADINGS, [1, ("#N/A",), "b"], [2, None, "c"]], merged="B2:B3")}), [(2, "1", "#N/A", "b"), (3, "2", "#N/A", "c")]),
    ("the last row", sheet('<row r="1048576"><c r="A1048576"><v>1</v></c></row>'), [(1048576, "1", "", "")]),
    ("another sheet that is chart-like", packed({**parts({"customers": cells([HEADINGS, [1, "a", "b"]])}), "xl/worksheets/sheet9.xml": "<broken"}), [(2, "1", "a", "b")]),
]  # fmt: skip


@pytest.mark.parametrize(("_", "content", "expected"), READ, ids=[case[0] for case in READ])
async def test_a_sheet_is_read_as_it_shows(*, write, _, content: bytes, expected: list[tuple]):
    assert await rows(write(content)) == expected


def renamed(change: Callable[[str], str], **texts: Callable[[str], str]) -> bytes:
    """A workbook with other names of its files and other texts in them; `strict` and the like say which."""
    files = parts({"customers": cells([HEADINGS, [1, "a", "b"]])}, shared=["a"], formats=["0"])
    changed: dict[str, str | bytes] = {}
    for name, content in files.items():
        assert isinstance(content, str)
        every = texts.get("every", str)
        changed[change(name)] = every(content)
    return packed(changed)


PACKED: list[tuple[str, bytes]] = [
    ("paths with backslashes", renamed(lambda name: name.replace("/", "\\"), every=lambda text: re.sub(r'(Target="[^"]*)/', r"\1\\", text))),
    ("names in another case", renamed(str.upper)),
    ("absolute targets", renamed(str, every=lambda text: text.replace('Target="worksheets/', 'Target="/xl/worksheets/'))),
    ("the strict namespaces", renamed(str, every=lambda text: text.replace("http://schemas.openxmlformats.org/spreadsheetml/2006/main", STRICT).replace("http://schemas.openxmlformats.org/officeDocument/2006/relationships", "http://purl.oclc.org/ooxml/officeDocument/relationships"))),
    ("a byte order mark", renamed(str, every=lambda text: "\ufeff" + text)),
    ("a workbook elsewhere", renamed(lambda name: name.replace("xl/workbook", "xl/book1").replace("xl/_rels/workbook", "xl/_rels/book1"), every=lambda text: text.replace("xl/workbook.xml", "/xl/book1.xml"))),
    ("no relations of the package", packed({name: text for name, text in parts({"customers": cells([HEADINGS, [1, "a", "b"]])}).items() if name != "_rels/.rels"})),
    ("nothing but sheets", packed({name: text for name, text in parts({"customers": cells([HEADINGS, [1, "a", "b"]])}).items() if name not in {"xl/styles.xml", "xl/sharedStrings.xml"}})),
    ("stored, not deflated", packed(parts({"customers": cells([HEADINGS, [1, "a", "b"]])}), method=zipfile.ZIP_STORED)),
    ("a picture in it", packed({**parts({"customers": cells([HEADINGS, [1, "a", "b"]])}), "xl/media/image1.png": b"\x89PNG" * 1000})),
    ("prefixes before all names", packed({**parts({"customers": ""}), SHEET: cells([HEADINGS, [1, "a", "b"]]).replace("</", "</x:").replace("<", "<x:").replace("<x:/x:", "</x:").replace("<x:sheetData>", '<x:worksheet xmlns:x="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><x:sheetData>') + "</x:worksheet>"})),
    ("UTF-16", packed({name: text.encode("utf-16") if isinstance(text, str) and name.startswith("xl/") else text for name, text in parts({"customers": cells([HEADINGS, [1, "a", "b"]])}).items()})),
]  # fmt: skip


@pytest.mark.parametrize(("_", "content"), PACKED, ids=[case[0] for case in PACKED])
async def test_an_archive_is_read_however_it_is_packed(*, write, _, content: bytes):
    assert await rows(write(content)) == [(2, "1", "a", "b")]


REFUSED: list[tuple[str, bytes, str]] = [
    ("a formula never calculated", sheet(row('<c r="A2"><f>1+1</f></c>')), "A2: a formula that was never calculated"),
    ("a cell in another row", sheet(row('<c r="A3"><v>1</v></c>')), "cell A3 is in row 2"),
    ("a cell twice", sheet(row('<c r="A2"><v>1</v></c>', '<c r="a2"><v>1</v></c>')), "A2 is there twice"),
    ("rows backwards", sheet('<row r="3"/><row r="2"/>'), "row 2 comes after row 3"),
    ("a string that is not there", sheet(row('<c r="B2" t="s"><v>1</v></c>'), shared=("x",)), "B2 names a text"),
    ("a value far to the right", sheet(row('<c r="ALM2"><v>1</v></c>')), "ALM2: cells right of column 1000"),
    ("a DTD", packed({**parts({"customers": cells([HEADINGS])}), SHEET: "<!DOCTYPE x><worksheet/>"}), "DTD"),
    ("a sheet that is not there", packed({name: text for name, text in parts({"customers": ""}).items() if name != SHEET}), "sheet1.xml is missing"),
    ("more sheets than are read", workbook({f"s{n}": "" for n in range(1001)}), "more than 1000 visible sheets"),
    ("text repeated beyond the limit by a merge", workbook({"customers": cells([HEADINGS, [1, "x" * 20_000, "b"], *([n, None, "b"] for n in range(2, 1000))], merged="B2:B1000")}), "IMPORT_BYTES_LIMIT"),
]  # fmt: skip


@pytest.mark.parametrize(("_", "content", "says"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_doubt_about_a_sheet_refuses_it(*, write, _, content: bytes, says: str):
    with pytest.raises((InvalidInput, TooLarge), match=says):
        await rows(write(content))


async def test_formulas_in_columns_that_nobody_wants_need_no_value(write):
    content = workbook({"customers": cells([[*HEADINGS, "sum"], [1, "a", "b", ("=", "")]])})
    assert await rows(write(content)) == [(2, "1", "a", "b")]


@pytest.mark.parametrize("left", [0, 1, 30])
@pytest.mark.parametrize("top", [0, 5])
async def test_a_table_may_stand_anywhere(write, left: int, top: int):
    body = "".join(
        f'<row r="{top + number}">'
        + "".join(f'<c r="{_letters(left + at)}{top + number}" t="str"><v>{text}</v></c>' for at, text in enumerate(line))
        + "</row>"
        for number, line in enumerate([HEADINGS, ["1", "a", "b"]], 1)
    )  # fmt: skip
    assert await rows(write(workbook({"any": f"<sheetData>{body}</sheetData>"}))) == [
        (top + 2, "1", "a", "b")
    ]


def _letters(column: int) -> str:
    first, second = divmod(column, 26)
    return (chr(64 + first) if first else "") + chr(65 + second)


async def test_bare_day_numbers_count_from_the_epoch_of_the_workbook(write):
    body = cells(
        [["date_start", "interaction", "customer_id"], [42280, "42280", 42280], [(42280, 0), "x", 1]]
    )
    for from_1904, day in ((False, "42280"), (True, "2019-10-04")):
        book = workbook({"any": body}, formats=[14], from_1904=from_1904)
        found = await rows(write(book), "external_interactions")
        assert found[0] == (2, day, "42280", "42280")
        assert found[1][1] == ("2019-10-04" if from_1904 else "2015-10-03")


async def test_long_digits_reach_the_table_and_the_quarantine_whole(tx: Transaction, write):
    found = find("customers")
    assert found
    body = cells([HEADINGS, [9007199254740993, "a", "b"], [("=", "9.0071992547409950E15"), "a", "b"]])
    body = body.replace(
        "</sheetData>", '<row r="4"><c r="A4"><v>1234567.12345678901234</v></c></row></sheetData>'
    )
    await import_file(tx, write(workbook({"customers": body})), found, OPTIONS)
    ids = await tx._connection.fetch("SELECT customer_id FROM data.customers ORDER BY 1")
    assert [found["customer_id"] for found in ids] == [9007199254740993, 9007199254740995]
    kept = await tx._connection.fetchval("SELECT raw ->> 'customer_id' FROM quarantine.row WHERE line = 4")
    assert kept == "1234567.12345678901234"


async def test_a_known_workbook_is_not_opened_again(write, tx: Transaction, monkeypatch: pytest.MonkeyPatch):
    upload, dataset = write(sheet(row('<c r="A2"><v>1</v></c>'))), find("customers")
    assert dataset
    first = await import_file(tx, upload, dataset, OPTIONS)
    monkeypatch.setattr(launcher, "START", "raise SystemExit(1)")
    again = await import_file(tx, upload, dataset, OPTIONS)
    assert (first.inserted, again.unchanged, again.rows_read) == (1, 1, 1)
    await tx._connection.execute("DELETE FROM data.customers")
    with pytest.raises(TooLarge):  # it no longer stands: it is opened
        await import_file(tx, upload, dataset, OPTIONS)


async def test_the_reader_ends_with_its_caller(write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launcher, "START", "import sys; sys.stdin.read()")  # it would wait for ever
    upload = write(workbook({"customers": cells([HEADINGS])}))
    waited_for: list[int] = []
    start = workbooks.start_process

    def started(*job, **output):
        process = start(*job, **output)
        wait = process.wait
        process.wait = lambda: (waited_for.append(process.pid), wait())[1]
        return process

    monkeypatch.setattr(workbooks, "start_process", started)
    task = asyncio.create_task(rows(upload))
    await until(lambda: waited_for)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not _alive(waited_for[0]))


def _alive(pid: int) -> bool:
    """A process that has ended and waits to be collected is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "death",
    [
        "import os; os.abort()",
        "import sys; sys.exit(1)",
        "import os; os.kill(os.getpid(), 9)",
        "while True: pass",
    ],
)
async def test_a_reader_that_dies_is_the_files_fault(write, monkeypatch: pytest.MonkeyPatch, death: str):
    limits = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); "
    monkeypatch.setattr(launcher, "START", limits + death)
    with pytest.raises(TooLarge, match="save it as CSV"):
        await rows(write(workbook({"customers": cells([HEADINGS])})))


async def test_the_reader_gets_no_secret(write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    seen = tmp_path / "seen"
    monkeypatch.setattr(
        launcher, "START", f"import os; open({str(seen)!r}, 'w').write(repr(dict(os.environ)))"
    )
    with pytest.raises(ValueError, match="truncated"):
        await sheet_names(write(workbook({})).path, "book", bytes_limit=LIMIT)
    assert "secret" not in seen.read_text()


async def test_a_row_with_an_error_waits_until_each_error_is_mended(tx: Transaction, write):
    found = find("customers")
    assert found
    rows_given = [
        [1, "a", "b"],
        [2, ("#N/A",), ("#DIV/0!",)],
        [("#REF!",), "a", "b", ("#NUM!",)],
        [4, "#N/A", "\\u0000"],
    ]
    given = write(workbook({"customers": cells([HEADINGS, *rows_given])}))
    report = await import_file(tx, given, found, OPTIONS)
    assert (report.rows_read, report.inserted, report.reasons) == (4, 2, {"cell-error": 2})
    first, second = (
        await quarantine.rows(
            tx, dataset="customers", reason="cell-error", status="open", after=None, limit=9
        )
    ).rows
    assert first.raw == {"customer_id": "2", "occupation": "#N/A", "type": "#DIV/0!"}
    says = "is an error of the spreadsheet, not a value"
    assert first.message == f'occupation: "#N/A" {says}; type: "#DIV/0!" {says}'
    assert second.message == f'customer_id: "#REF!" {says}; column 4: "#NUM!" {says}'

    async def fix(**raw: str) -> None:
        await quarantine.fix(tx, first.id, raw, OPTIONS.validate_sql, OPTIONS.actor, turns=Turns())  # type: ignore[arg-type]

    with pytest.raises(InvalidInput, match=r"cell-error.*#DIV/0!"):
        async with tx.transaction():
            await fix(occupation="a")
    exported = b"".join([line async for line in quarantine.export(tx, found)]).decode()
    for text, left in (
        (exported, 2),
        (exported.replace("#N/A,", "a,"), 2),
        (exported.replace("#N/A,#DIV/0!", "a,b"), 1),
    ):
        upload = Upload(given.path.with_suffix(".csv"), "mended.csv")
        upload.path.write_text(text)
        await import_file(tx, upload, found, OPTIONS)
        assert [row.number for row in await tx.read(quarantine.COUNT_OPEN)] == [left]
    assert (await quarantine.one(tx, first.id)).status == "loaded"
