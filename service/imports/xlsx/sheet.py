"""Read the non-empty rows of a sheet as text. The first row holds the headings."""

import re
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from service.errors import InvalidInput, TooLarge
from service.imports.xlsx import markup
from service.imports.xlsx.formats import PLAIN, Format, padded
from service.imports.xlsx.job import COLUMNS, ERROR_MARK, Use
from service.imports.xlsx.markup import Attributes
from service.imports.xlsx.parts import TEXT_CHARACTERS, Strings, Words, too_long, unescape
from service.imports.xlsx.values import SERIAL, elapsed_text, iso_text, moment_text, number_text

Row = tuple[int, list[str]]

ROWS: Final = 1 << 20
CELLS: Final = 12_000_000
MERGES: Final = 100_000
ROW_CHARACTERS: Final = 16 << 20
NUMBER_CHARACTERS: Final = 100
ERROR_CHARACTERS: Final = 40
LETTERS: Final = 26
PLACE: Final = re.compile(r"\$?([A-Za-z]{1,3})\$?([0-9]{1,7})")
NAMES: Final = markup.names("c", "v", "t", "f", "is", "row", "rPh", "mergeCell")
TRUTH: Final = {"1": "true", "true": "true", "0": "false", "false": "false"}
WRITTEN: Final[dict[str, Callable[[str], str]]] = {
    "str": unescape,
    "inlineStr": unescape,
    "b": lambda value: TRUTH.get(value.strip(), value),
    "d": iso_text,
}
"""Converts the value of a cell by its type, except numbers and shared strings."""


class Merge(Struct, frozen=True):
    """Cells merged downwards. The top cell holds the value."""

    column: int
    top: int
    bottom: int


class Source(Struct, frozen=True):
    """Data that the cells of a sheet refer to. `use` returns a column's use by its heading."""

    strings: Strings
    formats: list[Format]
    from_1904: bool
    use: Callable[[str], Use]


