"""Workbooks (XLSX): the sheet that belongs to a dataset, as rows of text.

The parser (calamine) builds a sheet in memory, so a pass over the unzipped XML comes first: it bounds what
the archive unpacks to, the rectangle the sheet spans and the text its shared strings repeat.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from msgspec import Struct
from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from service.errors import InvalidInput, TooLarge
from service.imports.datasets import Dataset, fold

T = TypeVar("T")

CHUNK = 1 << 20
CELLS = 12_000_000
MEMBERS = 10_000
COLUMN_LETTERS = 26
EXACT = 1 << 53
TAG = re.compile(rb"<(?:\w+:)?(c|row)\b([^>]*)>(?:[^<]*<(?:\w+:)?v[^>]*>(\d+)<)?")
PLACE = re.compile(rb"""\br\s*=\s*["']([A-Z]{0,3})(\d{1,7})["']""")
STRING_END = re.compile(rb"</(?:\w+:)?si\s*>|<(?:\w+:)?si\s*/>")


class Sheet(Struct, frozen=True):
    headings: list[str]
    rows: Iterator[tuple[int, list[str]]]
    notes: tuple[str, ...]


def open_sheet(path: Path, source: str, dataset: Dataset, *, bytes_limit: int) -> Sheet:
    """Find the dataset's sheet: the visible one of that name, else the only visible one whose headings fit.

    Rows are those below the headings that hold anything, with their row number in the sheet. Formulas count
    by their cached value; a cell merged downwards repeats its value.
    """
    _bound(path, source, bytes_limit)
    book = _book(path, source)
    visible = [
        sheet.name
        for sheet in book.sheets_metadata
        if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible
    ]
    named = [name for name in visible if fold(name) == fold(dataset.name)][:1]
    rows = {name: _rows(_parsed(source, partial(book.get_sheet_by_name, name))) for name in named or visible}
    headings = {name: next(sheet, (1, list[str]()))[1] for name, sheet in rows.items()}
    fitting = named or [name for name in visible if _fits(headings[name], dataset)]
    if len(fitting) != 1:
        which = "several sheets have" if fitting else "no visible sheet has"
        raise InvalidInput(
            f"{source}: {which} the headings of dataset {dataset.name}, and none is named so; "
            f"visible sheets: {', '.join(visible) or 'none'}"
        )
    sheet = fitting[0]
    while headings[sheet] and not headings[sheet][-1].strip():
        headings[sheet].pop()
    rows_below = _trimmed(rows[sheet], len(headings[sheet]))
    return Sheet(headings[sheet], rows_below, (f"sheet {sheet}",))


def sheet_names(path: Path, source: str, *, bytes_limit: int) -> list[str]:
    """Names of the visible sheets."""
    _bound(path, source, bytes_limit)
    book = _book(path, source)
    return [sheet.name for sheet in book.sheets_metadata if sheet.visible == SheetVisibleEnum.Visible]


def _book(path: Path, source: str) -> CalamineWorkbook:
    with path.open("rb") as file:
        return _parsed(source, lambda: CalamineWorkbook.from_filelike(file))


def _parsed(source: str, parse: Callable[[], T]) -> T:
    """Call the parser; what it cannot read, panics included, is the file's fault."""
    try:
        return parse()
    except (CalamineError, OSError, ValueError) as error:
        raise InvalidInput(f"{source}: not a workbook that can be read: {error}") from None
    except BaseException as error:  # the parser's panics are no Exception
        if type(error).__name__ == "PanicException":
            raise InvalidInput(f"{source}: not a workbook that can be read") from None
        raise


def _fits(headings: list[str], dataset: Dataset) -> bool:
    folded = {fold(heading) for heading in headings}
    return all(column.headings & folded for column in dataset.columns if column.needs_heading)


def _rows(sheet: CalamineSheet) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold anything; the first are the headings."""
    if sheet.start is None:
        return
    merged = _Merged(sheet, left=sheet.start[1])
    for number, cells in enumerate(sheet.iter_rows()):
        row = [cell if type(cell) is str else cell_text(cell) for cell in cells]
        if any(map(str.strip, row)):
            yield number + 1, merged.fill(number, row)


class _Merged:
    """Cells merged downwards: the topmost holds the value, the parser gives the others empty."""

    def __init__(self, sheet: CalamineSheet, left: int) -> None:
        self._bottoms = {
            (top, column - left): bottom
            for (top, column), (bottom, _) in sheet.merged_cell_ranges or []
            if bottom > top
        }
        self._open: dict[int, tuple[int, str]] = {}

    def fill(self, number: int, row: list[str]) -> list[str]:
        if not self._bottoms:
            return row
        for column, text in enumerate(row):
            bottom, value = self._open.get(column, (-1, ""))
            if (number, column) in self._bottoms:
                self._open[column] = self._bottoms[number, column], text
            elif number <= bottom and not text:
                row[column] = value
        return row


def _trimmed(rows: Iterator[tuple[int, list[str]]], width: int) -> Iterator[tuple[int, list[str]]]:
    """Leave out empty cells beyond the headings; a value there makes the row too long."""
    for number, row in rows:
        if len(row) == width:
            yield number, row
            continue
        filled = max((at for at, cell in enumerate(row, 1) if cell.strip()), default=0)
        yield number, (row + [""] * width)[: max(width, filled)]


def cell_text(value: Any) -> str:
    """A cell as it would stand in a CSV; moments to the millisecond, since Excel counts fractions of days."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)
    if isinstance(value, datetime):
        rounded = value + timedelta(microseconds=500)
        return rounded.replace(microsecond=rounded.microsecond // 1000 * 1000).isoformat(" ")
    return str(value)


def _bound(path: Path, source: str, bytes_limit: int) -> None:
    """Refuse an archive before the parser sees it; sizes are measured, not believed."""
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > MEMBERS:
                raise InvalidInput(f"{source}: more than {MEMBERS} files in one workbook")
            if not any(name.lower() == "xl/workbook.xml" for name in archive.namelist()):
                raise InvalidInput(f"{source}: a zip archive, but not a workbook (.xlsx)")
            if sum(member.file_size for member in archive.infolist()) > bytes_limit:
                raise _too_large(source, bytes_limit)
            _measure(archive, source, bytes_limit)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise InvalidInput(f"{source}: not a workbook that can be read: {error}") from None


def _too_large(source: str, bytes_limit: int) -> TooLarge:
    return TooLarge(f"{source}: unzipped it is larger than IMPORT_BYTES_LIMIT, {bytes_limit} bytes")


def _measure(archive: zipfile.ZipFile, source: str, bytes_limit: int) -> None:
    """Read every member to its checked end; a member longer than its header says fails that check."""
    lengths: list[int] = []
    repeated: dict[int, int] = {}
    for member in archive.infolist():
        name = member.filename.lower()
        with archive.open(member) as file:
            if name.endswith("sharedstrings.xml"):
                lengths = _string_lengths(file)
                continue
            extent = _Extent()
            while chunk := file.read(CHUNK):
                if "/worksheets/" in name:
                    extent.feed(chunk)
        if extent.strange:
            raise InvalidInput(f"{source}: {member.filename} is not plain UTF-8 XML")
        if extent.cells > CELLS:
            raise TooLarge(
                f"{source}: {member.filename} spans {extent.cells} cells; at most {CELLS} are read"
            )
        for string, times in extent.strings.items():
            repeated[string] = repeated.get(string, 0) + times
    text = sum(lengths[string] * times for string, times in repeated.items() if string < len(lengths))
    if text > bytes_limit:
        raise _too_large(source, bytes_limit)


def _string_lengths(file: IO[bytes]) -> list[int]:
    lengths: list[int] = []
    carried, left = b"", 0
    while chunk := file.read(CHUNK):
        data, at = carried + chunk, 0
        for found in STRING_END.finditer(data):
            lengths.append(left + found.end() - at)
            at, left = found.end(), 0
        keep = max(at, data.rfind(b"<"))
        left += keep - at
        carried = data[keep:]
    return lengths


class _Extent:
    """The rectangle that a sheet's filled cells span, and how often it repeats each shared string."""

    def __init__(self) -> None:
        self.strange = False
        self.strings: dict[int, int] = {}
        self._row = self._column = self._unplaced = 0
        self._carried = b""

    @property
    def cells(self) -> int:
        return self._row * (self._column + self._unplaced)

    def feed(self, chunk: bytes) -> None:
        data = self._carried + chunk
        last = data.rfind(b"<")
        for found in TAG.finditer(data, 0, last if last >= 0 else len(data)):
            kind, attributes, value = found.groups()
            if kind == b"c" and not attributes.endswith(b"/"):
                self._place(attributes)
                if value and (b't="s"' in attributes or b"t='s'" in attributes):
                    string = int(value)
                    self.strings[string] = self.strings.get(string, 0) + 1
            elif kind == b"row":
                self._place(attributes, row=True)
        self.strange = self.strange or b"\0" in chunk
        self._carried = data[max(last, 0) :]

    def _place(self, attributes: bytes, *, row: bool = False) -> None:
        self.strange = self.strange or b"&" in attributes
        place = PLACE.search(attributes)
        if place is None:
            self._unplaced += not row
            return
        letters, number = place.groups()
        column = 0
        for letter in letters:
            column = column * COLUMN_LETTERS + letter - ord("A") + 1
        self._column = max(self._column, column)
        self._row = max(self._row, int(number))
