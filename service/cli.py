"""The commands. Each calls one feature function. `Stop` becomes a sentence and an exit status."""

import argparse
import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, nullcontext
from getpass import getpass
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
import structlog

from service import __version__
from service.auth import clients
from service.auth.clients import CHOSEN_LENGTH, parse_clients, parse_scopes
from service.auth.issuer import OVERLAP_S, TTL_LIMIT_S, TTL_S, Issuer, KeyFile
from service.auth.tokens import BACKEND, SUBJECT_IS, is_own_subject
from service.database.connect import left_out
from service.database.embedded import running, serving, usable
from service.database.gateway import Database, open_database, reason
from service.database.migrate import migrate
from service.database.preflight import check_service
from service.database.watch import watch
from service.database.zone import refuse_unknown_zone
from service.environment import load
from service.errors import DatabaseUnavailable, Problem, Stop
from service.http.connections import raise_file_limit
from service.imports.commands import import_files, seed
from service.metrics import store, suspensions
from service.observe.log import set_up_logs
from service.postgres_url import where
from service.server.supervisor import Supervisor
from service.settings import Database as DatabaseSettings
from service.settings import Settings

GRANTS_MISSING: Final = 3

T = TypeVar("T")

Command = Callable[[Settings, argparse.Namespace], int]


