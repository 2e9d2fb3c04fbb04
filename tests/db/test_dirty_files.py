# ruff: noqa: E501 (tables read by the row)
"""Dirty files, one by one: what each must come to. None crashes, hangs or loses a row."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.audit import Actor
from service.database.gateway import Transaction
from service.errors import InvalidInput, TooLarge
from service.imports.datasets import find
from service.imports.readers import Upload
from service.imports.run.imports import Options, import_file
from tests.workbook import cells, workbook

OPTIONS = Options(validate_sql=lambda sql: sql, bytes_limit=16 << 20, actor=Actor("test", None))
HEAD = "customer_id,occupation,type\n"
DAYS = "date_start,interaction,customer_id\n"


def zipped(**files: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return held.getvalue()


def bomb() -> bytes:
    return workbook({"customers": "<sheetData>" + " " * (40 << 20) + "</sheetData>"})


def huge_rectangle() -> bytes:
    return workbook({"customers": '<sheetData><row r="1"><c r="A1"><v>1</v></c></row>'
                     '<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'})  # fmt: skip


def repeated_string() -> bytes:
    rows = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, 2000))
    return workbook({"customers": f"<sheetData>{rows}</sheetData>"}, shared=["x" * 32_000])


# Name, dataset, content, then (read, inserted, quarantined by reason).
LOADED: list[tuple[str, str, str | bytes, tuple[int, int, dict[str, int]]]] = [
    ("utf-8 with BOM", "customers", b"\xef\xbb\xbf" + f"{HEAD}1,Büro,B2B\n".encode(), (1, 1, {})),
    ("utf-16 little-endian", "customers", f"{HEAD}1,Büro,B2B\n".encode("utf-16"), (1, 1, {})),
    ("utf-16 big-endian", "customers", b"\xfe\xff" + f"{HEAD}1,Büro,B2B\n".encode("utf-16-be"), (1, 1, {})),
    ("windows-1252", "customers", f"{HEAD}1,Büro,B2B\n".encode("cp1252"), (1, 1, {})),
    ("semicolons", "customers", HEAD.replace(",", ";") + "1;Smith, Sons;B2B\n", (1, 1, {})),
    ("tabs", "customers", HEAD.replace(",", "\t") + "1\tSmith\tB2B\n", (1, 1, {})),
    ("pipes", "customers", HEAD.replace(",", "|") + "1|Smith|B2B\n", (1, 1, {})),
    ("carriage returns alone", "customers", HEAD.replace("\n", "\r") + "1,Smith,B2B\r", (1, 1, {})),
    ("windows line ends", "customers", HEAD.replace("\n", "\r\n") + "1,Smith,B2B\r\n", (1, 1, {})),
    ("no end of line at the end", "customers", HEAD + "1,Smith,B2B", (1, 1, {})),
    ("heading only", "customers", HEAD, (0, 0, {})),
    ("blank lines", "customers", f"\n{HEAD}\n1,Smith,B2B\n   \n\n2,Cook,B2B\n\n", (2, 2, {})),
    ("headings in another case, order and style", "customers", "TYPE,Customer-Id,occupation\nB2B,1,Smith\n", (1, 1, {})),
    ("an extra column without values", "customers", f"{HEAD.strip()},note\n1,Smith,B2B,\n", (1, 1, {})),
    ("an extra column with values", "customers", f"{HEAD.strip()},note\n1,Smith,B2B,hello\n", (1, 0, {"unknown-column": 1})),
    ("a column without heading", "customers", f"{HEAD.strip()},\n1,Smith,B2B,\n2,Cook,B2B,x\n", (2, 1, {"unknown-column": 1})),
    ("one column under two headings", "customers", "id_,customer_id,customer,occupation,type\n,1,1,a,b\n,1,2,a,b\n", (2, 1, {"conflict": 1})),
    ("short and long rows", "customers", f"{HEAD}1,Smith\n2,Cook,B2B,x\n3,Cook,B2B\n", (3, 1, {"field-count": 2})),
    ("only commas", "customers", f"{HEAD},,\n", (1, 0, {"missing-value": 1})),
    ("a quoted line break", "customers", f'{HEAD}1,"Smith\nand Sons",B2B\nx,a,b\n', (2, 1, {"wrong-type": 1})),
    ("a quote within a cell", "customers", f'{HEAD}1,5" pipes,B2B\n2,"say ""hi""",B2B\n', (2, 2, {})),
    ("NUL in a cell", "customers", f"{HEAD}1,Sm\0ith,B2B\n2,Cook,B2B\n", (2, 1, {"encoding": 1})),
    ("a cell of 5 MB", "customers", f"{HEAD}1,{'x' * (5 << 20)},B2B\n2,Cook,B2B\n", (2, 1, {"too-large": 1})),
    ("too many characters for the column", "customers", f"{HEAD}1,{'x' * 201},B2B\n", (1, 0, {"too-large": 1})),
    ("non-breaking spaces", "customers", f"{HEAD}\u00a01\u00a0,\u00a0Smith\u00a0,B2B\n", (1, 1, {})),
    ("negative, zero, huge and fractional ids", "customers", f"{HEAD}-1,a,b\n0,a,b\n99999999999999999999,a,b\n1.5,a,b\n3.0,a,b\n0x1F,a,b\n1_0,a,b\n", (7, 1, {"out-of-range": 3, "wrong-type": 3})),
    ("impossible dates", "external_interactions", f"{DAYS}31/02/2019,a,1\n2019-13-01,a,1\n13/13/2019,a,1\n29/02/2019,a,1\n04/10/2019 25:00,a,1\n", (5, 0, {"wrong-type": 5})),
    ("two-digit years and words", "external_interactions", f"{DAYS}04/10/19,a,1\nnow,a,1\ninfinity,a,1\n20191004,a,1\nOct 4 2019,a,1\n", (5, 0, {"wrong-type": 5})),
    ("dates with a zone", "external_interactions", f"{DAYS}2019-10-04T09:00:00Z,a,1\n2019-10-04 09:00+02,a,1\n", (2, 0, {"wrong-type": 2})),
    ("dates in every form", "external_interactions", f"{DAYS}04/10/2019 09:00,a,1\n4.10.2019,a,1\n04-10-2019 9:00:30,a,1\n2019-10-04T09:00:00.5,a,1\n43742.5,a,1\n43743,a,1\n", (6, 6, {})),
    ("unknown customers", "external_interactions", f"{DAYS}04/10/2019,a,7\n04/10/2019,a,8\n", (2, 0, {"orphan": 2})),
    ("months in every form", "products_of_discussion", "Date,Product\n10-2021,a\n11/2021,a\n2021-12,a\n2022-01-01,a\n44593,a\n1.2022,b\n", (6, 6, {})),
    ("months that are none", "products_of_discussion", "Date,Product\n13-2021,a\nautumn,a\n2021,a\n00-2021,a\n", (4, 0, {"wrong-type": 4})),
    ("a repeated key with other content", "customers", f"{HEAD}1,a,b\n1,a,b\n1,a,c\n", (3, 1, {"duplicate": 1})),
    ("json: rows under items", "customers", '{"next": null, "items": [{"customer_id": 1, "occupation": "a", "type": null}]}', (1, 1, {})),
    ("json: one object per line", "customers", '{"customer_id": 1, "occupation": "a", "type": "b"}\n{"customer_id": "2"}\n', (2, 2, {})),
    ("json: rows on one line", "customers", '[{"customer_id": 1}, {"customer_id": 2}, {"customer_id": "x"}]', (3, 2, {"wrong-type": 1})),
    ("json: not objects, nested and unknown", "customers", '[1, null, {"customer_id": [1]}, {"customer_id": 1, "x": {"a": 1}}]', (4, 0, {"unknown-column": 1, "wrong-type": 3})),
    ("json: NUL and half a pair", "customers", '[{"customer_id": 1, "type": "a\\u0000"}, {"customer_id": 2, "type": "\\ud800"}]', (2, 0, {"encoding": 2})),
    ("json: keys twice", "customers", '[{"customer_id": 1, "customer_id": 2}]', (1, 0, {"conflict": 1})),
    ("json: numbers beyond all bounds", "customers", '[{"customer_id": 1e999999}, {"customer_id": 12345678901234567890123}]', (2, 0, {"out-of-range": 1, "wrong-type": 1})),
    ("json: empty array", "customers", "[]", (0, 0, {})),
    ("json: exact numbers", "metric_records", '[{"id": "a", "date": "2025-01-01", "obsolescence": 0.1234567890123456789}]', (1, 1, {})),
    ("json: every row unlike the contract", "metric_records", '[{"id": "a", "date": 5}, {"id": "a"}, {"id": "a", "date": "2025-01-01", "obsolescence": "NaN"}]', (3, 0, {"missing-value": 1, "wrong-type": 2})),
    ("xlsx: dates, formulas, booleans, errors", "customers", workbook({"customers": cells([["customer_id", "occupation", "type"], [("=", 1), "a", True], [2.0, "a", ("#N/A",)]])}), (2, 1, {"cell-error": 1})),
    ("xlsx: merged downwards and blank rows", "customers", workbook({"customers": cells([["customer_id", "occupation", "type"], [1, "a", "b"], [2, None, "b"], [None, None, None], [3, "c", "b"]], merged="B2:B3")}), (3, 3, {})),
    ("xlsx: hidden sheet of that name", "customers", workbook({"customers": cells([["x"], ["y"]]), "Other": cells([["customer_id", "occupation", "type"], [1, "a", "b"]])}, hidden=["customers"]), (1, 1, {})),
    ("xlsx: a value beyond the headings", "customers", workbook({"customers": cells([["customer_id", "occupation", "type"], [1, "a", "b", "c"]])}), (1, 0, {"field-count": 1})),
]  # fmt: skip

