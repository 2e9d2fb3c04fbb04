"""Build the app: open its parts in order, inject them into the controllers, close them in reverse."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Hashable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Tag
from litestar.types import ASGIApp

from service import __version__
from service.api import ExtraChecks, HealthController, own_routes
from service.ask.api import AskController
from service.ask.generate import PromptCompiler
from service.ask.knowledge import SchemaCache
from service.ask.model import open_model
from service.auth.api import AuditController, TokenController
from service.auth.clients import Clients, find, parse_clients
from service.auth.guards import Gate, allow, public_addresses
from service.auth.issuer import Issuer, KeyFile
from service.auth.keys import outside
from service.auth.tokens import Tokens
from service.database.gateway import Database, open_database
from service.database.listen import Listener
from service.database.session import Session
from service.database.stored_sql.limiter import GRACE_S, QUEUE_WAIT_S
from service.database.stored_sql.login import watch_login
from service.database.stored_sql.reader import Reader, open_reader
from service.errors import DatabaseUnavailable, Problem, Stop
from service.http.asgi import App
from service.http.connections import Client, RequestBounds
from service.http.disconnect import DisconnectMiddleware
from service.http.problems import ErrorMiddleware, answer_problem, send_problem
from service.http.representation import RepresentationMiddleware
from service.http.request_log import RequestLog
from service.http.requests import ReadRequest, refuse_bad_input
from service.imports.api import DatasetsController, Importing, ImportsController, QuarantineController
from service.imports.loading.turns import Turns
from service.interactions.api import InteractionsController, StatsController
from service.interactions.counts import READ_TABLES, Counts
from service.items.api import ExternalController, ItemsController
from service.items.enrich import ExternalApi
from service.items.summary import EXTRACTIVE, Summariser
from service.metrics import catalog
from service.metrics.api import DashboardsController, MetricsController
from service.metrics.batch import Batcher
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.metrics.result_endpoint import READ, ResultEndpoint, ResultService
from service.metrics.store import Editor
from service.metrics.suspensions import Suspensions
from service.outbound import Outbound
from service.results import changes
from service.results.cache import Results
from service.results.cache_hits import CacheHitMiddleware, RequestIndex
from service.results.changes import Changes
from service.results.freshness import Generations
from service.results.table import ResultTable
from service.settings import Settings

JSON_BYTES_LIMIT: Final = 8_388_608
LISTEN_WAIT_S: Final = 2.0
KEYS_DEADLINE_S: Final = 3.0  # a caller may wait for the key


def layered(app: Litestar, running: set[Client] | None = None) -> ASGIApp:
    """Wrap the app in its ASGI layers, as the server runs it.

    `CacheHitMiddleware` is outside the request log, so hits are logged as counts. `running` receives the
    clients whose requests run.
    """
    settings: Settings = app.state.settings
    gate: Gate = app.state.gate
    endpoint = ResultEndpoint(
        RepresentationMiddleware(cast("App", app)), gate, lambda: app.state.shelf, send_problem
    )
    limited = RequestBounds(
        cast("Any", DisconnectMiddleware(endpoint)),
        set[Client]() if running is None else running,
        settings.server.body_timeout_s,
    )
    inner = RequestLog(ErrorMiddleware(cast("ASGIApp", limited)))
    state = app.state
    return cast(
        "ASGIApp", CacheHitMiddleware(cast("App", inner), state.request_index, state.results, gate, READ)
    )


def create_app(settings: Settings) -> Litestar:
    """Build the app. It opens nothing before its lifespan. Raises `Stop` without database addresses."""
    return configured(routed(), settings)


def routed() -> Litestar:
    """Build the routes, which takes most of the time. `configured` adds the settings."""
    features = [
        HealthController,
        MetricsController,
        DashboardsController,
        AskController,
        DatasetsController,
        ImportsController,
        QuarantineController,
    ]
    return Litestar(
        route_handlers=[
            Router(
                "/api/v1",
                route_handlers=[
                    *features,
                    InteractionsController,
                    StatsController,
                    ItemsController,
                    ExternalController,
                    AuditController,
                ],
            ),
            Router("/", route_handlers=features, include_in_schema=False),
            TokenController,
            *own_routes(),
        ],
        guards=[allow],
        dependencies={
            "database": Provide(_database, sync_to_thread=False),
            "catalog": Provide(_catalog, sync_to_thread=False),
            "executor": Provide(_executor, sync_to_thread=False),
            "batcher": Provide(_batcher, sync_to_thread=False),
            "editor": Provide(_editor, sync_to_thread=False),
            "writer": Provide(_writer, sync_to_thread=False),
            "issuer": Provide(_issuer, sync_to_thread=False),
            "clients": Provide(_clients, sync_to_thread=False),
            "shelf": Provide(_shelf, sync_to_thread=False),
            "outside": Provide(_outside, sync_to_thread=False),
            "summariser": Provide(_summariser, sync_to_thread=False),
            "importing": Provide(_importing, sync_to_thread=False),
            "extra_checks": Provide(_extra_checks, sync_to_thread=False),
        },
        lifespan=[_opened],
        before_request=refuse_bad_input,
        request_class=ReadRequest,
        request_max_body_size=JSON_BYTES_LIMIT,
        exception_handlers={Exception: answer_problem},
        openapi_config=OpenAPIConfig(
            title="Tally",
            version=__version__,
            description="Stored SQL as live, cached, safe JSON metrics over Postgres.",
            openapi_router=Router("/internal/openapi", route_handlers=[], opt={"scope": "admin"}),
            render_plugins=[JsonRenderPlugin()],
            tags=[
                Tag("metrics", "Results and definitions"),
                Tag("items", "A task list enriched from an external API"),
                Tag("imports", "Imported files, dataset contracts, quarantined rows"),
                Tag("tokens", "Tokens and the keys that verify them"),
                Tag("interactions", "Customer interactions, and statistics of the datasets"),
                Tag("audit", "All changes, and who made them"),
                Tag("service", "Health"),
            ],
        ),
        debug=False,
        logging_config=None,
    )


def configured(app: Litestar, settings: Settings) -> Litestar:
    """Configure the routes. The app can be configured again while its lifespan is closed."""
    config = settings.database
    if config.url is None or config.reader_url is None:
        raise Stop("DATABASE_URL and READER_DATABASE_URL are both needed to serve", exit_code=2)
    results = Results(
        Generations(),
        ResultTable(settings.results.cache_bytes),
        time.monotonic,
        wait_s=config.statement_timeout_ms / 1000 + QUEUE_WAIT_S + GRACE_S,
        stale_if_error_s=settings.results.stale_if_error_s,
    )
    app.state.update(
        {"settings": settings, "results": results, "request_index": RequestIndex(), "shelf": None}
    )
    _guard(app, settings)
    return app


def _guard(app: Litestar, settings: Settings) -> None:
    """Put the gate before the router, so that unknown paths require a token too."""
    auth = settings.auth
    issuer = Issuer(settings.public_url, KeyFile(settings.database.data_dir))
    trusted = [issuer.trust()]
    if auth.oidc_issuer is not None:

        async def fetch_json(url: str) -> Any:
            return await app.state.outbound.get_json(url, dict[str, Any], deadline_s=KEYS_DEADLINE_S)

        trusted.append(outside(auth.oidc_issuer, auth.oidc_audience, auth.oidc_jwks_url, fetch_json))
    app.state.update({"issuer": issuer, "tokens": Tokens(trusted)})
    router: ASGIApp = app.state.setdefault("router", app.asgi_handler)
    app.asgi_handler = app.state.gate = Gate(
        router,
        app.state.tokens if auth.mode == "on" else None,
        public=public_addresses(app.routes),
        settings=settings,
        refuse=send_problem,
    )


def _database(state: State) -> Database:
    return state.database


def _catalog(state: State) -> Catalog:
    return state.catalog


def _executor(state: State) -> Executor:
    return state.executor


def _batcher(state: State) -> Batcher:
    return state.batcher


def _editor(state: State) -> Editor:
    return state.editor


def _writer(state: State) -> PromptCompiler:
    return state.writer


def _issuer(state: State) -> Issuer:
    return state.issuer


def _clients(state: State) -> Clients:
    return state.clients


def _shelf(state: State) -> ResultService:
    return state.shelf


def _outside(state: State) -> ExternalApi:
    return state.outside


def _summariser(state: State) -> Summariser:
    return state.summariser


def _importing(state: State) -> Importing:
    return state.importing


def _extra_checks(state: State) -> ExtraChecks:
    return state.extra_checks


def _check_stored_sql(reader: Reader, suspensions: Suspensions) -> dict[str, str]:
    """Health checks of stored SQL, only if something is wrong. They do not affect readiness."""
    checks: dict[str, str] = {}
    lingering, replaced = reader.lingering
    if lingering:
        checks["statements"] = (
            f"{lingering} went on past their cancellation, {replaced} of their places replaced"
        )
    with suppress(DatabaseUnavailable):  # the catalogue has not been loaded
        if suspended := len(suspensions):
            checks["metrics"] = f"{suspended} suspended"
    return checks


@asynccontextmanager
async def _opened(app: Litestar) -> AsyncGenerator[None]:
    """Open everything that lives as long as the app, and close it at the end."""
    settings: Settings = app.state.settings
    config, outbound_settings = settings.database, settings.outbound
    assert config.url, "checked by configured"
    assert config.reader_url, "checked by configured"
    async with (
        open_database(config.url) as database,
        aclosing(Session(config.url, "tally poll", changes.POLL_DEADLINE_S)) as session,
        open_reader(config.reader_url, config) as reader,
        Outbound(timeout_s=outbound_settings.timeout_s, cooldown_s=outbound_settings.cooldown_s) as outbound,
    ):
        model = open_model(settings.model, outbound.client)
        results: Results = app.state.results
        index: RequestIndex = app.state.request_index

        def forget(version: int, owners: list[Hashable]) -> None:
            index.version = version
            for owner in owners:
                results.table.drop(owner)

        metrics = Catalog(database, config.data_schemas, forget)
        table_changes = Changes(
            database,
            session,
            results.generations,
            results.clock,
            reader=reader.role,
            schemas=config.data_schemas,
            always=READ_TABLES,
        )
        suspensions = Suspensions(database, metrics)
        executor = Executor(
            reader, metrics, settings, clock=results.clock, changes=table_changes, suspensions=suspensions
        )
        app.state.extra_checks = partial(_check_stored_sql, reader, suspensions)
        batcher = Batcher(
            metrics,
            executor,
            results,
            deadline_s=config.statement_timeout_ms / 1000 + QUEUE_WAIT_S,
            bytes_limit=config.result_bytes_limit,
        )
        app.state.update({"database": database, "catalog": metrics, "executor": executor, "batcher": batcher})
        app.state.changes = table_changes
        app.state.clients = Clients(parse_clients(settings.auth.clients), partial(find, database))
        schema_cache = SchemaCache(reader, config.data_schemas)
        app.state.writer = PromptCompiler(
            schema_cache, executor, model, settings.model, lambda: datetime.now(config.zone).date()
        )
        app.state.editor = Editor(database, metrics, executor, app.state.writer.write)
        app.state.shelf = ResultService(metrics, executor, results, index)
        app.state.importing = Importing(executor.check, settings.imports.bytes_limit, Turns())
        app.state.counts = Counts(database, results, settings.results.stale_for_s)

        with suppress(Problem):  # the service starts anyway, and becomes ready later
            await metrics.load()
            await table_changes.poll()
        tokens: Tokens = app.state.tokens
        summariser = Summariser(f"model:{model.name}", model.summarise) if model else EXTRACTIVE
        external_api = ExternalApi(outbound, outbound_settings.external_api_url)
        app.state.update({"outbound": outbound, "outside": external_api, "summariser": summariser})
        listener = _listener(config.url, metrics, results, schema_cache)
        results.unread = listener.unread
        runners = [metrics.keep(), listener.run(), *_watchers(app.state, reader, table_changes, schema_cache)]
        if settings.auth.mode == "on":
            runners.append(tokens.watch())
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(runner) for runner in runners]
            with suppress(TimeoutError):  # results from before the listener connects would run again
                async with asyncio.timeout(LISTEN_WAIT_S):
                    await listener.connected.wait()
            yield
            await executor.close()
            await results.close()
            for task in background:
                task.cancel()
            await tokens.close()


def _watchers(
    state: State, reader: Reader, table_changes: Changes, schema_cache: SchemaCache
) -> tuple[Coroutine[Any, Any, None], ...]:
    """Coroutines that react to redefinitions in the database and to a refused reader login."""
    results: Results = state.results

    async def redefined() -> None:
        state.executor.forget()
        state.catalog.changed()
        schema_cache.changed()
        # Prepared statements of a session keep using the tables and functions that they first resolved.
        await reader.retire()

    async def refused() -> None:
        results.generations.renew(results.clock())
        await reader.retire()

    return table_changes.keep(redefined), watch_login(state.settings.database.reader_url, refused)


def _listener(url: str, metrics: Catalog, results: Results, schema_cache: SchemaCache) -> Listener:
    def on_gap() -> None:
        metrics.changed()
        schema_cache.changed()
        results.heard()

    def announced(payload: str) -> None:
        results.generations.announced(payload, results.clock())
        schema_cache.announced(payload)

    def catalogue_changed(payload: str) -> None:
        metrics.changed()
        results.generations.announced(payload, results.clock())

    return Listener(
        url,
        {catalog.CHANNEL: catalogue_changed, changes.CHANNEL: announced},
        on_gap=on_gap,
        on_silence=lambda: results.generations.silent(results.clock()),
    )