def main(argv: list[str] | None = None) -> None:
    """Run a command. Exit status 0, 1 (environment), 2 (wrong input) or 3 (missing grants)."""
    arguments = _parser().parse_args(argv)
    try:
        settings = load(os.environ)
        set_up_logs(settings.logs)
        sys.exit(arguments.command(settings, arguments))
    except Stop as stop:
        sys.stderr.write(f"tally: {stop}\n")
        sys.exit(stop.exit_code)
    except DatabaseUnavailable as error:
        place = where(os.environ.get("DATABASE_URL", ""))
        sys.stderr.write(f"tally: the database at {place}: {reason(error)}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


class _Once(argparse.Action):
    """Refuses an option that is given twice, because the intended value is unclear."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, f"{self.dest}_is_given", False):
            parser.error(f"{option_string} is given twice")
        setattr(namespace, f"{self.dest}_is_given", True)
        setattr(namespace, self.dest, values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tally",
        description="Stored SQL as live, cached, safe JSON metrics over Postgres.",
        epilog="Settings come from the environment; the README lists them.",
    )
    parser.add_argument("--version", action="version", version=f"tally {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in _COMMANDS:
        commands.add_parser(name, help=text, description=text).set_defaults(command=command)
    _add_auth_commands(commands)
    _add_query_commands(commands)
    _add_metric_commands(commands)
    commands.choices["watch"].add_argument("table", help="schema.table, with its partitions")
    _add_import_options(commands.choices["import"])
    return parser


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument(
        "--dry-run", action="store_true", help="report what the import would do, change nothing"
    )
    parser.add_argument("--mirror", action="store_true", help="mark stored rows that the file lacks as gone")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if rows were quarantined")


def _add(place: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = place.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    return parser


def _add_query_commands(commands: Any) -> None:
    query = commands.add_parser("query", help="Queries that our parser cannot read").add_subparsers(
        required=True
    )
    trust = _add(
        query, "trust", _query_trust, "Run a query without validation; role, READ ONLY and limits still apply"
    )
    trust.add_argument("id")
    trust.add_argument("--file", type=Path, action=_Once, help="store this SQL as the query, new or changed")
    _add(query, "distrust", _query_distrust, "Validate a query again").add_argument("id")


def _add_metric_commands(commands: Any) -> None:
    metric = commands.add_parser("metric", help="Metrics of the catalogue").add_subparsers(required=True)
    text = "Resume a metric that was suspended because Postgres could not stop its SQL"
    _add(metric, "resume", _metric_resume, text).add_argument("id", metavar="ID")


def _add_auth_commands(commands: Any) -> None:
    token = _add(commands, "token", _token, "Print a bearer token for local work")
    token.add_argument("--scope", nargs="+", action="extend", help=f"scopes (default: {BACKEND})")
    token.add_argument("--subject", action=_Once, default="cli", help="who the token is for (default: cli)")
    token.add_argument(
        "--ttl",
        type=int,
        action=_Once,
        default=TTL_S,
        help=f"seconds that the token is valid (default: {TTL_S})",
    )
    client = commands.add_parser("client", help="Clients that may ask for tokens").add_subparsers(
        required=True
    )
    new = _add(client, "add", _client_add, "Register a client and print its secret, which is not stored")
    new.add_argument("id")
    new.add_argument("--scope", nargs="+", action="extend", required=True, help="scopes that it may ask for")
    new.add_argument("--chosen", action="store_true", help="read the secret from standard input")
    _add(client, "list", _client_list, "List the clients of the database")
    _add(client, "revoke", _client_revoke, "Revoke a client: it gets no more tokens").add_argument("id")
    key = commands.add_parser("key", help="Signing keys").add_subparsers(required=True)
    rotate = _add(key, "rotate", _key_rotate, "Sign with a new key from now on")
    rotate.add_argument(
        "--overlap",
        type=int,
        action=_Once,
        default=OVERLAP_S,
        help=f"seconds the old key verifies (default: {OVERLAP_S})",
    )


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
        parse_clients(settings.auth.clients)
        if settings.auth.mode == "on":
            KeyFile(usable(settings.database.data_dir)).read()
        host = _free_address(settings)
        # The workers read their settings from the environment, as any worker would.
        os.environ["DATABASE_URL"] = ready.database.url or ""
        os.environ["READER_DATABASE_URL"] = ready.database.reader_url
        for obstacle in check_service(os.environ["DATABASE_URL"], ready.database.reader_url):
            structlog.get_logger("serve").error("not ready yet", why=obstacle)
        asyncio.run(refuse_unknown_zone(ready.database.reader_url, settings.database.time_zone))
        supervisor = Supervisor(settings.server, host, raise_file_limit())
        supervisor.on_startup(lambda: _say_where(settings))
        supervisor.run()
    return 0


def _free_address(settings: Settings) -> str:
    """Resolve HOST to an address that the server can listen on."""
    host, port = settings.server.host.strip("[]"), settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address: str = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4][0]  # type: ignore[assignment]
        with socket.create_server((address, port), family=family):
            return address
    except (socket.gaierror, UnicodeError) as error:
        raise Stop(f"HOST={host!r} is no address of this machine: {error}", exit_code=2) from None
    except OSError as error:
        wrong_host = error.errno == errno.EADDRNOTAVAIL
        mend = "HOST" if wrong_host else "PORT or HOST"
        raise Stop(
            f"cannot listen on {host}:{port}: {error.strerror}; set {mend}", exit_code=2 if wrong_host else 1
        ) from None


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
    if not done.missing_grants:
        return 0
    print("-- The owner may not do the following; let somebody who may run it, then migrate again:")
    print(*done.missing_grants, sep="\n")
    return GRANTS_MISSING


def _seed(settings: Settings, _arguments: argparse.Namespace) -> int:
    if not settings.seeds_dir.is_dir():
        raise Stop(f"SEEDS_DIR={settings.seeds_dir} is not a folder", exit_code=2)
    with _database_ready(settings) as (ready, _):
        return seed(ready)


def _import(settings: Settings, arguments: argparse.Namespace) -> int:
    with _database_ready(settings) as (ready, _):
        return import_files(
            ready,
            arguments.dataset,
            arguments.files,
            dry_run=arguments.dry_run,
            mirror=arguments.mirror,
            strict=arguments.strict,
        )


def _watch(settings: Settings, arguments: argparse.Namespace) -> int:
    with _database_ready(settings) as (ready, _):
        watched = watch(ready.database.url or "", arguments.table)
    print("\n".join(f"{table} announces its changes" for table in watched))
    return 0


def _psql(settings: Settings, _arguments: argparse.Namespace) -> int:
    with _database_ready(settings) as (ready, folder):
        try:
            return subprocess.run([folder / "psql", ready.database.url or ""], check=False).returncode  # noqa: S603
        except FileNotFoundError:
            raise Stop("psql is not installed; it comes with the PostgreSQL client programs") from None


def _token(settings: Settings, arguments: argparse.Namespace) -> int:
    if not 0 < arguments.ttl <= TTL_LIMIT_S:
        raise Stop(f"--ttl is 1 to {TTL_LIMIT_S} seconds", exit_code=2)
    if not is_own_subject(arguments.subject):
        raise Stop(f"--subject is {SUBJECT_IS}, and without |", exit_code=2)
    scopes = parse_scopes(" ".join(arguments.scope or [BACKEND]), "--scope")
    issuer = Issuer(settings.public_url, KeyFile(settings.database.data_dir))
    print(issuer.sign(arguments.subject, scopes, arguments.ttl))
    return 0


def _client_add(settings: Settings, arguments: argparse.Namespace) -> int:
    scopes = parse_scopes(" ".join(arguments.scope), "--scope")
    chosen = None
    if arguments.chosen:
        chosen = getpass("Secret: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        if len(chosen) < CHOSEN_LENGTH:
            raise Stop(f"a chosen secret has at least {CHOSEN_LENGTH} characters", exit_code=2)
    secret = _with_database(
        settings, lambda db: clients.add(db, arguments.id, scopes, chosen=chosen, actor="cli")
    )
    if chosen is None:
        print(secret)
    return 0


def _client_list(settings: Settings, _arguments: argparse.Namespace) -> int:
    for client in _with_database(settings, clients.list_all):
        state = f"revoked {client.revoked_at:%Y-%m-%d}" if client.revoked_at else "active"
        secret = "chosen" if client.chosen else "made"
        print(client.id, state, f"secret {secret}", " ".join(client.scopes), sep="\t")
    return 0


def _client_revoke(settings: Settings, arguments: argparse.Namespace) -> int:
    _with_database(settings, lambda db: clients.revoke(db, arguments.id, actor="cli"))
    print(f"{arguments.id} gets no more tokens; those it has hold for up to {TTL_S} seconds")
    return 0


def _key_rotate(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.overlap < 0:
        raise Stop("--overlap is not negative", exit_code=2)
    key = KeyFile(settings.database.data_dir).rotate(arguments.overlap)
    print(f"{key.kid} signs from now on; older keys verify for {arguments.overlap} seconds at most")
    return 0


def _query_trust(settings: Settings, arguments: argparse.Namespace) -> int:
    try:
        sql = None if arguments.file is None else arguments.file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"{arguments.file} cannot be read: {error}", exit_code=2) from None
    _with_database(settings, lambda db: store.trust(db, arguments.id, sql))
    print(f"{arguments.id} runs unjudged from now on")
    return 0


def _query_distrust(settings: Settings, arguments: argparse.Namespace) -> int:
    _with_database(settings, lambda db: store.distrust(db, arguments.id))
    print(f"{arguments.id} is judged again")
    return 0


def _metric_resume(settings: Settings, arguments: argparse.Namespace) -> int:
    try:
        metric_id = UUID(arguments.id)
    except ValueError:
        raise Stop(f"{arguments.id!r} is not the UUID of a metric", exit_code=2) from None
    resumed = _with_database(settings, lambda db: suspensions.resume(db, metric_id))
    print(f"{metric_id} runs again" if resumed else f"{metric_id} was not suspended")
    return 0


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Run one function against the database. A `Problem` ends the command with its detail."""

    async def run(url: str) -> T:
        async with open_database(url, size=1) as database:
            return await work(database)

    with _database_ready(settings) as (ready, _):
        try:
            return asyncio.run(run(ready.database.url or ""))
        except DatabaseUnavailable:
            raise
        except Problem as problem:
            raise Stop(problem.detail, exit_code=2) from None


@contextmanager
def _database_ready(settings: Settings) -> Generator[tuple[Settings, Path]]:
    """Yield settings with both database URLs, and the folder of psql. Run the embedded server if used."""
    if settings.database.url is not None:
        _say_what_is_left_out(settings.database)
        yield settings, Path()
        return
    with running(settings.database.data_dir) as server:
        addresses = msgspec.structs.replace(
            settings.database, url=server.owner_url, reader_url=server.reader_url
        )
        yield msgspec.structs.replace(settings, database=addresses), server.bin_dir


def _say_what_is_left_out(database: DatabaseSettings) -> None:
    for variable, url in (("DATABASE_URL", database.url), ("READER_DATABASE_URL", database.reader_url)):
        if names := left_out(url or ""):
            sys.stderr.write(
                f"tally: {variable}: {', '.join(names)} left out, except by migrate, watch and psql: "
                "the service's driver does not know it\n"
            )


_COMMANDS: Final[list[tuple[str, Command, str]]] = [
    ("serve", _serve, "Answer HTTP until stopped"),
    ("migrate", _migrate, "Bring the database up to date and give the reader its rights"),
    ("seed", _seed, "Import the files of SEEDS_DIR; again changes nothing"),
    ("watch", _watch, "Let a table of your own announce its changes, so that results follow them at once"),
    ("import", _import, "Import FILEs (CSV, JSON, XLSX) into DATASET"),
    ("psql", _psql, "Open psql on the database"),
]
