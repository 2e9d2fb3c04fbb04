# ruff: noqa: E501 (tables read by the row)
"""Workbooks made to freeze, to crash or to fill whoever reads them, as makers of their bytes by name."""

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Final

from tests.workbook import cells, packed, parts, workbook

HEADINGS: Final = ("customer_id", "occupation", "type")
SHEET: Final = "xl/worksheets/sheet1.xml"
STRINGS: Final = "xl/sharedStrings.xml"
MAIN: Final = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
MB: Final = 1 << 20


def _sheet(xml: str | bytes, shared: tuple[str, ...] = ()) -> bytes:
    """A workbook whose only sheet is this, word for word."""
    return packed({**parts({"customers": ""}, shared=shared), SHEET: xml})


def _rows(xml: str, shared: tuple[str, ...] = (), after: str = "") -> bytes:
    """A sheet of headings and these rows."""
    first = cells([HEADINGS]).removesuffix("</sheetData>")
    return workbook({"customers": f"{first}{xml}</sheetData>{after}"}, shared=shared)


def _with(**files: str | bytes) -> bytes:
    """A sound workbook but for these files; `__` stands for a slash."""
    changed = {name.replace("__", "/") + ".xml": content for name, content in files.items()}
    return packed({**parts({"customers": cells([HEADINGS, [1, "a", "b"]])}), **changed})


def _moved(target: str, member: str) -> bytes:
    """A far cell in a sheet that the workbook and the archive name in these ways."""
    files = parts({"customers": cells([HEADINGS])})
    relations = files["xl/_rels/workbook.xml.rels"]
    assert isinstance(relations, str)
    files["xl/_rels/workbook.xml.rels"] = relations.replace("worksheets/sheet1.xml", target)
    del files[SHEET]
    files[member] = (
        f'<worksheet {MAIN}><sheetData><row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>'
    )
    return packed(files)


def _patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new)


def _encrypted() -> bytes:
    """The flag that says so, in each header of the archive."""
    content = bytearray(workbook({"customers": cells([HEADINGS])}))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            content[member.header_offset + 6] |= 1
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 8] |= 1
        at = content.find(b"PK\x01\x02", at + 4)
    return bytes(content)


def _overlapping(copies: int) -> bytes:
    """One large member under many names: all entries of the directory point to the same bytes."""
    content = packed({**parts({"customers": ""}), "big.xml": " " * (20 * MB)})
    end = content.rindex(b"PK\x05\x06")
    count, size, offset = struct.unpack("<HII", content[end + 10 : end + 20])
    directory = content[offset : offset + size]
    entry = directory[directory.rindex(b"PK\x01\x02") :]
    more = directory + b"".join(
        entry.replace(b"big.xml", b"b%05d.x"[:4] + b"%03d" % at) for at in range(copies)
    )
    numbers = struct.pack("<HHII", count + copies, count + copies, len(more), offset)
    return content[:offset] + more + content[end : end + 8] + numbers + content[end + 20 :]


def _understated() -> bytes:
    """A sheet of 60 MB whose directory entry says ten bytes."""
    content = _sheet(f"<worksheet {MAIN}><sheetData>{' ' * (60 * MB)}</sheetData></worksheet>")
    return _patched(
        content,
        struct.pack("<I", 60 * MB + len(f"<worksheet {MAIN}><sheetData></sheetData></worksheet>")),
        struct.pack("<I", 10),
    )


def _nested(name: str) -> bytes:
    """Entities that each stand for ten of the one before."""
    entities = '<!ENTITY e0 "lollollol">' + "".join(
        f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10)
    )
    return _with(**{name: f"<!DOCTYPE x [{entities}]><x>&e9;</x>"})


Makers = dict[str, Callable[[], bytes]]

