"""Files: import them, and what became of their rows."""

from pathlib import Path

import click

from service.cli.group import Command
from service.errors import Stop


@click.command("seed", cls=Command)
def seed_database() -> int:
    """Import the files of SEEDS_DIR; again changes nothing."""
    from service.cli.opened import database_ready, started
    from service.imports.commands import seed

    settings = started()
    if not settings.seeds_dir.is_dir():
        raise Stop(f"SEEDS_DIR={settings.seeds_dir} is not a folder", exit_code=2)
    with database_ready(settings) as (ready, _):
        return seed(ready)


@click.command("import", cls=Command)
@click.argument("dataset")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Report what the import would do, change nothing.")
@click.option("--mirror", is_flag=True, help="Mark stored rows that the file lacks as gone.")
@click.option("--strict", is_flag=True, help="Exit status 1 if rows were quarantined.")
def import_files(dataset: str, files: tuple[Path, ...], *, dry_run: bool, mirror: bool, strict: bool) -> int:
    """Import FILEs (CSV, JSON, XLSX) into DATASET."""
    from service.cli.opened import database_ready, started
    from service.imports import commands

    with database_ready(started()) as (ready, _):
        return commands.import_files(ready, dataset, files, dry_run=dry_run, mirror=mirror, strict=strict)
