"""Read the sheet of a dataset from a workbook (XLSX) as rows of text.

A separate process (`service.imports.xlsx`) reads the workbook and writes the rows to an unnamed file. It has
limits of memory, time and size. If it fails, only the caller with that workbook gets an error.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from service.errors import InvalidInput, TooLarge
from service.imports.contracts import Dataset, DatasetColumn, fold
from service.imports.readers.tables import Doubtful
from service.imports.xlsx.job import ERROR_MARK, REFUSED, Found, Job, Refusal, Use
from service.process import start_process

READER: Final = "service.imports.xlsx.process"
READERS: Final = 2
MEMORY_MB: Final = 128
CPU_S: Final = 30
MB_A_SECOND: Final = 4
ROW: Final = msgspec.json.Decoder(tuple[int, list[str]])
_MARK: Final = rb"\u0000"  # as JSON writes it
_IS_ERROR: Final = "is an error of the spreadsheet, not a value"
USES: Final[dict[str, Use]] = {"text": "text", "sql": "text", "moment": "date", "month": "date"}


class Sheet(Struct, frozen=True):
    headings: list[str]
    rows: Iterator[tuple[int, list[str] | Doubtful]]
    notes: tuple[str, ...]


@asynccontextmanager
async def open_sheet(
    path: Path, source: str, dataset: Dataset, *, bytes_limit: int, readers: asyncio.Semaphore
) -> AsyncGenerator[Sheet]:
    """Find the visible sheet with the dataset's name, else the only visible sheet whose headings match.

    Return the non-empty rows below the headings, with their row numbers in the sheet. A formula has its
    cached value. Cells merged downwards all have the value of the top cell.
    """
    job = _job(
        path,
        bytes_limit,
        dataset=fold(dataset.name),
        headings={heading: _use(column) for column in dataset.columns for heading in column.headings},
        needed=tuple(tuple(column.headings) for column in dataset.columns if column.needs_heading),
    )
    with tempfile.TemporaryFile() as answer:
        async with readers:
            found = await _read(job, answer, source)
        yield Sheet(found.headings, _rows(answer, found.headings, dataset), (f"sheet {found.sheet}",))


def _rows(
    answer: IO[bytes], headings: list[str], dataset: Dataset
) -> Iterator[tuple[int, list[str] | Doubtful]]:
    """A row with an error in a cell is doubtful: the cell has no value that could be stored."""
    for line in answer:
        number, cells = ROW.decode(line)
        found = [at for at, cell in enumerate(cells) if cell.startswith(ERROR_MARK)] if _MARK in line else ()
        if not found:
            yield number, cells
            continue
        cells = [cell.removeprefix(ERROR_MARK) for cell in cells]
        told = "; ".join(f'{_name(headings, at, dataset)}: "{cells[at]}" {_IS_ERROR}' for at in found)
        yield number, Doubtful("", ("cell-error", told), tuple(cells))


def _name(headings: list[str], at: int, dataset: Dataset) -> str:
    heading = headings[at] if at < len(headings) else ""
    column = dataset.column_of(heading)
    return column.name if column else heading or f"column {at + 1}"


async def sheet_names(path: Path, source: str, *, bytes_limit: int) -> list[str]:
    """Names of the visible sheets."""
    job = _job(path, bytes_limit, rows=False)
    with tempfile.TemporaryFile() as answer:
        return (await _read(job, answer, source)).visible


def _job(path: Path, bytes_limit: int, **options: Any) -> Job:
    """A job with limits of time and memory in proportion to the unzipped size."""
    megabytes = bytes_limit >> 20
    cpu_s, memory_mb = CPU_S + megabytes // MB_A_SECOND, MEMORY_MB + megabytes
    return Job(str(path), bytes_limit, cpu_s, memory_mb, **options)


def _use(column: DatasetColumn) -> Use:
    return USES.get(column.kind, "other")


async def _read(job: Job, answer: IO[bytes], source: str) -> Found:
    """Run the reader. Raises its refusal, or `TooLarge` if the process was killed."""
    status = await _run(job, answer)
    answer.seek(0)
    first = answer.readline()
    if status == 0:
        return msgspec.json.decode(first, type=Found)
    if status == REFUSED:
        refusal = msgspec.json.decode(first, type=Refusal)
        raise (TooLarge if refusal.too_large else InvalidInput)(f"{source}: {refusal.detail}")
    raise TooLarge(
        f"{source}: reading the workbook takes more than {job.memory_mb} MB of memory or {job.cpu_s} s; "
        "split it, or save it as CSV"
    )


async def _run(job: Job, answer: IO[bytes]) -> int | None:
    """Return the reader's exit status, None after a timeout. Cancellation kills the process."""
    argument = msgspec.json.encode(job)
    process = await asyncio.to_thread(start_process, READER, argument, stdout=answer)
    try:
        async with asyncio.timeout(2 * job.cpu_s):
            return await asyncio.to_thread(process.wait)
    except TimeoutError:
        return None
    finally:
        process.kill()
        if process.stdin:
            process.stdin.close()
