"""Build the app: open its parts in order, inject them into the controllers, close them in reverse."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import License, Tag
from litestar.types import ASGIApp
from msgspec import Struct

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
from service.auth.live import LiveRights
from service.auth.tokens import Tokens
from service.database.driver import ignore_cancelled_connects
from service.database.gateway import Database, open_database
from service.database.listen import Handlers, Listener
from service.database.session import Session
from service.database.stored_sql.limiter import GRACE_S, QUEUE_WAIT_S
from service.database.stored_sql.login import ReaderLogin
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
from service.imports.run.turns import Turns
from service.interactions.api import InteractionsController, StatsController
from service.interactions.counts import READ_TABLES, Counts
from service.items.api import ExternalController, ItemsController
from service.items.enrich import ExternalApi
from service.items.summary import EXTRACTIVE, Summariser
from service.live.api import LiveController
from service.live.following import live_request
from service.live.hot import HotResults
from service.live.hub import Hub
from service.live.keeper import CLIENT_TABLES, Keeper
from service.live.sockets import Sockets
from service.live.streams import EventStreams, Parts
from service.metrics import catalog
from service.metrics.api import DashboardsController, MetricsController
from service.metrics.batch import Batcher
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.metrics.result_endpoint import READ, ResultEndpoint, ResultService
from service.metrics.store import Editor
from service.metrics.suspensions import Suspensions
from service.observe.events import Observe
from service.observe.log import EventLog
from service.outbound import Outbound
from service.postgres_url import parameters
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


class Base(Struct, frozen=True):
    """The parts that need no connection. They are built before the lifespan begins."""

    settings: Settings
    observe: Observe
    listener: Listener
    results: Results
    request_index: RequestIndex
    issuer: Issuer
    tokens: Tokens
    gate: Gate


class Services(Struct, frozen=True):
    """The parts that live as long as the lifespan. Handlers get them by these names."""

    database: Database
    outbound: Outbound
    catalog: Catalog
    changes: Changes
    executor: Executor
    batcher: Batcher
    result_service: ResultService
    schema_cache: SchemaCache
    compiler: PromptCompiler
    editor: Editor
    issuer: Issuer
    clients: Clients
    external_api: ExternalApi
    summariser: Summariser
    importing: Importing
    counts: Counts
    reader_login: ReaderLogin
    extra_checks: ExtraChecks
    live_rights: LiveRights
    streams: Parts


def layered(app: Litestar, running: set[Client] | None = None) -> ASGIApp:
    """Wrap the app in its ASGI layers, as the server runs it.

    `CacheHitMiddleware` is outside the request log, so hits are logged as counts. `running` receives the
    clients whose requests run.
    """
    base: Base = app.state.base
    endpoint = ResultEndpoint(
        RepresentationMiddleware(cast("App", app)),
        base.gate,
        lambda: _services(app).result_service,
        send_problem,
    )
    streams = EventStreams(endpoint, base.gate, lambda: _services(app).streams, send_problem)
    sockets = Sockets(
        cast("App", DisconnectMiddleware(streams)), base.gate, lambda: _services(app).streams, send_problem
    )
    inner = RequestBounds(
        cast("Any", RequestLog(ErrorMiddleware(cast("ASGIApp", sockets)), base.observe)),
        set[Client]() if running is None else running,
        base.settings.server.body_timeout_s,
    )
    hits = CacheHitMiddleware(
        cast("App", inner),
        base.request_index,
        base.results,
        base.gate,
        need=READ,
        observe=base.observe,
    )
    return cast("ASGIApp", hits)


def _services(app: Litestar) -> Services:
    services: Services | None = app.state.services
    if services is None:  # the lifespan has not begun, or is over
        raise DatabaseUnavailable(headers={"Retry-After": "2"})
    return services


def drain(app: Litestar) -> list[Client]:
    """Tell all live connections to go elsewhere. Returns the clients of those that have not ended."""
    services: Services | None = app.state.services
    return [] if services is None else services.streams.hub.drain()


def create_app(settings: Settings) -> Litestar:
    """Build the app. It opens nothing before its lifespan. Raises `Stop` without database addresses."""
    return configured(routed(), settings)


def routed() -> Litestar:
    """Build the routes, which takes most of the time. `configured` adds the settings."""

    def getter(name: str) -> Callable[[], Any]:
        def get() -> Any:  # without parameters, because each of them costs Litestar 10 us a request
            return getattr(app.state.services, name)

        return get

    features = [
        HealthController,
        MetricsController,
        DashboardsController,
        AskController,
        DatasetsController,
        ImportsController,
        QuarantineController,
        LiveController,
    ]
    app = Litestar(
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
            name: Provide(getter(name), sync_to_thread=False) for name in Services.__struct_fields__
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
            openapi_router=Router(
                "/internal/openapi", route_handlers=[], include_in_schema=False, opt={"scope": "admin"}
            ),
            license=License("Apache-2.0", identifier="Apache-2.0"),
            render_plugins=[JsonRenderPlugin()],
            tags=[
                Tag("metrics", "Results and definitions"),
                Tag("live", "Results that are pushed when they change"),
                Tag("dashboards", "Metrics side by side, and where each of them sits"),
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
    return app


def configured(app: Litestar, settings: Settings, observe: Observe | None = None) -> Litestar:
    """Configure the routes. The app can be configured again while its lifespan is closed.

    `observe` receives all events. By default they are logged.
    """
    config = settings.database
    if config.url is None or config.reader_url is None:
        raise Stop("DATABASE_URL and READER_DATABASE_URL are both needed to serve", exit_code=2)
    observe = observe or EventLog()
    listener = Listener(config.url)
    results = Results(
        Generations(observe),
        ResultTable(settings.results.cache_bytes),
        time.monotonic,
        wait_s=config.statement_timeout_ms / 1000 + QUEUE_WAIT_S + GRACE_S,
        stale_if_error_s=settings.results.stale_if_error_s,
        unread=listener.unread,
        observe=observe,
    )
    issuer, tokens, gate = _guard(app, settings)
    base = Base(settings, observe, listener, results, RequestIndex(results), issuer, tokens, gate)
    app.state.update({"base": base, "services": None})
    return app


def _guard(app: Litestar, settings: Settings) -> tuple[Issuer, Tokens, Gate]:
    """Put the gate before the router, so that unknown paths require a token too."""
    auth = settings.auth
    issuer = Issuer(settings.public_url, KeyFile(settings.database.data_dir))
    trusted = [issuer.trust()]
    if auth.oidc_issuer is not None:

        async def fetch_json(url: str) -> Any:
            services: Services = app.state.services
            return await services.outbound.get_json(url, dict[str, Any], deadline_s=KEYS_DEADLINE_S)

        trusted.append(outside(auth.oidc_issuer, auth.oidc_audience, auth.oidc_jwks_url, fetch_json))
    tokens = Tokens(trusted)
    router: ASGIApp = app.state.setdefault("router", app.asgi_handler)
    app.asgi_handler = gate = Gate(
        router,
        tokens if auth.mode == "on" else None,
        public=public_addresses(app.routes),
        settings=settings,
        refuse=send_problem,
    )
    return issuer, tokens, gate


def _extra_checks(listener: Listener, reader: Reader, suspensions: Suspensions) -> dict[str, str]:
    """Checks that do not affect readiness: results are right without announcements, but run more often."""
    heard = listener.connected.is_set()
    checks = {"listening": "ok" if heard else "no announcements: each result is run again"}
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
    base: Base = app.state.base
    config, outgoing = base.settings.database, base.settings.outbound
    assert config.url, "checked by configured"
    assert config.reader_url, "checked by configured"
    ignore_cancelled_connects()
    async with (
        open_database(config.url) as database,
        aclosing(Session(config.url, "tally poll", changes.POLL_DEADLINE_S)) as session,
        open_reader(config.reader_url, config) as reader,
        Outbound(timeout_s=outgoing.timeout_s, cooldown_s=outgoing.cooldown_s) as outbound,
    ):
        app.state.services = services = _connect(
            base, database=database, session=session, reader=reader, outbound=outbound
        )
        # Subscribe before the first read, so that no change between is missed.
        live, results = services.streams, base.results
        keeper = Keeper(live.hub, live.rights, database, base.settings.live.heartbeat_s)
        hot = HotResults(results, base.settings.live.hot_for_s)
        with (
            results.subscribe(catalog.TABLES) as catalogue,
            results.subscribe() as data,
            results.subscribe() as changed,
            results.subscribe(CLIENT_TABLES) as clients,
        ):
            with suppress(Problem):  # the service starts anyway, and becomes ready later
                await services.catalog.load()
                await services.changes.poll()
            async with _running(
                base,
                services.catalog.keep(catalogue),
                services.schema_cache.keep(data),
                hot.keep(changed),
                keeper.keep(),
                keeper.keep_clients(clients),
                services.changes.keep(services.executor.redefined),
                services.reader_login.watch(services.executor.locked_out),
            ):
                yield
                await live.hub.close()
                await services.executor.close()
                await base.results.close()
        await base.tokens.close()


@asynccontextmanager
async def _running(base: Base, *runners: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run these and the listener in the background."""
    results = base.results
    handlers = Handlers(results.announced, results.silent, results.heard)
    background = [*runners, base.listener.run((catalog.CHANNEL, changes.CHANNEL), handlers)]
    if base.settings.auth.mode == "on":
        background.append(base.tokens.watch())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in background]
        with suppress(TimeoutError):  # results from before the listener connects would run again
            async with asyncio.timeout(LISTEN_WAIT_S):
                await base.listener.connected.wait()
        yield
        for task in tasks:
            task.cancel()


