"""Workbooks by hand, so that tests can also make broken ones."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPES = (
    f'<?xml version="1.0"?><Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/></Types>'
)
_ROOT = (
    f'<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_REL}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
)


def workbook(sheets: dict[str, str], *, shared: Sequence[str] = (), hidden: Iterable[str] = ()) -> bytes:
    """A workbook of sheets given as their XML (see `cells`)."""
    files = {"[Content_Types].xml": _TYPES, "_rels/.rels": _ROOT}
    listed = related = ""
    for number, (name, content) in enumerate(sheets.items(), 1):
        state = 'state="hidden"' if name in hidden else ""
        listed += f'<sheet name="{name}" sheetId="{number}" r:id="rId{number}" {state}/>'
        related += (
            f'<Relationship Id="rId{number}" Type="{_REL}/worksheet" Target="worksheets/sheet{number}.xml"/>'
        )
        files[f"xl/worksheets/sheet{number}.xml"] = f'<worksheet xmlns="{_MAIN}">{content}</worksheet>'
    files["xl/workbook.xml"] = (
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_REL}"><sheets>{listed}</sheets></workbook>'
    )
    related += f'<Relationship Id="rId0" Type="{_REL}/sharedStrings" Target="sharedStrings.xml"/>'
    files["xl/_rels/workbook.xml.rels"] = (
        f'<Relationships xmlns="{_PACKAGE}/relationships">{related}</Relationships>'
    )
    strings = "".join(f"<si><t>{text}</t></si>" for text in shared)
    files["xl/sharedStrings.xml"] = f'<sst xmlns="{_MAIN}">{strings}</sst>'
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return held.getvalue()


def cells(rows: Sequence[Sequence[Any]], *, merged: str = "") -> str:
    """A sheet's XML; `("=", 1)` is a formula with its cached value, `("#N/A",)` an error."""
    lines = ""
    for number, row in enumerate(rows, 1):
        found = "".join(_cell(f"{chr(64 + at)}{number}", value) for at, value in enumerate(row, 1))
        lines += f'<row r="{number}">{found}</row>'
    merge = f'<mergeCells count="1"><mergeCell ref="{merged}"/></mergeCells>' if merged else ""
    return f"<sheetData>{lines}</sheetData>{merge}"


def _cell(place: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return f'<c r="{place}" t="b"><v>{int(value)}</v></c>'
        case ("=", cached):
            return f'<c r="{place}"><f>1+1</f><v>{cached}</v></c>'
        case (str(error),):
            return f'<c r="{place}" t="e"><v>{error}</v></c>'
        case str():
            return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
        case _:
            return f'<c r="{place}"><v>{value}</v></c>'
