"""The process that reads one workbook. It sets its limits, then writes rows to standard output, a file.

A hostile workbook can end this process only.
"""

import os
import resource
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Final

import msgspec

from service.errors import InvalidInput, Problem, TooLarge
from service.imports.contracts import fold
from service.imports.xlsx.job import REFUSED, Found, Job, Refusal, Use
from service.imports.xlsx.package import Package
from service.imports.xlsx.parts import Book, read_book, read_formats, read_strings
from service.imports.xlsx.sheet import Merge, Row, SheetReader, Source, read_sheet

ENCODER: Final = msgspec.json.Encoder()
SHOWN: Final = 20
SHOWN_NAME: Final = 60


def main() -> None:
    job = msgspec.json.decode(sys.argv[1], type=Job)
    _bound(job)
    threading.Thread(target=_end_with_the_service, daemon=True).start()
    with open(1, "w+b", closefd=False) as answer:
        try:
            _answer(job, answer)
        except Problem as problem:
            refusal = Refusal(isinstance(problem, TooLarge), problem.detail)
        except MemoryError:
            refusal = Refusal(
                True, f"reading it takes more than {job.memory_mb} MB of memory; save it as CSV"
            )
        except Exception as error:  # noqa: BLE001 (any error is caused by the file)
            refusal = Refusal(False, f"not a workbook that can be read: {error}"[:300])
        else:
            return
        _restart(answer, refusal)
    sys.exit(REFUSED)


def _bound(job: Job) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: job.cpu_s,
        resource.RLIMIT_FSIZE: 2 * job.bytes_limit,
        resource.RLIMIT_DATA: job.memory_mb << 20,
        resource.RLIMIT_AS: (2 * job.memory_mb) << 20,
    }
    for limit, value in limits.items():
        with suppress(ValueError, OSError):  # not every system has it
            resource.setrlimit(limit, (value, value))


def _end_with_the_service() -> None:
    """End this process when the service closes standard input."""
    os.read(0, 1)
    os._exit(1)


def _answer(job: Job, answer: IO[bytes]) -> None:
    package = Package(job.path, job.bytes_limit)
    book = read_book(package)
    visible = [name for name, _ in book.sheets]
    if not job.rows:
        _restart(answer, Found(visible))
        return
    source = _source(job, package, book)
    name, path, headings = _choose(job, package, book, source)
    reader = SheetReader(source)
    _write(answer, job, Found(visible, name, headings), read_sheet(package.chunks(path), reader))
    left = reader.left
    if reader.merges or left:  # known only at the end of the sheet, so read it again
        rows = _filled(read_sheet(package.chunks(path), SheetReader(source)), reader.merges)
        cut = ((number, row[left:]) for number, row in rows)
        _write(answer, job, Found(visible, name, headings[left:]), cut)


def _source(job: Job, package: Package, book: Book) -> Source:
    def use(heading: str) -> Use:
        return job.headings.get(fold(heading), "none")

    strings = read_strings(package, book.strings)
    return Source(strings, read_formats(package, book.styles), book.from_1904, use)


def _choose(job: Job, package: Package, book: Book, source: Source) -> tuple[str, str, list[str]]:
    """Find the sheet with the dataset's name, else the only sheet whose headings match."""
    named = [(name, path) for name, path in book.sheets if fold(name) == job.dataset][:1]
    fitting: list[tuple[str, str, list[str]]] = []
    for name, path in named or book.sheets:
        _, headings = next(read_sheet(package.chunks(path), SheetReader(source)), (1, list[str]()))
        if named or _fits(headings, job):
            fitting.append((name, path, headings))
    if len(fitting) == 1:
        return fitting[0]
    which = "several sheets have" if fitting else "no visible sheet has"
    shown = ", ".join(name[:SHOWN_NAME] for name, _ in book.sheets[:SHOWN]) or "none"
    raise InvalidInput(
        f"{which} the headings of that dataset, and none is named like it; visible sheets: {shown}"
    )


def _fits(headings: list[str], job: Job) -> bool:
    folded = set(map(fold, headings))
    return all(folded.intersection(group) for group in job.needed)


def _filled(rows: Iterable[Row], merges: list[Merge]) -> Iterator[Row]:
    """Repeat the value of cells merged downwards."""
    starts: dict[int, list[Merge]] = {}
    for merge in merges:
        starts.setdefault(merge.top, []).append(merge)
    spread: dict[int, tuple[int, str]] = {}
    for number, row in rows:
        for column, (bottom, text) in list(spread.items()):
            if number > bottom:
                del spread[column]
            elif column >= len(row):
                row.extend([""] * (column - len(row)) + [text])
            else:
                row[column] = row[column] or text
        for merge in starts.get(number, ()):
            if merge.column < len(row) and row[merge.column]:
                spread[merge.column] = merge.bottom, row[merge.column]
        yield number, row


def _write(answer: IO[bytes], job: Job, found: Found, rows: Iterator[Row]) -> None:
    """Write headings and rows. A row is as wide as the headings unless it has a value beyond them."""
    next(rows, None)
    headings = found.headings
    while headings and not headings[-1].strip():
        headings.pop()
    width = len(headings)
    written = _restart(answer, found)
    for number, row in rows:
        if len(row) < width:
            row.extend([""] * (width - len(row)))
        line = ENCODER.encode((number, row))
        written += len(line)
        if written > job.bytes_limit:
            raise TooLarge(f"as text its rows are larger than IMPORT_BYTES_LIMIT, {job.bytes_limit} bytes")
        answer.write(line)
        answer.write(b"\n")


def _restart(answer: IO[bytes], first: Found | Refusal) -> int:
    """Start the answer again."""
    answer.seek(0)
    answer.truncate()
    return answer.write(ENCODER.encode(first) + b"\n")