def _connect(
    base: Base, *, database: Database, session: Session, reader: Reader, outbound: Outbound
) -> Services:
    """Build the parts on top of the open connections."""
    settings, results = base.settings, base.results
    config = settings.database
    metrics = Catalog(database, config.data_schemas, results.redefined)
    suspensions = Suspensions(database, metrics)
    table_changes = Changes(
        database,
        session,
        results.generations,
        results.clock,
        reader=reader.role,
        schemas=config.data_schemas,
        always=READ_TABLES,
    )
    executor = Executor(
        reader,
        metrics,
        settings,
        clock=results.clock,
        changes=table_changes,
        suspensions=suspensions,
        observe=base.observe,
    )
    batcher = Batcher(
        metrics,
        executor,
        results,
        deadline_s=config.statement_timeout_ms / 1000 + QUEUE_WAIT_S,
        bytes_limit=config.result_bytes_limit,
    )
    model = open_model(settings.model, outbound.client)
    schema_cache = SchemaCache(reader, config.data_schemas)
    compiler = PromptCompiler(
        schema_cache, executor, model, settings.model, lambda: datetime.now(config.zone).date()
    )
    result_service = ResultService(metrics, executor, results, base.request_index)
    hub = Hub(
        results,
        partial(live_request, metrics, executor),
        connections=settings.live.streams,
        connections_per_caller=settings.streams_per_caller,
    )
    rights = LiveRights(base.gate, base.issuer, base.tokens if settings.auth.mode == "on" else None)
    return Services(
        database=database,
        outbound=outbound,
        catalog=metrics,
        changes=table_changes,
        executor=executor,
        batcher=batcher,
        result_service=result_service,
        schema_cache=schema_cache,
        compiler=compiler,
        editor=Editor(database, metrics, executor, compiler.write),
        issuer=base.issuer,
        clients=Clients(parse_clients(settings.auth.clients), partial(find, database)),
        external_api=ExternalApi(outbound, settings.outbound.external_api_url),
        summariser=Summariser(f"model:{model.name}", model.summarise) if model else EXTRACTIVE,
        importing=Importing(
            executor.check,
            settings.imports.bytes_limit,
            Turns(),
            base.observe,
            reader=parameters(config.reader_url or "").get("user", ""),
        ),
        counts=Counts(database, results, result_service, settings.results.stale_for_s),
        reader_login=ReaderLogin(config.reader_url or "", config.data_schemas, base.observe),
        extra_checks=partial(_extra_checks, base.listener, reader, suspensions),
        live_rights=rights,
        streams=Parts(hub, rights, metrics),
    )
