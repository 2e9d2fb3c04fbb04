"""`tally import` and `tally seed`. Reports are a table on a terminal and JSON otherwise."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from service.audit import CLI
from service.database.gateway import Database, open_database, reason
from service.errors import DatabaseUnavailable, Stop
from service.imports.contracts import Dataset, find_among
from service.imports.derived import read_datasets
from service.imports.folder import Imported, Refusal, import_folder
from service.imports.readers import REFUSALS, Upload
from service.imports.run.imports import Options, Progress, Report, import_file
from service.metrics.catalog import Catalog
from service.postgres_url import where
from service.settings import Settings
from service.sql.validation import validate_sql

COLUMNS: Final = ("dataset", "file", "read", "inserted", "updated", "unchanged", "quarantined")


def import_files(
    settings: Settings,
    dataset: str,
    uploads: Sequence[Upload],
    *,
    dry_run: bool,
    mirror: bool,
    strict: bool,
) -> int:
    """Import files into a dataset. Exit status 1: rows were quarantined (`strict`); 2: a file was refused.

    Raises `Stop` for an unknown dataset and for the database.
    """

    async def run() -> Imported:
        imported = Imported([], [])
        async with _opened(settings) as (database, usual):
            options = msgspec.structs.replace(usual, dry_run=dry_run, mirror=mirror)
            found = await _find(database, dataset)
            for upload in uploads:
                try:
                    with _progress(upload.source) as progress:
                        watched = msgspec.structs.replace(options, progress=progress)
                        report = await import_file(database, upload, found, watched)
                    imported.reports.append(report)
                except REFUSALS as refusal:
                    imported.refusals.append(Refusal(upload.source, refusal.detail))
                except OSError as error:
                    imported.refusals.append(Refusal(upload.source, f"{upload.path}: {error.strerror}"))
        return imported

    imported = asyncio.run(run())
    _show(imported)
    if imported.refusals:
        return 2
    return int(strict and any(report.quarantined for report in imported.reports))


async def _find(database: Database, name: str) -> Dataset:
    datasets = await read_datasets(database)
    if found := find_among(datasets, name):
        return found
    known = ", ".join(each.name for each in datasets)
    raise Stop(f"there is no dataset {name!r}; there are {known}", exit_code=2)


def seed(settings: Settings, *, show: bool = True) -> int:
    """Import the files of SEEDS_DIR. Exit status 1 if a file was refused. Raises `Stop`."""

    async def run() -> Imported:
        async with _opened(settings) as (database, options):
            with _progress(settings.seeds_dir.name) as progress:
                watched = msgspec.structs.replace(options, progress=progress)
                return await import_folder(database, settings.seeds_dir, watched)

    imported = asyncio.run(run())
    if show:
        _show(imported)
    return int(bool(imported.refusals))


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[tuple[Database, Options]]:
    """Open the database, with the same import options as the service."""
    url = settings.database.direct_url or ""
    schemas = settings.database.data_schemas
    try:
        async with open_database(url) as database:
            catalog = Catalog(database, schemas)
            await catalog.load()
            may_run = partial(
                validate_sql, schemas=schemas, functions=catalog.functions, database=catalog.database
            )
            actor = CLI
            yield (
                database,
                Options(validate_sql=may_run, bytes_limit=settings.imports.bytes_limit, actor=actor),
            )
    except DatabaseUnavailable as error:
        raise Stop(f"the database at {where(url)}: {reason(error)}") from None


def _show(imported: Imported) -> None:
    """Write reports to stdout and refused files to stderr."""
    if sys.stdout.isatty():
        console = Console(highlight=False)
        console.print(_table(imported.reports))
        for report in imported.reports:
            if details := _details(report):
                console.print(f"{report.dataset} from {report.source}: {details}")
    else:
        for report in imported.reports:
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    for refusal in imported.refusals:
        sys.stderr.write(f"tally: {refusal.detail} (refused whole; nothing of it was imported)\n")


def _table(reports: list[Report]) -> Table:
    table = Table(*COLUMNS)
    for column in table.columns[2:]:
        column.justify = "right"
    for report in reports:
        numbers = (
            report.rows_read, report.inserted, report.updated, report.unchanged, report.quarantined,
        )  # fmt: skip
        table.add_row(report.dataset, report.source, *map(str, numbers))
    return table


def _details(report: Report) -> str:
    """The details of a report that the table does not show."""
    dry = ["dry run"] if report.status == "dry-run" else []
    reasons = [f"{reason} {rows}" for reason, rows in report.reasons.items()]
    gone = [f"gone {report.gone}"] if report.gone else []
    freed = [f"freed {rows} of {name}" for name, rows in report.released.items() if rows]
    return ", ".join([*dry, *reasons, *gone, *freed, *report.notes])


@contextmanager
def _progress(source: str) -> Generator[Progress | None]:
    """Show the number of rows read on a terminal. None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(source, total=None)
        yield lambda rows: bar.update(task, completed=rows)