REFUSED: list[tuple[str, str, str | bytes, str]] = [
    ("empty", "customers", "", "the file is empty"),
    ("blank", "customers", "\n \n", "the file is empty"),
    ("a renamed column", "customers", "customer,job,type\n1,a,b\n", "no heading for occupation"),
    ("no headings at all", "customers", "1,Smith,B2B\n", "no heading for customer_id"),
    ("a quote never closed", "customers", f'{HEAD}1,a,b\n2,"a,b\n3,a,b\n', "line 3: the quote opened here"),
    ("a quote that swallows 9 MB", "customers", f'{HEAD}1,"a,b\n{"2,a,b" * 2_000_000}', "line 2: a cell is longer"),
    ("a line of 17 MB", "customers", HEAD + "x" * (15 << 20) + "y" * 900_000, "line"),
    ("neither UTF-8 nor Windows-1252", "customers", HEAD.encode() + b"1,\x81\x8d,b\n", "neither UTF-8 nor"),
    ("utf-16 cut in the middle", "customers", HEAD.encode("utf-16")[:-1], "begins as UTF-16"),
    ("2,000 columns", "customers", ",".join(f"c{n}" for n in range(2000)) + "\n", "at most 1000"),
    ("json cut off", "customers", '[{"customer_id": 1}, {"customer_id"', "line 1: not JSON"),
    ("json without a comma", "customers", '[{"customer_id": 1}\n{"customer_id": 2}]', "line 2"),
    ("json with a comment after it", "customers", '[{"customer_id": 1}]\n// done', "line 2: something follows"),
    ("json with NaN", "customers", '[{"customer_id": NaN}]', "NaN is no number"),
    ("json nested deep", "customers", '[{"customer_id": ' + "[" * 100 + "]" * 100 + "}]", "nested deeper than 64"),
    ("json nested without end", "customers", "[" * 200_000, "nested"),
    ("json in Windows-1252", "customers", '[{"type": "Büro"}]'.encode("cp1252"), "JSON must be UTF-8"),
    ("a zip that is no workbook", "customers", zipped(a="b"), "not a workbook"),
    ("a workbook cut off", "customers", workbook({"customers": "<sheetData/>"})[:300], "not a workbook"),
    ("an old workbook", "customers", b"\xd0\xcf\x11\xe0" + b"\0" * 600, "save it as .xlsx"),
    ("a workbook without the sheet", "customers", workbook({"A": cells([["x"]])}), "no visible sheet"),
    ("two sheets that fit", "customers", workbook(dict.fromkeys("AB", cells([["customer_id", "occupation", "type"]]))), "several sheets"),
    ("a zip bomb", "customers", bomb(), "IMPORT_BYTES_LIMIT"),
    ("a sheet of 17 thousand million cells", "customers", huge_rectangle(), "cells"),
    ("a string repeated beyond the limit", "customers", repeated_string(), "IMPORT_BYTES_LIMIT"),
]  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Upload]:
    def write(content: str | bytes) -> Upload:
        path = tmp_path / "request"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Upload(path, "request")

    return write


