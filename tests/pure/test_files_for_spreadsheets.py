"""CSV for spreadsheets: no cell runs, numbers stay numbers, and the file's name harms nobody."""

import csv
import io
import re
from datetime import UTC, datetime
from decimal import Decimal
from email.message import Message
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from service.database.stored_sql.describing import ResultColumn
from service.metrics.file_names import disposition, file_name
from service.metrics.formats import Outcome, record_maker, render

AS_OF = datetime(2025, 8, 2, 9, 30, 15, tzinfo=UTC)
END = "_as-of-20250802T093015Z.csv"


def cells(*values: Any, excel: bool = True, names: tuple[str, ...] = ()) -> list[list[str]]:
    columns = tuple(
        ResultColumn(name, "text") for name in names or [f"c{number}" for number in range(len(values))]
    )
    outcome = Outcome(
        metric=None,  # type: ignore[arg-type] (CSV has the rows alone)
        parameters={},
        columns=columns,
        record=record_maker(columns),
        rows=[values],
        truncated=False,
        as_of=AS_OF,
    )
    return list(csv.reader(io.StringIO(render(outcome, "csv", excel=excel).decode(), newline="")))


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "\n=1",
        "=", "-", "+",
        "-infinity", "-P1D", "--1", "+1 234", "-1,5", "-1=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20A",
    ],
)  # fmt: skip
def test_a_text_that_a_spreadsheet_would_run_is_made_safe(text: str):
    assert cells(text)[1] == [f"'{text}"]
    assert cells(text, excel=False)[1] == [text]


@pytest.mark.parametrize("text", ["-5", "+5", "-0.5", "-.5", "+1.", "-1e-5", "5", "a=1", " =1", "'=1", ""])
def test_a_text_that_is_a_number_or_harmless_stays(text: str):
    assert cells(text, "x")[1] == [text, "x"]


def test_numbers_stay_numbers():
    values = (-5, -1.5, Decimal("-0.10"), True, None, msgspec.Raw(b"-3"), -(10**20))
    assert cells(*values)[1] == ["-5", "-1.5", "-0.10", "true", "", "-3", "-100000000000000000000"]


def test_headings_and_bytes_are_made_safe_too():
    assert cells("x", names=("=1+1",))[0] == ["'=1+1"]
    assert cells(b"\xfb\xef")[1] == ["'++8="]


def name_in(header: str) -> tuple[str, str]:
    """The plain name and the one in UTF-8, as RFC 6266 has a client read them."""
    assert header.isascii()
    assert re.search(r"[\x00-\x1f\x7f]", header) is None
    found = re.fullmatch(
        r'attachment; filename="([^"\\]+)"; filename\*=UTF-8\'\'([!#$&+.^_`|~%\w=-]+)', header
    )
    assert found, header
    message = Message()
    message["Content-Disposition"] = header
    assert message.get_content_disposition() == "attachment"
    return found[1], unquote(found[2])


def test_a_name_tells_title_parameters_and_time():
    given = {"start_date": "2025-06-01", "kind": ["a", "b c"], "all": True, "least": 1.5, "none": None}
    name = file_name("Alerts by type", given, AS_OF)
    assert name == f"Alerts-by-type_start_date=2025-06-01_kind=a+b-c_all=true_least=1.5{END}"
    assert name_in(disposition("Alerts by type", given, AS_OF)) == (name, name)


def test_other_letters_stay_where_they_can():
    plain, name = name_in(disposition("Größe 売上", {"art": "é"}, AS_OF))
    assert name == f"Größe-売上_art=é{END}"
    assert plain == f"Groe-_art=e{END}"


@pytest.mark.parametrize(
    "text",
    [
        "../../etc/passwd", "..\\..\\x", "/etc/passwd", "C:\\x", "con.txt", ".htaccess", "-rf", "~/x", "a\0b",
        'x"; filename="evil.exe', "a\r\nSet-Cookie: x=1",
        "evil\u202egpj.exe", "\u2066x", "%2e%2e%2f", "a;b,c",
        "$(reboot)", "`id`", "x" * 5000, "é" * 5000, "\U0001f469\u200d" * 500, "\ufdfa" * 50,
        "", " . ", "\ud800",
    ],
    ids=lambda text: text.encode("unicode_escape").decode()[:20],
)  # fmt: skip
def test_a_hostile_title_or_value_names_a_plain_file(text: str):
    for title, given in ((text, {}), ("T", {"p": text}), ("T", {text: "v"}), (text, {text: [text, text]})):
        plain, name = name_in(disposition(title, given, AS_OF))
        for each in (plain, name):
            assert each.endswith(END)
            assert len(each.encode()) <= 200
            assert re.fullmatch(r"[\w=.+-]+", each)
            assert not each.startswith((".", "-", "~"))
            assert "." not in each.partition("_")[0]


def test_many_parameters_leave_the_time():
    name = file_name("T", {f"parameter_{number}": "value" for number in range(100)}, AS_OF)
    assert name.startswith("T_parameter_0=value_parameter_1=value")
    assert name.endswith(END)
    assert len(name) <= 200
