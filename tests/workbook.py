"""Workbooks by hand, so that tests can also make broken ones."""

import io
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

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


def workbook(
    sheets: dict[str, str],
    *,
    shared: Sequence[str] = (),
    hidden: Iterable[str] = (),
    formats: Sequence[str | int] = (),
    from_1904: bool = False,
) -> bytes:
    """A workbook of sheets given as their XML (see `cells`); cell style `n` has the n-th of the formats."""
    return packed(parts(sheets, shared=shared, hidden=hidden, formats=formats, from_1904=from_1904))


def parts(
    sheets: dict[str, str],
    *,
    shared: Sequence[str] = (),
    hidden: Iterable[str] = (),
    formats: Sequence[str | int] = (),
    from_1904: bool = False,
) -> dict[str, str | bytes]:
    """The files of a workbook by name, to be changed before they are packed."""
    files: dict[str, str | bytes] = {"[Content_Types].xml": _TYPES, "_rels/.rels": _ROOT}
    listed = ""
    related = _relation("rId0", "sharedStrings", "sharedStrings.xml") + _relation("s", "styles", "styles.xml")
    for number, (name, content) in enumerate(sheets.items(), 1):
        state = 'state="hidden"' if name in hidden else ""
        listed += f'<sheet name="{name}" sheetId="{number}" r:id="rId{number}" {state}/>'
        related += _relation(f"rId{number}", "worksheet", f"worksheets/sheet{number}.xml")
        files[f"xl/worksheets/sheet{number}.xml"] = f'<worksheet xmlns="{_MAIN}">{content}</worksheet>'
    properties = '<workbookPr date1904="1"/>' if from_1904 else ""
    files["xl/workbook.xml"] = (
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_REL}">{properties}<sheets>{listed}</sheets></workbook>'
    )
    files["xl/_rels/workbook.xml.rels"] = (
        f'<Relationships xmlns="{_PACKAGE}/relationships">{related}</Relationships>'
    )
    strings = "".join(f"<si>{text if text.startswith('<') else f'<t>{text}</t>'}</si>" for text in shared)
    files["xl/sharedStrings.xml"] = f'<sst xmlns="{_MAIN}">{strings}</sst>'
    files["xl/styles.xml"] = _styles(formats)
    return files


def packed(files: dict[str, str | bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return held.getvalue()


def _relation(name: str, kind: str, target: str) -> str:
    return f'<Relationship Id="{name}" Type="{_REL}/{kind}" Target="{target}"/>'


def _styles(formats: Sequence[str | int]) -> str:
    """A number stands for a built-in format."""
    codes = "".join(
        f'<numFmt numFmtId="{200 + at}" formatCode={quoteattr(code)}/>'
        for at, code in enumerate(formats)
        if isinstance(code, str)
    )
    own = (200 + at if isinstance(code, str) else code for at, code in enumerate(formats))
    styles = "".join(f'<xf numFmtId="{number}"/>' for number in own)
    return (
        f'<styleSheet xmlns="{_MAIN}"><numFmts>{codes}</numFmts>'
        f'<cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs>{styles}</cellXfs></styleSheet>'
    )


def cells(rows: Sequence[Sequence[Any]], *, merged: str = "") -> str:
    """A sheet's XML; `("=", 1)` is a formula with its cached value, `("#N/A",)` an error, `(7, 2)` the number
    7 in cell style 2.
    """
    lines = ""
    for number, row in enumerate(rows, 1):
        found = "".join(_cell(f"{chr(64 + at)}{number}", value) for at, value in enumerate(row, 1))
        lines += f'<row r="{number}">{found}</row>'
    merge = f'<mergeCells count="1"><mergeCell ref="{merged}"/></mergeCells>' if merged else ""
    return f"<sheetData>{lines}</sheetData>{merge}"


def _cell(place: str, value: Any) -> str:
    kind, style = "", ""
    match value:
        case None:
            return ""
        case str():
            return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'
        case ("=", cached):
            found = f"<f>1+1</f><v>{cached}</v>"
        case (number, int(at)):
            found, style = f"<v>{number}</v>", f' s="{at}"'
        case (str(error),):
            found, kind = f"<v>{error}</v>", ' t="e"'
        case bool():
            found, kind = f"<v>{int(value)}</v>", ' t="b"'
        case _:
            found = f"<v>{value}</v>"
    return f'<c r="{place}"{style}{kind}>{found}</c>'
