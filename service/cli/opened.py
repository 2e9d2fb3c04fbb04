"""What commands run on: settings, logs, and a database that is started if it is the embedded one."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from service.database.connect import left_out
from service.database.embedded import running
from service.database.gateway import Database, open_database
from service.environment import load, with_env_file
from service.observe.log import set_up_logs
from service.settings import Database as DatabaseSettings
from service.settings import Settings

T = TypeVar("T")


def started(*, quiet: bool = False) -> Settings:
    """Read the settings, those of `.env` too, and set up the logs. Raises `Stop`.

    With `quiet` only warnings are logged, unless LOG_LEVEL asks for more.
    """
    os.environ.update(with_env_file(os.environ))
    settings = load(os.environ)
    level = "warning" if quiet and not os.environ.get("LOG_LEVEL") else settings.logs.level
    set_up_logs(msgspec.structs.replace(settings.logs, level=level))
    return settings


def with_database(work: Callable[[Database], Awaitable[T]], *, quiet: bool = False) -> T:
    """Run one function against the database. Raises its problems. `quiet` is that of `started`."""
    with database_ready(started(quiet=quiet)) as (ready, _):
        return on_database(ready, work)


def on_database(ready: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """The same with a database that is ready."""

    async def run() -> T:
        async with open_database(ready.database.direct_url or "", size=1) as database:
            return await work(database)

    return asyncio.run(run())


@contextmanager
def database_ready(settings: Settings) -> Generator[tuple[Settings, Path]]:
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