@pytest.mark.parametrize(("_", "dataset", "content", "expected"), LOADED, ids=[case[0] for case in LOADED])
async def test_every_row_of_a_dirty_file_is_loaded_or_kept(
    *, tx: Transaction, write, _, dataset, content, expected
):
    await tx._connection.execute(
        "INSERT INTO data.customers (customer_id) VALUES (1)"
    ) if dataset != "customers" else None
    found = find(dataset)
    assert found
    report = await import_file(tx, write(content), found, OPTIONS)
    assert (report.rows_read, report.inserted, report.reasons) == expected
    assert report.rows_read == report.inserted + report.updated + report.unchanged + report.quarantined
    kept = await tx._connection.fetch("SELECT reason, message, raw FROM quarantine.row")
    assert len(kept) == report.quarantined
    assert all(row["message"] and row["raw"] for row in kept)


@pytest.mark.parametrize(("_", "dataset", "content", "says"), REFUSED, ids=[case[0] for case in REFUSED])
async def test_a_refused_file_says_why_and_changes_nothing(
    *, tx: Transaction, write, _, dataset, content, says
):
    found = find(dataset)
    assert found
    with pytest.raises((InvalidInput, TooLarge), match=says):
        await import_file(tx, write(content), found, OPTIONS)
    for table in ("data.customers", "quarantine.row", "imports.run", "data.vocabulary"):
        assert await tx._connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_a_kept_row_is_whole(tx: Transaction, write):
    found = find("customers")
    assert found
    rows: list[dict[str, Any]] = [{"customer_id": "x", "occupation": 1.50, "type": {"a": [1, None]}}]
    await import_file(tx, write(json.dumps(rows)), found, OPTIONS)
    assert await tx._connection.fetchval("SELECT raw FROM quarantine.row") == rows[0]
