"""A database of one's own: connect it, check it, leave it."""

import os
import sys
from collections.abc import Callable
from functools import partial

import click

from service.cli.group import Command
from service.cli.output import csv_option
from service.errors import Stop


def _asker() -> Callable[[str], str] | None:
    """Puts a question to whoever sits at the terminal; None in a pipe."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return partial(click.prompt, default="", show_default=False, prompt_suffix="", err=True)


@click.command("connect", cls=Command)
@click.argument("url", required=False)
@click.option("--schemas", default="", help="Schemas that stored SQL may read, comma-separated.")
@click.option("--watch", help="Tables that announce their changes: all, none, or names, comma-separated.")
@click.option("--print", "print_only", is_flag=True, help="Print what to set instead of writing .env.")
def connect_database(url: str | None, schemas: str, watch: str | None, *, print_only: bool) -> int:
    """Connect a database of your own (postgresql://user:password@host:5432/name)."""
    from service.cli.opened import started
    from service.setup.connect import Options, connect

    names = tuple(name.strip() for name in schemas.split(",") if name.strip())
    options = Options(url, names, watch, print_only)
    return connect(started(), options, os.environ, _asker())


@click.command(cls=Command)
def doctor() -> int:
    """Check settings, database, rights and files; each finding says what mends it."""
    from service.cli.opened import database_ready, started
    from service.setup.doctor import examine
    from service.setup.findings import exit_status, show

    with database_ready(started()) as (ready, _):
        findings = examine(ready, os.environ)
    show(findings)
    return exit_status(findings)


@click.command(cls=Command)
@csv_option
def settings(*, as_csv: bool) -> None:
    """List all settings: environment variables, their defaults and what they mean."""
    from service.cli import output
    from service.environment import rows

    known = [{"setting": row.env, "default": row.default, "meaning": row.help} for row in rows()]
    output.show(output.lines(known), "setting", "default", "meaning", as_csv=as_csv)


@click.command(cls=Command)
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(*, yes: bool) -> int:
    """Remove Tally from your database: its schemas, triggers and reader; your tables stay."""
    from service.cli.opened import started
    from service.setup import uninstall as leaving

    url = started().database.url
    if url is None:
        raise Stop("the embedded database is Tally's own: stop the service and delete DATA_DIR", exit_code=2)
    return leaving.uninstall(url, confirmed=yes, ask=_asker())
