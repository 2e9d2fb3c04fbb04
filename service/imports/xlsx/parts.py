"""Read the parts of a workbook beside the sheets: sheet names, epoch, number formats, shared strings."""

import io
import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from service.errors import InvalidInput
from service.imports.xlsx import markup
from service.imports.xlsx.formats import BUILT_IN, PLAIN, Format, read_format
from service.imports.xlsx.markup import Attributes
from service.imports.xlsx.package import Package

SHEETS: Final = 1000
STYLES: Final = 100_000
TEXT_CHARACTERS: Final = 8 << 20
SURROGATES: Final = range(0xD800, 0xE000)
ESCAPED: Final = re.compile(r"_x([0-9A-Fa-f]{4})_")
RELATION: Final = (
    "http://schemas.openxmlformats.org/officeDocument/2006/relationships id",
    "http://purl.oclc.org/ooxml/officeDocument/relationships id",
    "id",
)


class Book(Struct, frozen=True):
    """`sheets` are the visible worksheets as pairs of name and part."""

    sheets: list[tuple[str, str]]
    from_1904: bool
    strings: str | None
    styles: str | None


def read_book(package: Package) -> Book:
    path = _main_part(package)
    relations = package.related(path)
    by_kind = dict(relations.values())
    sheets: list[tuple[str, str]] = []
    from_1904 = False
    for word, attributes in markup.elements(package.chunks(path), {"sheet", "workbookPr"}):
        if word == "workbookPr":
            from_1904 = attributes.get("date1904", "").strip() in {"1", "true"}
            continue
        relation = next((attributes[name] for name in RELATION if name in attributes), "")
        kind, target = relations.get(relation, ("", ""))
        if kind == "worksheet" and attributes.get("state", "visible") == "visible":
            sheets.append((attributes.get("name", ""), target))
        if len(sheets) > SHEETS:
            raise InvalidInput(f"more than {SHEETS} visible sheets")
    return Book(sheets, from_1904, by_kind.get("sharedStrings"), by_kind.get("styles"))


def _main_part(package: Package) -> str:
    related = package.related("").values()
    path = next((target for kind, target in related if kind == "officeDocument"), "/xl/workbook.xml")
    if path.endswith(".bin"):
        raise InvalidInput("this kind of workbook is not read; save it as .xlsx or CSV")
    if path not in package:
        raise InvalidInput("a zip archive, but not a workbook (.xlsx)")
    return path


def read_formats(package: Package, path: str | None) -> list[Format]:
    """Read the formats. A cell's style is an index into them."""
    codes: dict[str, str] = {}
    formats: list[Format] = []
    known: dict[str, Format] = {}
    inside = False
    words = markup.names("numFmt", "cellXfs", "xf")

    def start(name: str, attributes: Attributes) -> None:
        nonlocal inside
        word = words.get(name)
        if word == "numFmt":
            codes[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")
        elif word == "cellXfs":
            inside = True
        elif word == "xf" and inside:
            number = attributes.get("numFmtId", "0")
            if number not in known:
                known[number] = read_format(codes[number]) if number in codes else BUILT_IN.get(number, PLAIN)
            formats.append(known[number])

    def end(name: str) -> None:
        nonlocal inside
        inside = inside and words.get(name) != "cellXfs"

    if path is not None and path in package:
        for _ in markup.parse(package.chunks(path), start, end):
            if len(formats) + len(codes) > STYLES:
                raise InvalidInput(f"more than {STYLES} cell styles")
    return formats


class Words:
    """Collects the text of a string item or an inline string, without phonetic text."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self._size = 0
        self._spoken = 0
        self._open = False

    def start(self, word: str | None) -> None:
        if word == "t":
            self._open = not self._spoken
        elif word == "rPh":
            self._spoken += 1

    def end(self, word: str | None) -> None:
        if word == "t":
            self._open = False
        elif word == "rPh":
            self._spoken -= 1

    def add(self, text: str) -> None:
        if self._open:
            self._size += self._text.write(text)
            if self._size > TEXT_CHARACTERS:
                raise too_long()

    def take(self) -> str:
        if not self._size:
            return ""
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        self._size = 0
        return unescape(text)


class Strings:
    """Shared strings, packed to save memory. A workbook may have millions."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return self._bytes[self._ends[number] : self._ends[number + 1]].decode()

    def append(self, text: str) -> None:
        self._bytes += text.encode()
        self._ends.append(len(self._bytes))


def read_strings(package: Package, path: str | None) -> Strings:
    strings = Strings()
    if path is not None and path in package:
        for batch in _strings(package.chunks(path)):
            for text in batch:
                strings.append(text)
    return strings


def _strings(chunks: Iterable[bytes]) -> Iterator[list[str]]:
    words = markup.names("si", "t", "rPh")
    found: list[str] = []
    collected = Words()

    def start(name: str, _: Attributes) -> None:
        collected.start(words.get(name))

    def end(name: str) -> None:
        word = words.get(name)
        if word == "si":
            found.append(collected.take())
        else:
            collected.end(word)

    for _ in markup.parse(chunks, start, end, collected.add):
        yield found
        found.clear()


def unescape(text: str) -> str:
    """Decode `_x000D_`, an escaped character that XML cannot hold. NUL and surrogates stay escaped."""
    return ESCAPED.sub(_character, text) if "_x" in text else text


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return found[0] if code == 0 or code in SURROGATES else chr(code)


def too_long() -> InvalidInput:
    return InvalidInput(f"a cell holds more than {TEXT_CHARACTERS} characters")
