"""A database of one's own: connect it, check it, leave it."""

import os
import sys

import click

from service.cli.group import Command


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
    return connect(started(), options, os.environ, input if sys.stdin.isatty() else None)