class SheetReader:
    """Handles the events of the parser. `rows` are finished rows that were not taken yet."""

    def __init__(self, source: Source) -> None:
        self.rows: list[Row] = []
        self.merges: list[Merge] = []
        self.left = COLUMNS
        """The first column with a value."""
        self._source = source
        self._forms: dict[str | None, Format] = {None: PLAIN}
        self._uses: list[Use] | None = None
        self._columns: dict[str, int] = {}
        self._words = Words()
        self._number = 0
        self._digits = "0"
        self._row: dict[int, str] = {}
        self._size = 0
        self._cells = 0
        self._column = 0
        self._merged = 0
        self._value: list[str] = []
        self._in_value = False
        self._kind = ""
        self._form = PLAIN
        self._formula = self._valued = self._in_row = False

    def start(self, name: str, attributes: Attributes) -> None:
        word = NAMES.get(name)
        if word == "c":
            self._start_cell(attributes)
        elif word == "v":
            self._start_value()
        elif word == "row":
            self._start_row(attributes.get("r"))
        elif word == "f":
            self._formula = True
        elif word == "mergeCell":
            self._merge(attributes.get("ref", ""))
        elif self._kind == "inlineStr":
            self._words.start(word)

    def text(self, text: str) -> None:
        if self._in_value:
            self._value.append(text)
        elif self._kind == "inlineStr":
            self._words.add(text)

    def end(self, name: str) -> None:
        word = NAMES.get(name)
        if word == "v":
            self._in_value = False
        elif word == "c":
            self._end_cell()
        elif word == "row":
            self._end_row()
        elif self._kind == "inlineStr":
            self._words.end(word)

    def _start_row(self, written: str | None) -> None:
        number = self._number + 1 if written is None else _whole(written)
        if not self._number < number <= ROWS:
            place = f"row {number} comes after row {self._number}; a sheet has {ROWS} rows in order"
            raise InvalidInput(f"not a workbook that can be read: {place}")
        self._number = number
        self._digits = str(number)
        self._column = -1
        self._in_row = True

    def _start_value(self) -> None:
        if self._valued:
            raise InvalidInput(f"not a workbook that can be read: {self._here()} has two values")
        self._in_value = self._valued = True

    def _start_cell(self, attributes: Attributes) -> None:
        if not self._in_row:
            raise InvalidInput("not a workbook that can be read: a cell stands outside of all rows")
        self._cells += 1
        if self._cells > CELLS:
            raise TooLarge(f"a sheet of more than {CELLS} cells; split it, or save it as CSV")
        place = attributes.get("r")
        if place is None:
            self._column += 1
        elif place.endswith(self._digits) and (letters := place[: -len(self._digits)]) in self._columns:
            self._column = self._columns[letters]
        else:
            self._column = self._place(place)
        self._kind = attributes.get("t", "n")
        style = attributes.get("s")
        self._form = self._forms.get(style) or self._format(style or "")
        self._formula = self._valued = False

    def _place(self, written: str) -> int:
        column, row = _place(written)
        if row != self._number:
            raise InvalidInput(
                f"not a workbook that can be read: cell {written[:20]} is in row {self._number}"
            )
        if column < COLUMNS:
            self._columns[written[: -len(self._digits)]] = column
        return column

    def _end_cell(self) -> None:
        text, column = self._text(), self._column
        self._kind = ""
        if not text:
            return
        if column >= COLUMNS:
            if not text.strip():
                return
            raise InvalidInput(
                f"{self._here()}: cells right of column {COLUMNS} are not read; move or delete it"
            )
        if column in self._row:
            raise InvalidInput(f"not a workbook that can be read: {self._here()} is there twice")
        self._row[column] = text
        self._size += len(text)
        if self._size > ROW_CHARACTERS:
            raise TooLarge(f"row {self._number} holds more than {ROW_CHARACTERS} characters")

    def _text(self) -> str:
        value = "".join(self._value)
        self._value.clear()
        kind = self._kind
        if kind == "n":
            return self._number_text(value) if value else self._empty()
        if kind == "s" and value:
            return self._shared(value)
        if kind == "e":
            return self._error(value)
        if len(value) > TEXT_CHARACTERS:
            raise too_long()
        return (kind == "inlineStr" and self._words.take()) or WRITTEN.get(kind, str)(value)

    def _error(self, value: str) -> str:
        """An error in the heading, or in a column that is not imported, holds nothing."""
        if self._uses is None or self._use(self._column) == "none":
            return ""
        return f"{ERROR_MARK}#{value.strip().removeprefix('#')[:ERROR_CHARACTERS]}"

    def _empty(self) -> str:
        if self._formula and self._use(self._column) != "none":
            raise InvalidInput(
                f"{self._here()}: a formula that was never calculated; open it in a spreadsheet and save it"
            )
        return ""

    def _number_text(self, value: str) -> str:
        form = self._form
        if form is PLAIN and value.isdecimal() and value.isascii() and value[0] != "0":
            return value
        if len(value) > NUMBER_CHARACTERS:
            return value
        if form.kind == "moment":
            return moment_text(value, from_1904=self._source.from_1904)
        if form.kind == "elapsed":
            return elapsed_text(value, form.shows if self._use(self._column) == "text" else "")
        text = number_text(value)
        return padded(text, form) if self._use(self._column) == "text" else text

    def _format(self, style: str) -> Format:
        number, formats = _whole(style), self._source.formats
        self._forms[style] = formats[number] if number < len(formats) else PLAIN
        return self._forms[style]

    def _shared(self, value: str) -> str:
        number = int(value) if value.isdecimal() and value.isascii() else _whole(value)
        if number >= len(self._source.strings):
            raise InvalidInput(
                f"not a workbook that can be read: {self._here()} names a text that is not there"
            )
        return self._source.strings[number]

    def _use(self, column: int) -> Use:
        return self._uses[column] if self._uses and column < len(self._uses) else "other"

    def _end_row(self) -> None:
        row, self._row, self._size, self._in_row = self._row, {}, 0, False
        if not any(map(str.strip, row.values())):
            return
        cells = [row.get(column, "") for column in range(max(row) + 1)]
        while not cells[-1].strip():
            cells.pop()
        if self.left:
            self.left = min(self.left, next(column for column, text in enumerate(cells) if text.strip()))
        if self._uses is None:
            self._uses = [self._source.use(heading) for heading in cells]
        elif self._source.from_1904:
            self._date(cells)
        self.rows.append((self._number, cells))

    def _date(self, cells: list[str]) -> None:
        """Convert bare day numbers in date columns to dates, because contracts count days from 1900."""
        for column, text in enumerate(cells):
            if self._use(column) == "date" and SERIAL.fullmatch(text.strip()):
                cells[column] = moment_text(text, from_1904=True)

    def _merge(self, written: str) -> None:
        self._merged += 1
        if self._merged > MERGES:
            raise TooLarge(f"more than {MERGES} merged ranges; save it as CSV")
        first, _, last = written.partition(":")
        column, top = _place(first)
        _, bottom = _place(last or first)
        if bottom > top and column < COLUMNS:
            self.merges.append(Merge(column, top, bottom))

    def _here(self) -> str:
        letters, column = "", self._column + 1
        while column:
            column, letter = divmod(column - 1, LETTERS)
            letters = chr(ord("A") + letter) + letters
        return f"cell {letters}{self._number}"


def read_sheet(chunks: Iterator[bytes], reader: SheetReader) -> Iterator[Row]:
    for _ in markup.parse(chunks, reader.start, reader.end, reader.text):
        yield from reader.rows
        reader.rows.clear()


def _place(written: str) -> tuple[int, int]:
    """Return the column, from 0, and the row, from 1."""
    found = PLACE.fullmatch(written)
    if not found:
        raise InvalidInput(f"not a workbook that can be read: {written[:20]!r} is no place in a sheet")
    column = 0
    for letter in found[1].upper():
        column = column * LETTERS + ord(letter) - ord("A") + 1
    return column - 1, int(found[2])


def _whole(written: str) -> int:
    written = written.strip()
    if not (written.isascii() and written.isdecimal() and len(written) < 10):  # noqa: PLR2004
        raise InvalidInput(f"not a workbook that can be read: {written[:20]!r} is no number of a row or text")
    return int(written)
