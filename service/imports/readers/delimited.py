"""CSV and its like, as a stream of rows with the physical line each begins on."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.errors import InvalidInput
from service.imports.datasets import Dataset, fold
from service.imports.readers.tables import Table, grid_table

CELL_BYTES_READ = 8 << 20
"""A longer cell is an open quote, not a cell; `checks.CELL_BYTES` is what a row may hold."""
DELIMITERS = ",;\t|"
END = "\x1aend of file\x1a"


def read_delimited(path: Path, source: str, dataset: Dataset, *, encoding: str, has_nul: bool) -> Table:
    delimiter = max(DELIMITERS, key=lambda mark: _matches(path, source, encoding, dataset, mark))
    rows = _rows(path, source, encoding, delimiter)
    first = next(rows, None)
    if first is None:
        raise InvalidInput(f"{source}: the file is empty; its first line must be the headings")
    notes = ("not UTF-8: read as Windows-1252",) if encoding == "cp1252" else ()
    return grid_table(source, dataset, first[1], rows, notes=notes, has_nul=has_nul)


def _matches(path: Path, source: str, encoding: str, dataset: Dataset, delimiter: str) -> int:
    """How many headings are known if this is the delimiter; the commonest delimiter wins a tie."""
    rows = _rows(path, source, encoding, delimiter)
    try:
        first = next(rows, None)
    except InvalidInput:
        return 0
    return sum(fold(heading) in dataset.headings for heading in first[1]) if first else 0


def _rows(path: Path, source: str, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the physical line each begins on; blank lines are none."""
    csv.field_size_limit(CELL_BYTES_READ)
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(_ended(file), delimiter=delimiter)
        line = start = 1
        try:
            for row in reader:
                line, start = start, reader.line_num + 1
                if len(row) > 1 or (row and row[0].strip()):
                    if row == [END]:
                        return
                    yield line, row
        except csv.Error:
            raise InvalidInput(
                f"{source}: line {start}: a cell is longer than {CELL_BYTES_READ} bytes; "
                "is a quote left open?"
            ) from None
        raise InvalidInput(f"{source}: line {line}: the quote opened here is never closed")


def _ended(lines: Iterable[str]) -> Iterator[str]:
    """Add a last line; it is swallowed by the row before it if, and only if, a quote is still open."""
    last = ""
    for last in lines:
        yield last
    if last and not last.endswith(("\n", "\r")):
        yield "\n"
    yield END
