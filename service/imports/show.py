"""What a command says about imports: a table and a bar on a terminal, JSON otherwise."""

import sys
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.imports.folder import Refusal
from service.imports.landing import Progress as Tell
from service.imports.landing import Report

COLUMNS = ("dataset", "file", "read", "inserted", "updated", "unchanged", "quarantined", "why")


def show(reports: list[Report], refusals: list[Refusal]) -> None:
    """Print reports to stdout, refused files to stderr."""
    if sys.stdout.isatty():
        Console().print(_table(reports))
    else:
        for report in reports:
            sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    for refusal in refusals:
        sys.stderr.write(f"tally: {refusal.detail}; the file was refused, nothing of it was imported\n")


def _table(reports: list[Report]) -> Table:
    table = Table(*COLUMNS, title="Imports")
    for column in table.columns[2:7]:
        column.justify = "right"
    for report in reports:
        numbers = (
            report.rows_read, report.inserted, report.updated, report.unchanged, report.quarantined,
        )  # fmt: skip
        reasons = [f"{reason} {rows}" for reason, rows in report.reasons.items()]
        freed = [f"freed {rows} of {name}" for name, rows in report.released.items() if rows]
        gone = [f"gone {report.gone}"] if report.gone else []
        dry = ["dry run"] if report.status == "dry-run" else []
        said = ", ".join([*dry, *reasons, *gone, *freed, *report.notes])
        table.add_row(report.dataset, report.source, *map(str, numbers), said)
    return table


@contextmanager
def progress(source: str) -> Generator[Tell | None]:
    """A count of rows that grows on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(source, total=None)
        yield lambda rows: bar.update(task, completed=rows)
