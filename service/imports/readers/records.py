"""Parse CSV lines strictly. An ambiguous row is quarantined with its text.

The csv module parses clear rows. Cheap tests on each line find records that the csv module would accept too
leniently or at any size. Such a record is examined alone. A record ends where the lenient csv module would
end it, so text after a stray quote never becomes a row of its own.
"""

import csv
import re
from collections.abc import Iterator
from functools import partial
from typing import Final, NoReturn, TextIO

from service.errors import InvalidInput
from service.imports.characters import IGNORABLE, SPACES
from service.imports.readers.tables import COLUMNS, Doubtful, Problem

Row = list[str] | Doubtful

RECORD_CHARACTERS: Final = 8 << 20
"""A longer row has an open quote. `checks.CELL_BYTES` limits a cell."""
STEPS: Final = 10_000
"""Cells to scan in one call. No other thread runs during a call."""
BROKEN: Final = re.compile("[\udc80-\udcff]")
"""Invalid bytes, as `surrogateescape` decodes them."""
QUOTES: Final[Problem] = (
    "field-count",
    "the cells cannot be told apart: quotes within quotes are written twice, and a delimiter follows them",
)
BLANKS: Final[Problem] = (
    "field-count",
    "a blank stands before an opening quote: the quotes may belong to the cell or not",
)
FIELDS: Final[Problem] = ("field-count", f"too many fields; at most {COLUMNS} are read")


class Records:
    """The rows of one file, each with the physical line where it begins. Blank lines are skipped."""

    def __init__(self, file: TextIO, source: str, delimiter: str, *, damaged: bool) -> None:
        self._lines = iter(partial(file.readline, RECORD_CHARACTERS + 1), "")
        self._source = source
        self._delimiter = delimiter
        self._damaged = damaged
        self._record: list[str] = []
        """The lines of the current row."""
        self._line = 1
        blanks = (SPACES + IGNORABLE).replace(delimiter, "").replace("\r", "").replace("\n", "")
        self._blanks = re.compile(f"[{blanks}]")
        self._blank_before_quote = re.compile(f'(?:^|{re.escape(delimiter)})[{blanks}]+"')

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Raises `InvalidInput` for a quote that is never closed and for a row that is too long."""
        csv.field_size_limit(RECORD_CHARACTERS + 1)
        ended = False
        while not ended:
            try:
                for row in csv.reader(self._clear_lines(), delimiter=self._delimiter, strict=True):
                    line = self._passed()
                    if len(row) > 1 or (row and row[0].strip()):
                        yield line, row
                ended = True
            except (csv.Error, _Unclear):
                row = self._examined()
                line = self._passed()
                if row:
                    yield line, row

    def _passed(self) -> int:
        """Finish the record. Return the line where it began."""
        line = self._line
        self._line += len(self._record)
        self._record.clear()
        return line

    def _clear_lines(self) -> Iterator[str]:
        """Yield lines for the csv module. Raises `_Unclear` at a record that must be examined first."""
        record, delimiter, size, marks = self._record, self._delimiter, 0, 0
        for line in self._lines:
            if record:
                size += len(line)
                marks += line.count(delimiter)
            else:
                size, marks = len(line), line.count(delimiter)
            record.append(line)
            if (
                marks >= COLUMNS
                or size > RECORD_CHARACTERS
                or ('"' in line and self._blank_before_quote.search(line))
                or (self._damaged and BROKEN.search(line))
            ):
                raise _Unclear
            yield line

    def _examined(self) -> Row | None:
        """Read the rest of the record and examine it. None for a blank line."""
        fields = self._complete()
        text = "".join(self._record).rstrip("\r\n")
        if fields > COLUMNS:
            return Doubtful(_readable(text), FIELDS)
        try:
            rows = self._parsed(self._record)
        except csv.Error:
            rows = []
        if len(rows) != 1:
            return Doubtful(_readable(text), QUOTES)
        if self._damaged and BROKEN.search(text):
            shown = ", ".join(sorted({_readable(byte) for byte in BROKEN.findall(text)})[:5])
            problem = ("encoding", f"bytes that are no text of the file's encoding: {shown}")
            return Doubtful(_readable(text), problem, tuple(rows[0]))
        if not self._same_without_blanks(rows[0]):
            return Doubtful(text, BLANKS)
        return rows[0] if len(rows[0]) > 1 or (rows[0] and rows[0][0].strip()) else None

    def _complete(self) -> int:
        """Read the record's lines to its end. Return the number of fields without building them."""
        scan, size, read = _Scan(self._delimiter), 0, 0
        while True:
            for line in self._record[read:]:
                scan.feed(line)
                size += len(line)
            read = len(self._record)
            if size > RECORD_CHARACTERS:
                what = "cell" if scan.quoted else "row"
                self._refuse(f"a {what} is longer than {RECORD_CHARACTERS} characters; is a quote left open?")
            if not scan.quoted:
                return scan.fields
            following = next(self._lines, None)
            if following is None:
                self._refuse("the quote opened here is never closed")
            self._record.append(following)

    def _same_without_blanks(self, row: list[str]) -> bool:
        """Whether the row is the same without blanks before quotes."""
        if not any(self._blank_before_quote.search(line) for line in self._record):
            return True
        lines = [self._blanks.sub(" ", line) for line in self._record]
        try:
            skipped = self._parsed(lines, skip_blanks=True)
        except csv.Error:
            return False
        return len(skipped) == 1 and list(map(self._bare, skipped[0])) == list(map(self._bare, row))

    def _bare(self, cell: str) -> str:
        return self._blanks.sub(" ", cell).strip()

    def _parsed(self, lines: list[str], *, skip_blanks: bool = False) -> list[list[str]]:
        return list(csv.reader(lines, delimiter=self._delimiter, strict=True, skipinitialspace=skip_blanks))

    def _refuse(self, reason: str) -> NoReturn:
        raise InvalidInput(f"{self._source}: line {self._line}: {reason}")


class _Unclear(Exception):  # noqa: N818 (it describes a record)
    """The record must be examined before it is parsed."""


class _Scan:
    """Follows the quotes of a record like the csv module, without building cells. Past the limit it stops
    counting them too.
    """

    def __init__(self, delimiter: str) -> None:
        self.quoted = False
        self.fields = 1
        self._delimiter = delimiter
        self._opening = delimiter + '"'
        self._began = False
        mark = re.escape(delimiter)
        self._closed = re.compile(rf'(?:{mark}"[^"]*+(?:""[^"]*+)*+"|{mark}(?!")|[^{mark}]++){{1,{STEPS}}}+')

    def feed(self, line: str) -> None:
        at = 0
        if not self._began:
            self._began = True
            self.quoted = line.startswith('"')
            at = int(self.quoted)
        while True:
            if self.quoted:
                at = line.find('"', at)
                if at < 0:
                    return
                doubled = line.startswith('""', at)
                self.quoted = doubled
                at += 2 if doubled else 1
            elif self.fields > COLUMNS:
                passed = self._closed.match(line, at)
                if passed is None:
                    self.quoted = at < len(line)
                    return
                at = passed.end()
            else:
                opening = line.find(self._opening, at)
                if opening < 0:
                    self.fields += line.count(self._delimiter, at)
                    return
                self.fields += line.count(self._delimiter, at, opening) + 1
                self.quoted = True
                at = opening + 2


def _readable(text: str) -> str:
    """Write invalid bytes as numbers."""
    return text if text.isascii() else BROKEN.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
