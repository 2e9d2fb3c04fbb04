"""Read CSV and similar files: detect the delimiter, read the headings, then the rows."""

import re
from collections.abc import Iterator
from pathlib import Path

from service.errors import InvalidInput
from service.imports.contracts import Dataset
from service.imports.readers.records import Records, Row
from service.imports.readers.tables import Doubtful, Table, grid_table

DELIMITERS = ",;\t|"
HEADING_CHARACTERS = 1 << 16
SEPARATOR_CHARACTERS = 16
SEPARATOR = re.compile(rf'\ufeff?"?sep=([{re.escape(DELIMITERS)}])"?\n?', re.IGNORECASE)


def read_delimited(
    path: Path, source: str, dataset: Dataset, *, encoding: str, has_nul: bool, damaged: bool
) -> Table:
    def rows(mark: str) -> Iterator[tuple[int, Row]]:
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
            yield from Records(file, source, mark, damaged=damaged).rows()

    told = _told(path, encoding)
    delimiter = told or max(DELIMITERS, key=lambda mark: _matches(rows(mark), dataset))
    below = rows(delimiter)
    if told:
        next(below)
    headings = _headings(source, next(below, None))
    notes = list[str]()
    if encoding == "cp1252":
        notes.append("not UTF-8: read as Windows-1252")
    if damaged:
        notes.append(f"rows with bytes that are not {encoding.removesuffix('-sig')} were kept back")
    following = rows(delimiter)
    for _ in range(2 if told else 1):
        next(following)
    if _trailing((row for _, row in following), len(headings)):
        notes.append("a delimiter ends every row")
        below = _without_last(below, len(headings))
    return grid_table(source, dataset, headings, below, notes=tuple(notes), has_nul=has_nul)


def _told(path: Path, encoding: str) -> str | None:
    """The delimiter of a first line such as `sep=;`, which spreadsheets write."""
    with path.open(encoding=encoding, errors="surrogateescape") as file:
        found = SEPARATOR.fullmatch(file.readline(SEPARATOR_CHARACTERS))
    return found and found[1]


def _headings(source: str, first: tuple[int, Row] | None) -> list[str]:
    """Read the headings. Raises `InvalidInput` if the first row cannot be headings."""
    if first is None:
        raise InvalidInput(f"{source}: the file is empty; its first line must be the headings")
    line, row = first
    if isinstance(row, Doubtful):
        raise InvalidInput(f"{source}: line {line}: headings: {row.problem[1]}")
    text = "".join(row)
    if "\0" in text:
        raise InvalidInput(
            f"{source}: line {line}: NUL in the headings; UTF-16 needs a byte order mark, or save it as UTF-8"
        )
    if len(text) > HEADING_CHARACTERS:
        raise InvalidInput(f"{source}: line {line}: headings longer than {HEADING_CHARACTERS} characters")
    return row


def _matches(rows: Iterator[tuple[int, Row]], dataset: Dataset) -> int:
    """How many headings are known with this delimiter. In a tie the most common delimiter wins."""
    try:
        _, row = next(rows, (0, list[str]()))
    except InvalidInput:
        return 0
    return 0 if isinstance(row, Doubtful) else sum(map(bool, map(dataset.column_of, row)))


def _trailing(rows: Iterator[Row], width: int) -> bool:
    """Whether a delimiter ends every row: all rows are wider than the headings, with empty extra cells."""
    wider = False
    for row in rows:
        if isinstance(row, Doubtful):
            continue
        if len(row) == width or (len(row) == width + 1 and row[-1].strip()):
            return False
        wider = wider or len(row) == width + 1
    return wider


def _without_last(rows: Iterator[tuple[int, Row]], width: int) -> Iterator[tuple[int, Row]]:
    for line, row in rows:
        if not isinstance(row, Doubtful) and len(row) == width + 1:
            row.pop()
        yield line, row
