"""`tally serve`: check what can be checked before the service starts, then run its processes."""

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from service.cli.group import Command
from service.errors import Stop

if TYPE_CHECKING:
    from service.settings import Settings


@click.command(cls=Command)
@click.option("--host", help="Address to listen on, instead of HOST.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on, instead of PORT.")
@click.option("--workers", type=click.IntRange(1, 64), help="Server processes, instead of WORKERS.")
@click.option("--check", is_flag=True, help="Only check the settings, and that HOST and PORT are free.")
def serve(host: str | None, port: int | None, workers: int | None, *, check: bool) -> None:
    """Answer HTTP until stopped."""
    from service.cli.opened import started
    from service.server.address import held_address

    # The workers read their settings from the environment, as any worker would.
    for variable, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[variable] = str(value)
    settings = started()
    _check_settings(settings)
    with held_address(settings.server) as address:
        if not check:
            run_service(settings, address)


def _check_settings(settings: "Settings") -> None:
    """Raise `Stop` for what is wrong whatever the database says."""
    from service.auth.clients import parse_clients
    from service.auth.issuer import KeyFile
    from service.dashboard.links.signing import Signer
    from service.database.embedded import usable
    from service.observe.trace import check_installed

    if settings.database.url is not None and settings.database.reader_url is None:
        raise Stop(
            "READER_DATABASE_URL is needed beside DATABASE_URL: the role that runs stored SQL", exit_code=2
        )
    check_installed(settings.traces)
    parse_clients(settings.auth.clients)
    if settings.auth.mode == "on":
        KeyFile(usable(settings.database.data_dir)).read()
    if settings.pages.link_secret_file is not None:
        Signer(settings.pages.link_secret_file).load()


def run_service(settings: "Settings", address: str) -> None:
    """Serve at an address that is held, until stopped."""
    import asyncio

    import structlog

    from service.cli.opened import database_ready
    from service.database.embedded import serving
    from service.database.preflight import check_service
    from service.database.zone import refuse_unknown_zone
    from service.http.connections import raise_file_limit
    from service.server.supervisor import Supervisor
    from service.setup.doctor import examine

    embedded = settings.database.url is None
    with (
        serving(settings.database.data_dir) if embedded else nullcontext(),
        database_ready(settings) as (ready, _),
    ):
        owner, reader = ready.database.url or "", ready.database.reader_url or ""
        os.environ.update({"DATABASE_URL": owner, "READER_DATABASE_URL": reader})
        log = structlog.get_logger("serve")
        obstacles = check_service(owner, reader)
        for obstacle in obstacles:
            log.error("not ready yet", why=obstacle)
        for finding in () if obstacles else examine(ready, os.environ, quick=True):
            if finding.status == "act":
                mend = "tally doctor" if "\n" in finding.mend else finding.mend
                log.warning(finding.message, check=finding.check, mend=mend)
        asyncio.run(refuse_unknown_zone(reader, settings.database.time_zone))
        Supervisor(settings, address, raise_file_limit()).run()
