"""Files: import them, and what became of their rows."""

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final
from uuid import UUID

import click

from service.cli.group import Command, Group, SeveralValues, pairs
from service.cli.output import csv_option
from service.errors import Stop

STANDARD_INPUT: Final = "-"
_CHUNK: Final = 1 << 20


@click.command("seed", cls=Command)
def seed_database() -> int:
    """Import the files of SEEDS_DIR, and add the sample's alert rule; again changes nothing."""
    from service.alerts.sample import add_sample
    from service.audit import CLI
    from service.cli.opened import database_ready, on_database, started
    from service.imports.commands import seed

    settings = started()
    if not settings.seeds_dir.is_dir():
        raise Stop(f"SEEDS_DIR={settings.seeds_dir} is not a folder", exit_code=2)
    if not settings.brings_sample:
        sys.stderr.write(
            f"tally: nothing is imported into your own database (SAMPLE={settings.sample}):"
            " SAMPLE=on or SEEDS_DIR says otherwise\n"
        )
        return 0
    with database_ready(settings) as (ready, _):
        status = seed(ready)
        on_database(ready, lambda db: add_sample(db, CLI))
        return status


@click.command("import", cls=Command)
@click.argument("dataset")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Report what the import would do, change nothing.")
@click.option("--mirror", is_flag=True, help="Mark stored rows that the file lacks as gone.")
@click.option("--strict", is_flag=True, help="Exit status 1 if rows were quarantined.")
def import_files(dataset: str, files: tuple[str, ...], *, dry_run: bool, mirror: bool, strict: bool) -> int:
    """Import FILEs (CSV, JSON, XLSX), or - (standard input), into DATASET."""
    from service.cli.opened import database_ready, started
    from service.imports import commands
    from service.imports.readers import Upload

    if files.count(STANDARD_INPUT) > 1:
        raise Stop("- (standard input) can be read once", exit_code=2)
    settings = started()
    with ExitStack() as held:
        uploads = [
            Upload(held.enter_context(_stored_input(settings.imports.bytes_limit)), "stdin")
            if file == STANDARD_INPUT
            else Upload(Path(file), Path(file).name)
            for file in files
        ]
        ready, _ = held.enter_context(database_ready(settings))
        return commands.import_files(ready, dataset, uploads, dry_run=dry_run, mirror=mirror, strict=strict)


@contextmanager
def _stored_input(limit: int) -> Generator[Path]:
    """Standard input as a file, of at most one byte more than an import may have."""
    with NamedTemporaryFile(prefix="tally-") as file:
        left = limit + 1
        while left and (chunk := sys.stdin.buffer.read(min(left, _CHUNK))):
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        yield Path(file.name)


def text_of(file: str) -> str:
    """The text of a file, or of standard input for `-`. Raises `Stop`."""
    try:
        content = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"{file} cannot be read: {error}", exit_code=2) from None


@click.group(cls=Group)
def dataset() -> None:
    """Datasets that files can be imported into."""


@dataset.command("list")
@csv_option
def list_datasets(*, as_csv: bool) -> None:
    """List all datasets."""
    from service.cli.output import show
    from service.cli.routes import with_api

    found = with_api(lambda api: api.items("/datasets"))
    show(found, "name", "table", "key", "description", as_csv=as_csv)


@dataset.command("add")
@click.argument("table", metavar="SCHEMA.TABLE")
@click.option("--name", help="Name of the dataset. [default: the table's]")
@click.option("--key", cls=SeveralValues, help="Columns of a primary key or unique constraint.")
@click.option("--facts", is_flag=True, help="No key: rows are told apart by their content.")
@click.option("--vocabulary", cls=SeveralValues, help="Columns whose words keep one spelling.")
@click.option("--mirror", is_flag=True, help="Add a column that marks rows as gone, for import --mirror.")
def add_dataset(
    table: str,
    name: str | None,
    key: tuple[str, ...],
    vocabulary: tuple[str, ...],
    *,
    facts: bool,
    mirror: bool,
) -> None:
    """Make a table importable, and tell what was added."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    if key and facts:
        raise click.UsageError("--facts have no --key")
    body = {"table": table, "vocabulary": list(vocabulary), "mirror": mirror}
    body |= {"name": name} if name else {}
    body |= {"key": list(key)} if key or facts else {}
    show_object(with_api(lambda api: api.call("POST", "/datasets", body=body)))


@dataset.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also if rows wait in quarantine: they are lost.")
def remove_dataset(name: str, *, force: bool) -> None:
    """Make a table not importable any more. Its rows stay; what was added with the dataset goes."""
    from service.cli.routes import with_api

    query = {"force": "true" if force else None}
    with_api(lambda api: api.call("DELETE", f"/datasets/{name}", query=query))
    print(f"{name} is no dataset any more")


@click.group(cls=Group)
def quarantine() -> None:
    """Rows that broke the contract of their dataset."""


@quarantine.command("list")
@click.option("--dataset", help="Only rows of this dataset.")
@click.option("--reason", help="Only rows with this reason.")
@click.option(
    "--status", type=click.Choice(["open", "loaded", "discarded"]), default="open", show_default=True
)
@csv_option
def list_rows(dataset: str | None, reason: str | None, status: str, *, as_csv: bool) -> None:
    """List quarantined rows."""
    from typing import get_args

    from service.cli.output import show
    from service.cli.routes import with_api
    from service.imports.contracts import Reason

    if reason not in {None, *get_args(Reason)}:
        raise Stop(f"there is no reason {reason!r}; there are {', '.join(get_args(Reason))}", exit_code=2)

    found = with_api(lambda api: api.items("/quarantine", dataset=dataset, reason=reason, status=status))
    show(found, "id", "dataset", "source", "line", "reason", "message", as_csv=as_csv)


@quarantine.command("fix")
@click.argument("row_id", metavar="ID", type=click.UUID)
@click.argument("values", metavar="HEADING=VALUE...", nargs=-1, required=True)
def fix_row(row_id: UUID, values: tuple[str, ...]) -> None:
    """Give a row new values and load it. Other columns keep theirs."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    body = {"raw": pairs(values)}
    show_object(with_api(lambda api: api.call("PATCH", f"/quarantine/{row_id}", body=body)))


@quarantine.command("retry")
@click.argument("dataset", required=False)
def retry_rows(dataset: str | None) -> None:
    """Try the open rows of DATASET again, or all of them."""
    from service.cli.output import show_object
    from service.cli.routes import with_api

    show_object(with_api(lambda api: api.call("POST", "/quarantine/retry", query={"dataset": dataset})))


@quarantine.command("export")
@click.argument("dataset")
def export_rows(dataset: str) -> None:
    """Print the open rows of DATASET as CSV, to be fixed and imported back."""
    from service.cli.output import write
    from service.cli.routes import with_api

    query = {"dataset": dataset}
    with_api(lambda api: api.call("GET", "/quarantine/export", query=query, accept="text/csv", write=write))
