"""The commands; each calls one feature function and turns `Stop` into a sentence and an exit status."""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from granian.constants import Interfaces, Loops
from granian.server import Server as HttpServer

from service.database.embedded import running, serving
from service.database.gateway import Database, address, open_database
from service.database.migrate import migrate
from service.errors import DatabaseUnavailable, Stop
from service.imports.folder import Imported, import_folder
from service.imports.landing import Options
from service.imports.show import show
from service.metrics.catalog import Catalog
from service.metrics.judge import judge
from service.observe import set_up_logs
from service.settings import Settings, load

WORKER_GRACE_S: Final = 10

Command = Callable[[Settings, argparse.Namespace], int]


def main(argv: list[str] | None = None) -> None:
    """Run a command; exit status 0, 1 (the world) or 2 (the input)."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load(os.environ)
        set_up_logs(settings.logs)
        sys.exit(arguments.command(settings, arguments))
    except Stop as stop:
        sys.stderr.write(f"tally: {stop}\n")
        sys.exit(stop.exit_code)
    except DatabaseUnavailable as error:
        where = address(os.environ.get("DATABASE_URL", ""))
        sys.stderr.write(f"tally: the database at {where}: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tally",
        description="Stored SQL as live, cached, safe JSON metrics over Postgres.",
        epilog="Settings come from the environment; the README lists them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in _COMMANDS:
        commands.add_parser(name, help=text, description=text).set_defaults(command=command)
    return parser


def _serve(settings: Settings, _arguments: argparse.Namespace) -> int:
    embedded = settings.database.url is None
    with (
        serving(settings.database.data_dir) if embedded else nullcontext(),
        _database_ready(settings) as (ready, _),
    ):
        if ready.database.reader_url is None:
            raise Stop(
                "READER_DATABASE_URL is needed beside DATABASE_URL: the role that runs stored SQL",
                exit_code=2,
            )
        # The workers read their settings from the environment, as any worker would.
        os.environ["DATABASE_URL"] = ready.database.url or ""
        os.environ["READER_DATABASE_URL"] = ready.database.reader_url
        _refuse_taken_port(settings)
        server = HttpServer(
            "service.app:from_environment",
            factory=True,
            address=settings.server.host,
            port=settings.server.port,
            interface=Interfaces.ASGI,
            loop=Loops.uvloop,
            workers=settings.server.workers,
            workers_kill_timeout=WORKER_GRACE_S,
            log_enabled=False,
        )
        server.on_startup(lambda: _say_where(settings))
        server.serve()
    return 0


def _refuse_taken_port(settings: Settings) -> None:
    host, port = settings.server.host, settings.server.port
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise Stop(f"cannot listen on {host}:{port}: {error.strerror}; set PORT or HOST") from None


def _say_where(settings: Settings) -> None:
    base = f"http://{settings.server.host}:{settings.server.port}"
    print(
        f"Tally serves on {base}  (Ctrl-C stops it)\n  open  {base}/docs\n  curl  {base}/api/v1/metrics",
        flush=True,
    )


def _migrate(settings: Settings, _arguments: argparse.Namespace) -> int:
    with _database_ready(settings) as (ready, _):
        database = ready.database
        done = migrate(database.url or "", database.reader_url, database.data_schemas)
    print(f"applied {', '.join(done.applied)}" if done.applied else "the database is up to date")
    if done.missing_grants:
        print(
            "The owner may not do the following; let somebody who may run:", *done.missing_grants, sep="\n  "
        )
    return 0


def _seed(settings: Settings, _arguments: argparse.Namespace) -> int:
    with _database_ready(settings) as (ready, _):
        imported = asyncio.run(_import_seeds(ready))
    show(imported.reports, imported.refusals)
    return 1 if imported.refusals else 0


async def _import_seeds(settings: Settings) -> Imported:
    async with open_database(settings.database.url or "") as database:
        options = Options(
            judge=await _judge(database, settings), bytes_limit=settings.imports.bytes_limit, actor="seed"
        )
        return await import_folder(database, settings.seeds_dir, options)


async def _judge(database: Database, settings: Settings) -> Callable[[str], object]:
    catalog = Catalog(database, settings.database.data_schemas)
    await catalog.load()
    return partial(judge, schemas=settings.database.data_schemas, functions=catalog.functions)


def _psql(settings: Settings, _arguments: argparse.Namespace) -> int:
    with _database_ready(settings) as (ready, folder):
        try:
            return subprocess.run([folder / "psql", ready.database.url or ""], check=False).returncode  # noqa: S603
        except FileNotFoundError:
            raise Stop("psql is not installed; it comes with the PostgreSQL client programs") from None


@contextmanager
def _database_ready(settings: Settings) -> Generator[tuple[Settings, Path]]:
    """Settings with both addresses, and where psql is; runs the embedded server meanwhile if it is ours."""
    if settings.database.url is not None:
        yield settings, Path()
        return
    with running(settings.database.data_dir) as server:
        addresses = msgspec.structs.replace(
            settings.database, url=server.owner_url, reader_url=server.reader_url
        )
        yield msgspec.structs.replace(settings, database=addresses), server.bin_dir


_COMMANDS: Final[list[tuple[str, Command, str]]] = [
    ("serve", _serve, "Answer HTTP until stopped"),
    ("migrate", _migrate, "Bring the database up to date and give the reader its rights"),
    ("seed", _seed, "Import the files of SEEDS_DIR; again changes nothing"),
    ("psql", _psql, "Open psql on the database"),
]
