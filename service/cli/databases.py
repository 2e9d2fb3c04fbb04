"""The database: migrate it, fill it, let its tables announce their changes, look into it."""

import subprocess
from typing import Final

import click

from service.cli.group import Command
from service.errors import Stop

GRANTS_MISSING: Final = 3


@click.command("migrate", cls=Command)
@click.option("--status", "look", flag_value="status", help="List all migrations, change nothing.")
@click.option("--dry-run", "look", flag_value="dry-run", help="Name what would be applied, change nothing.")
@click.option("--print-sql", "look", flag_value="print-sql", help="Print the SQL that would run, to be read.")
@click.option("--back-to", metavar="NAME", help="Roll back all migrations after NAME, with what they hold.")
def migrate_database(look: str | None, back_to: str | None) -> int:
    """Bring the database up to date and give the reader its rights."""
    from service.cli.opened import database_ready, started
    from service.database.migrate import migrate

    if look is not None and back_to is not None:
        raise click.UsageError(f"--back-to does not go with --{look}")
    if look is not None:
        _look(look)
        return 0
    if back_to is not None:
        _roll_back(back_to)
        return 0
    with database_ready(started()) as (ready, _):
        database = ready.database
        done = migrate(database.direct_url or "", database.reader_url, database.data_schemas)
    print(f"applied {', '.join(done.applied)}" if done.applied else "the database is up to date")
    if not done.missing_grants:
        return 0
    print("-- The owner may not do the following; let somebody who may run it, then migrate again:")
    print(*done.missing_grants, sep="\n")
    return GRANTS_MISSING


def _look(look: str) -> None:
    from service.cli.opened import with_database
    from service.cli.output import lines, show
    from service.database.migrate import MIGRATIONS, names, pending

    missing = with_database(pending)
    if look == "status":
        states = [
            {"migration": name, "status": "pending" if name in missing else "applied"} for name in names()
        ]
        show(lines(states), "migration", "status", as_csv=False)
    elif look == "dry-run":
        print(f"would apply {', '.join(missing)}" if missing else "the database is up to date")
    else:
        for name in missing:
            print(f"-- {name}", (MIGRATIONS / f"{name}.sql").read_text(), sep="\n")


def _roll_back(last: str) -> None:
    from difflib import get_close_matches

    from service.cli.opened import database_ready, started
    from service.database.migrate import names, roll_back

    known = names()
    if last not in known:
        near = get_close_matches(last, known, n=3, cutoff=0.3) or known[-3:]
        raise Stop(f"there is no migration {last!r}; there is {', '.join(near)}", exit_code=2)
    with database_ready(started()) as (ready, _):
        done = roll_back(ready.database.direct_url or "", last)
    print(f"rolled back {', '.join(done)}" if done else f"nothing was applied after {last}")


@click.command("watch", cls=Command)
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True)
def watch_tables(tables: tuple[str, ...]) -> None:
    """Let tables of your own (schema.table) announce their changes, so that results follow them at once."""
    from service.cli.opened import database_ready, started
    from service.database.watch import watch

    with database_ready(started()) as (ready, _):
        for table in tables:
            for each in watch(ready.database.direct_url or "", table):
                print(f"{each} announces its changes")


@click.command("unwatch", cls=Command)
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True)
def unwatch_tables(tables: tuple[str, ...]) -> None:
    """Remove what `watch` added to tables (schema.table)."""
    from service.cli.opened import database_ready, started
    from service.database.watch import unwatch

    with database_ready(started()) as (ready, _):
        for table in tables:
            for each in unwatch(ready.database.direct_url or "", table):
                print(f"{each} announces its changes no more")


@click.command(cls=Command)
def psql() -> int:
    """Open psql on the database."""
    from service.cli.opened import database_ready, started

    with database_ready(started()) as (ready, folder):
        try:
            return subprocess.run([folder / "psql", ready.database.direct_url or ""], check=False).returncode  # noqa: S603
        except FileNotFoundError:
            raise Stop("psql is not installed; it comes with the PostgreSQL client programs") from None
