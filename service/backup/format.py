"""The file: a header, a line for each row, and a last line by which a damaged file is known.

All lines are JSON objects. The format's number rises when an older Tally would read a file wrongly. A new
column or table needs no new number: whoever does not know it refuses the file.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import BinaryIO, Final

import msgspec
from msgspec import Raw, Struct

from service import __version__
from service.errors import Stop

FORMAT: Final = 1
LONGEST_LINE: Final = 256 << 20  # what one array of jsonb may hold
COMPRESSED: Final = b"\x1f\x8b"

Write = Callable[[bytes], object]


class Header(Struct, frozen=True):
    """The first line. `columns` names the columns of each table; a row without one of them has NULL there."""

    tally_export: int
    tally: str
    at: str
    columns: dict[str, list[str]]


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """One row of a table, such as `catalog.metric`."""

    table: str
    row: Raw


class End(Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: the number of rows of each table, and the SHA-256 of all lines before it."""

    rows: dict[str, int]
    sha256: str


class _Start(Struct, frozen=True):
    """What every format's first line has."""

    tally_export: int
    tally: str = "?"


_START: Final = msgspec.json.Decoder(_Start)
_HEADER: Final = msgspec.json.Decoder(Header)
_LINE: Final = msgspec.json.Decoder(Line)
_END: Final = msgspec.json.Decoder(End)


class Writer:
    """Writes the lines of a file, and counts them for its last line."""

    def __init__(self, write: Write, at: str, columns: dict[str, list[str]]) -> None:
        self._write = write
        self._digest = sha256()
        self.rows = dict.fromkeys(columns, 0)
        self._line(msgspec.json.encode(Header(FORMAT, __version__, at, columns)))

    def row(self, table: str, row: str) -> None:
        self._line(msgspec.json.encode(Line(table, Raw(row.encode()))))
        self.rows[table] += 1

    def end(self) -> None:
        self._line(msgspec.json.encode(End(self.rows, self._digest.hexdigest())))

    def _line(self, line: bytes) -> None:
        self._digest.update(line + b"\n")
        self._write(line + b"\n")


class Reader:
    """Reads a file, as often as needed. Raises `Stop` (exit status 2) if it is not whole."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._file.seek(0)
        self.header = self._header()

    def check(self) -> str:
        """Read all of the file; its sum."""
        for _ in self._rows():
            pass
        return self._end.sha256

    def lines(self) -> Iterator[tuple[int, Line]]:
        """Each row with the number of its line."""
        for number, line in self._rows():
            try:
                yield number, _LINE.decode(line)
            except msgspec.DecodeError as error:
                raise Stop(f"{self._name}, line {number}: {error}", exit_code=2) from None

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        """The line of each row. The last line is known for the last only when there is no other."""
        self._file.seek(0)
        digest = sha256(self._line())
        number, line = 2, self._line()
        while following := self._line():
            digest.update(line)
            yield number, line
            number, line = number + 1, following
        try:
            self._end = _END.decode(line)
        except msgspec.DecodeError:
            raise Stop(
                f"{self._name} is cut off: line {max(1, number if line else 1)} is not the last line of an "
                "export. Copy the file again",
                exit_code=2,
            ) from None
        if self._end.sha256 != digest.hexdigest():
            raise Stop(
                f"{self._name} is damaged: its lines do not give the checksum in its last line", exit_code=2
            )

    def _header(self) -> Header:
        first = self._line()
        if first.startswith(COMPRESSED):
            raise Stop(f"{self._name} is compressed: gunzip -c {self._name} | tally restore -", exit_code=2)
        try:
            start = _START.decode(first)
        except msgspec.DecodeError:
            raise Stop(
                f"{self._name} is no export of Tally{'' if first else ': it is empty'}", exit_code=2
            ) from None
        if start.tally_export != FORMAT:
            raise Stop(
                f"{self._name} has format {start.tally_export}, of Tally {start.tally}; this Tally "
                f"{__version__} reads format {FORMAT}: upgrade it first",
                exit_code=2,
            )
        try:
            return _HEADER.decode(first)
        except msgspec.DecodeError as error:
            raise Stop(f"{self._name}, line 1: {error}", exit_code=2) from None

    def _line(self) -> bytes:
        line = self._file.readline(LONGEST_LINE + 1)
        if len(line) > LONGEST_LINE:
            raise Stop(f"{self._name} is no export of Tally: it has a line of over 256 MiB", exit_code=2)
        return line
