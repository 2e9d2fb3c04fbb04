"""Where the parts meet: opened in order, handed to the controllers, closed in reverse."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Tag
from litestar.types import ASGIApp

from service import __version__
from service.api import HealthController, answer_problem, own_routes, refuse_unknown_parameters
from service.database.gateway import Database, open_database
from service.database.listen import Listener
from service.database.reader import open_reader
from service.errors import Stop
from service.metrics import catalog
from service.metrics.api import MetricsController
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.observe import RequestLog, set_up_logs
from service.settings import Settings, load


def from_environment() -> ASGIApp:
    """Build the app in a server's worker."""
    settings = load(os.environ)
    set_up_logs(settings.logs)
    return RequestLog(create_app(settings))


def create_app(settings: Settings) -> Litestar:
    """Build the app; opens nothing before its lifespan. Raises `Stop` without database addresses."""
    if settings.database.url is None or settings.database.reader_url is None:
        raise Stop("DATABASE_URL and READER_DATABASE_URL are both needed to serve", exit_code=2)
    features = [HealthController, MetricsController]
    return Litestar(
        route_handlers=[
            Router("/api/v1", route_handlers=features),
            Router("/", route_handlers=features, include_in_schema=False),
            *own_routes(),
        ],
        dependencies={
            "database": Provide(_database, sync_to_thread=False),
            "catalog": Provide(_catalog, sync_to_thread=False),
            "executor": Provide(_executor, sync_to_thread=False),
        },
        lifespan=[lambda app: _opened(app, settings)],
        before_request=refuse_unknown_parameters,
        exception_handlers={Exception: answer_problem},
        openapi_config=OpenAPIConfig(
            title="Tally",
            version=__version__,
            description="Stored SQL as live, cached, safe JSON metrics over Postgres.",
            path="/internal/openapi",
            tags=[Tag("metrics", "Results and definitions"), Tag("service", "Health")],
        ),
        debug=False,
        logging_config=None,
    )


def _database(state: State) -> Database:
    return state.database


def _catalog(state: State) -> Catalog:
    return state.catalog


def _executor(state: State) -> Executor:
    return state.executor


@asynccontextmanager
async def _opened(app: Litestar, settings: Settings) -> AsyncGenerator[None]:
    """Hold everything that lives as long as the app."""
    addresses = settings.database
    assert addresses.url, "checked by create_app"
    assert addresses.reader_url, "checked by create_app"
    async with (
        open_database(addresses.url) as database,
        open_reader(addresses.reader_url, addresses) as reader,
    ):
        held = Catalog(database)
        app.state.update({"database": database, "catalog": held, "executor": Executor(reader)})
        listener = Listener(addresses.url, {catalog.CHANNEL: held.changed}, on_gap=held.changed)
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(held.keep()), tasks.create_task(listener.run())]
            yield
            for task in background:
                task.cancel()
