"""Copies of what people made in Tally: written to a file, read from one."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import BinaryIO, Final

import click

from service.cli.group import Command
from service.cli.output import csv_option
from service.errors import Stop

STANDARD_INPUT: Final = "-"
_CHUNK: Final = 1 << 20


@click.command("export", cls=Command)
@click.argument("file", required=False)
@click.option("--with-secrets", is_flag=True, help="Also API clients and secrets of webhooks.")
@csv_option
def export_all(file: str | None, *, with_secrets: bool, as_csv: bool) -> None:
    """Write queries, metrics, dashboards, alert rules, datasets, imports, quarantine and items to FILE.

    Without FILE it goes to standard output. Business tables, the audit, alerts and secrets are left out.
    """
    from service.backup.export import export
    from service.cli.opened import with_database
    from service.cli.output import lines, show, write

    if file is None or file == STANDARD_INPUT:
        if as_csv:
            raise Stop("--csv is for the numbers of rows, which are printed with FILE only", exit_code=2)
        with_database(lambda db: export(db, write, with_secrets=with_secrets), quiet=True)
        return
    with _replacing(Path(file)) as write_part:
        rows = with_database(lambda db: export(db, write_part, with_secrets=with_secrets), quiet=True)
    found = lines({"table": table, "rows": number} for table, number in rows.items())
    show(found, "table", "rows", as_csv=as_csv)


@click.command("restore", cls=Command)
@click.argument("file")
@click.option("--replace", is_flag=True, help="Remove what the database has of these tables first.")
@csv_option
def restore_all(file: str, *, replace: bool, as_csv: bool) -> None:
    """Restore an export from FILE, or from - (standard input), into a migrated database."""
    from service.audit import CLI
    from service.backup.restore import restore
    from service.cli.opened import with_database
    from service.cli.output import lines, show

    name = "standard input" if file == STANDARD_INPUT else file
    with _readable_twice(file) as found:
        done = with_database(lambda db: restore(db, found, name, actor=CLI, replace=replace), quiet=True)
    show(lines(done.tables), "table", "removed", "restored", as_csv=as_csv)
    for note in done.notes:
        sys.stderr.write(f"tally: {note}\n")


@contextmanager
def _replacing(path: Path) -> Generator[Callable[[bytes], object]]:
    """Write a file beside the path, and put it in its place when it is whole and on the disk.

    A device or a pipe is written to, and a link goes on leading to its file.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device.write
            return
        path = path.resolve()
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
            try:
                yield part.write
                part.flush()
                os.fsync(part.fileno())
                Path(part.name).replace(path)
            finally:
                with suppress(FileNotFoundError):
                    Path(part.name).unlink()
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}", exit_code=2) from None


@contextmanager
def _readable_twice(file: str) -> Generator[BinaryIO]:
    """The file, or standard input as one."""
    if file != STANDARD_INPUT:
        try:
            with Path(file).open("rb") as opened:
                yield opened
        except OSError as error:
            raise Stop(f"{file} cannot be read: {error.strerror}", exit_code=2) from None
        return
    with TemporaryFile(prefix="tally-") as copy:
        while chunk := sys.stdin.buffer.read(_CHUNK):
            copy.write(chunk)
        yield copy