PLACES: Final[Makers] = {
    "open tags without end": lambda: _sheet("<c " * (8 * MB)),
    "open tags that an archive hides well": lambda: _sheet("<c r='A1' " * 20_000),
    "a far cell": lambda: _rows('<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
    "a far cell in lower case": lambda: _rows('<row r="1048576"><c r="xfd1048576"><v>1</v></c></row>'),
    "a far cell behind a > in an attribute": lambda: _rows('<row r="1048576" x=">"><c x=">" r="XFD1048576"><v>1</v></c></row>'),
    "a far cell in a namespace": lambda: _sheet(f'<x:worksheet xmlns:x={MAIN[6:]}><x:sheetData><x:row r="9"><x:c r="XFD9"><x:v>1</x:v></x:c></x:row></x:sheetData></x:worksheet>'),
    "a far cell, spelled by a character reference": lambda: _rows('<row r="9"><c r="&#88;FD9"><v>1</v></c></row>'),
    "a far cell in UTF-16": lambda: _sheet(f'<worksheet {MAIN}><sheetData><row r="9"><c r="XFD9"><v>1</v></c></row></sheetData></worksheet>'.encode("utf-16")),
    "a sheet behind a backslash": lambda: _moved("worksheets\\sheet1.xml", "xl\\worksheets\\sheet1.xml"),
    "a sheet at an absolute path": lambda: _moved("/XL/other/../far.xml", "/xl/far.xml"),
    "cells without a place": lambda: _rows("<row>" + "<c><v>1</v></c>" * 2_000_000 + "</row>"),
    "cells beyond all columns": lambda: _rows('<row r="2"><c r="ZZZZ2"><v>1</v></c></row>'),
    "a cell in another row": lambda: _rows('<row r="2"><c r="A1048576"><v>1</v></c></row>'),
    "rows backwards": lambda: _rows('<row r="9"/><row r="8"/>'),
    "a row too many": lambda: _rows('<row r="1048577"><c r="A1048577"><v>1</v></c></row>'),
    "two cells at one place": lambda: _rows('<row r="2"><c r="A2"><v>1</v></c><c r="A2"><v>2</v></c></row>'),
    "two values in a cell": lambda: _rows('<row r="2"><c r="A2"><v>1</v><v>2</v></c></row>'),
    "a cell outside of rows": lambda: _rows('<c r="A2"><v>1</v></c>'),
}  # fmt: skip

SIZES: Final[Makers] = {
    "wide sheets": lambda: workbook({f"s{n}": f'<sheetData><row><c><v>1</v></c></row></sheetData>{" " * 400_000}' for n in range(250)}),
    "many sheets": lambda: workbook({f"s{n}": cells([["x"]]) for n in range(1_100)}),
    "more files than a workbook has": lambda: packed({**parts({"customers": ""}), **{f"m{n}": "" for n in range(10_001)}}),
    "one huge shared string": lambda: _rows('<row r="2"><c r="A2" t="s"><v>0</v></c></row>', ("x" * (90 * MB),)),
    "one huge inline string": lambda: _rows(f'<row r="2"><c r="A2" t="inlineStr"><is><t>{"x" * (90 * MB)}</t></is></c></row>'),
    "one huge string of pieces": lambda: _rows('<row r="2"><c r="A2" t="s"><v>0</v></c></row>', ("<r><t>abcdefghi</t></r>" * 1_000_000,)),
    "one huge number": lambda: _rows(f'<row r="2"><c r="A2"><v>{"9" * (90 * MB)}</v></c></row>'),
    "a string in every cell": lambda: _rows("".join(f'<row r="{n}"><c r="B{n}" t="s"><v>0</v></c></row>' for n in range(2, 30_000)), ("x" * 32_767,)),
    "a wide row of strings": lambda: _rows('<row r="2">' + '<c t="s"><v>0</v></c>' * 999 + "</row>", ("x" * 32_767,)),
    "a string that is not there": lambda: _rows('<row r="2"><c r="A2" t="s"><v>7</v></c></row>'),
    "a million merged cells": lambda: _rows('<row r="2"><c r="A2"><v>1</v></c></row>', after="<mergeCells>" + "".join(f'<mergeCell ref="A{n}:A{n + 1}"/>' for n in range(2, 1_000_000, 2)) * 2 + "</mergeCells>"),
    "a long text merged over all rows": lambda: _rows(f'<row r="2"><c r="B2" t="inlineStr"><is><t>{"x" * 32_000}</t></is></c></row>' + "".join(f'<row r="{n}"><c r="A{n}"><v>1</v></c></row>' for n in range(3, 20_000)), after='<mergeCells><mergeCell ref="B2:B1048576"/></mergeCells>'),
    "merged from nowhere": lambda: _rows("", after='<mergeCells><mergeCell ref="&lt;:&gt;"/></mergeCells>'),
    "blanks": lambda: _sheet(f"<worksheet {MAIN}>{' ' * (120 * MB)}</worksheet>"),
}  # fmt: skip

MARKUP: Final[Makers] = {
    "a comment without end": lambda: _sheet(f"<worksheet {MAIN}><!--{'x' * (90 * MB)}--></worksheet>"),
    "an attribute without end": lambda: _sheet(f'<worksheet {MAIN}><sheetData x="{"x" * (90 * MB)}"/></worksheet>'),
    "many attributes": lambda: _sheet(f"<worksheet {MAIN}><sheetData " + "".join(f"a{n}='1' " for n in range(400_000)) + "/></worksheet>"),
    "many namespaces": lambda: _sheet(f"<worksheet {MAIN}>" + "".join(f'<a{n} xmlns:b{n}="c{n}"/>' for n in range(60_000)) + "</worksheet>"),
    "deep elements": lambda: _sheet(f"<worksheet {MAIN}>" + "<a>" * 8_000_000 + "</a>" * 8_000_000 + "</worksheet>"),
    "deep elements with names": lambda: _sheet(f"<worksheet {MAIN}>" + "".join(f"<a{n}>" for n in range(6_000_000))),
    "entities in the sheet": lambda: _nested("xl__worksheets__sheet1"),
    "entities in the strings": lambda: _nested("xl__sharedStrings"),
    "entities in the workbook": lambda: _nested("xl__workbook"),
    "a DTD elsewhere": lambda: _with(xl__styles=f'<!DOCTYPE styleSheet SYSTEM "http://127.0.0.1:9/x"><styleSheet {MAIN}/>'),
    "a file of the machine": lambda: _with(xl__worksheets__sheet1='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><worksheet>&e;</worksheet>'),
    "many styles": lambda: _with(xl__styles=f"<styleSheet {MAIN}><cellXfs>{'<xf/>' * 5_000_000}</cellXfs></styleSheet>"),
    "an empty sheet": lambda: _sheet(""),
    "an empty workbook": lambda: _with(xl__workbook=""),
    "NUL": lambda: _sheet("\0" * 1000),
    "an unknown charset": lambda: _sheet('<?xml version="1.0" encoding="EBCDIC-XX"?><worksheet/>'),
    "a charset of many bytes": lambda: _sheet('<?xml version="1.0" encoding="shift_jis"?><worksheet/>'),
    "cut off in the sheet": lambda: _sheet(f"<worksheet {MAIN}><sheetData><row>"),
}  # fmt: skip

ARCHIVES: Final[Makers] = {
    "cut off in the archive": lambda: workbook({"customers": cells([HEADINGS, [1, "a", "b"]])})[:900],
    "a damaged sheet": lambda: _patched(packed(parts({"customers": cells([HEADINGS])}), method=zipfile.ZIP_STORED), b"occupation", b"occupatiom"),
    "an encrypted archive": _encrypted,
    "packed by bzip2": lambda: packed({**parts({"customers": ""}), SHEET: "\0" * (200 * MB)}, method=zipfile.ZIP_BZIP2),
    "packed by LZMA": lambda: packed(parts({"customers": cells([HEADINGS])}), method=zipfile.ZIP_LZMA),
    "overlapping members": lambda: _overlapping(200),
    "a size that is a lie": _understated,
    "two sheets of one file name": lambda: _with(xl__worksheets__Sheet1="<worksheet/>"),
    "no archive at all": lambda: b"PK\x03\x04" + b"\0" * 1000,
    "two endless sheets": lambda: workbook(dict.fromkeys("AB", f"<sheetData>{' ' * (60 * MB)}</sheetData>")),
    "a binary workbook": lambda: packed({**parts({}), "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" Type="x/officeDocument" Target="xl/workbook.bin"/></Relationships>'}),
}  # fmt: skip
HOSTILE: Final = {"places": PLACES, "sizes": SIZES, "markup": MARKUP, "archives": ARCHIVES}
"""Each of them is refused, and nobody but its sender notices."""
