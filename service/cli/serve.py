"""`tally serve`: check what can be checked before the service starts, then run its processes."""

import errno
import os
import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from service.cli.group import Command
from service.errors import Stop

if TYPE_CHECKING:
    from service.settings import Settings


@click.command(cls=Command)
def serve() -> None:
    """Answer HTTP until stopped."""
    import asyncio

    import structlog

    from service.auth.clients import parse_clients
    from service.auth.issuer import KeyFile
    from service.cli.opened import database_ready, started
    from service.database.embedded import serving, usable
    from service.database.preflight import check_service
    from service.database.zone import refuse_unknown_zone
    from service.http.connections import raise_file_limit
    from service.server.supervisor import Supervisor

    settings = started()
    embedded = settings.database.url is None
    with (
        serving(settings.database.data_dir) if embedded else nullcontext(),
        database_ready(settings) as (ready, _),
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


def _free_address(settings: "Settings") -> str:
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


def _say_where(settings: "Settings") -> None:
    base = f"http://{settings.server.host}:{settings.server.port}"
    print(
        f"Tally serves on {base}  (Ctrl-C stops it)\n  open  {base}/docs\n  curl  {base}/api/v1/metrics",
        flush=True,
    )
