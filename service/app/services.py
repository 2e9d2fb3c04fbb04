"""The parts of the service, and how they are built on top of one another."""

from datetime import datetime
from functools import partial

import msgspec
from msgspec import Struct

from service import __version__
from service.alerts.rules import Rules
from service.api import CheckHealth, Scrape
from service.app.alerting import Alerting, Outlets, alerting
from service.app.health import Checks
from service.app.monitor import Monitor
from service.ask.generate import PromptCompiler
from service.ask.knowledge import SchemaCache
from service.ask.model import open_model
from service.auth.clients import Clients, find, parse_clients
from service.auth.guards import Gate
from service.auth.issuer import Issuer
from service.auth.live import LiveRights
from service.auth.sessions import Sessions
from service.auth.tokens import Tokens
from service.connect import arrow
from service.connect.mcp.endpoint import Mcp
from service.connect.mcp.library import Library
from service.connect.mcp.server import Server
from service.connect.missing import MissingResults
from service.connect.openmetrics import Exporter
from service.dashboard.links import SESSION, Links
from service.dashboard.links.signing import Signer
from service.dashboard.pages import Pages
from service.dashboard.sign_in import CodeFlow, SignIn
from service.database.breaker import Breaker
from service.database.gateway import Database
from service.database.listen import Listener
from service.database.session import Session
from service.database.stored_sql.limiter import QUEUE_WAIT_S
from service.database.stored_sql.login import ReaderLogin
from service.database.stored_sql.reader import Reader
from service.history.histories import Histories
from service.history.recorder import Recorder
from service.http.lifecycle import Lifecycle
from service.imports.datasets import DATASETS
from service.imports.run.observed import Importing
from service.imports.run.turns import Turns
from service.interactions.counts import READ_TABLES, Counts
from service.items.enrich import ExternalApi
from service.items.summary import EXTRACTIVE, Summariser
from service.live.following import check_names, live_request
from service.live.hub import Hub
from service.live.notices import open_notices
from service.live.places import LEAST_BODIES, Limits
from service.live.streams import Parts
from service.metrics.batch import Batcher
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.metrics.result_endpoint import ResultService
from service.metrics.store import Editor
from service.metrics.suspensions import Suspensions
from service.observe.events import Observe
from service.observe.prometheus import Prometheus
from service.observe.trace import Traces
from service.outbound import Outbound
from service.postgres_url import parameters
from service.results.cache import Results
from service.results.cache_hits import RequestIndex
from service.results.changes import Changes
from service.results.sharing import Sharing
from service.settings import Settings


class Base(Struct, frozen=True):
    """The parts that need no connection. They are built before the lifespan begins."""

    settings: Settings
    observe: Observe
    lifecycle: Lifecycle
    primary: Breaker
    reader_server: Breaker
    listener: Listener
    results: Results
    sharing: Sharing | None
    request_index: RequestIndex
    issuer: Issuer
    tokens: Tokens
    sessions: Sessions
    gate: Gate
    pages: Pages
    signer: Signer
    prometheus: Prometheus
    traces: Traces
    alerts: bool = True


class Services(Struct, frozen=True):
    """The parts that live as long as the lifespan. Handlers get them by these names."""

    database: Database
    outbound: Outbound
    catalog: Catalog
    changes: Changes
    executor: Executor
    batcher: Batcher
    exporter: Exporter
    mcp: Mcp
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
    check_health: CheckHealth
    live_rights: LiveRights
    streams: Parts
    pages: Pages
    monitor: Monitor
    scrape: Scrape
    sign_in: SignIn
    links: Links
    alerting: Alerting
    alert_rules: Rules
    histories: Histories
    recorder: Recorder


def connect(
    base: Base, *, database: Database, session: Session, reader: Reader, outbound: Outbound, outlets: Outlets
) -> Services:
    """Build the parts on top of the open connections."""
    settings, results = base.settings, base.results
    config = settings.database
    metrics = Catalog(database, config.data_schemas, results.redefined)
    suspensions = Suspensions(database, metrics, base.observe)
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
        holds=results.table.holds,
        share_key=None if base.sharing is None else share_key(settings),
        traces=base.traces,
        arrow=arrow.encode if arrow.available() else None,
    )
    batcher = Batcher(
        metrics,
        executor,
        results,
        deadline_s=config.statement_timeout_ms / 1000 + QUEUE_WAIT_S,
        bytes_limit=config.result_bytes_limit,
        take=base.gate.take_metric,
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
        Limits(
            connections=settings.live.streams,
            connections_per_caller=settings.streams_per_caller,
            body_bytes=max(settings.results.cache_bytes, LEAST_BODIES * config.result_bytes_limit),
        ),
    )
    monitor = Monitor(base.prometheus, results, hub, database, reader)
    links = Links(
        database,
        metrics,
        executor,
        base.signer,
        public_url=settings.public_url,
        rate_limit=settings.pages.link_rate_limit,
    )
    clients = Clients(parse_clients(settings.auth.clients), partial(find, database))
    rights = LiveRights(
        base.gate,
        base.issuer,
        base.tokens if settings.auth.mode == "on" else None,
        partial(_holds, base.sessions, links),
    )
    login = ReaderLogin(config.reader_url or "", config.data_schemas, base.observe, base.reader_server)
    checks = Checks(database, reader, login, base.listener, base.sharing, suspensions, base.lifecycle)
    alerts = alerting(settings, database, metrics, executor, results, outlets=outlets, observe=base.observe)
    return Services(
        database=database,
        outbound=outbound,
        catalog=metrics,
        changes=table_changes,
        executor=executor,
        batcher=batcher,
        exporter=Exporter(
            executor,
            results,
            MissingResults(metrics, executor, results, results.clock, active=settings.live.hot_for_s > 0),
        ),
        mcp=Mcp(
            Server(Library(metrics, executor, results, partial(_drafted, compiler), base.gate.take_metric)),
            rights,
            partial(open_notices, hub),
        ),
        result_service=result_service,
        schema_cache=schema_cache,
        compiler=compiler,
        editor=Editor(database, metrics, executor, compiler.write),
        issuer=base.issuer,
        clients=clients,
        external_api=ExternalApi(outbound, settings.outbound.external_api_url),
        summariser=Summariser(f"model:{model.name}", model.summarise) if model else EXTRACTIVE,
        importing=Importing(
            executor.check,
            settings.imports.bytes_limit,
            Turns(),
            base.observe,
            base.traces,
            reader=parameters(config.reader_url or "").get("user", ""),
        ),
        counts=Counts(database, results, result_service, settings.results.stale_for_s),
        reader_login=login,
        check_health=checks.run,
        live_rights=rights,
        streams=Parts(hub, rights, metrics, partial(check_names, metrics, executor), base.gate.take_metric),
        pages=base.pages,
        monitor=monitor,
        scrape=monitor.scrape,
        links=links,
        sign_in=SignIn(
            base.pages,
            clients,
            base.sessions,
            base.gate,
            CodeFlow(settings.auth, settings.public_url, outbound, base.tokens),
        ),
        alerting=alerts,
        alert_rules=alerts.rules,
        histories=Histories(database, metrics, executor, most=settings.history.results),
        recorder=Recorder(
            database,
            metrics,
            executor,
            results,
            changes=table_changes,
            table_of={each.name: f"{each.schema}.{each.table}" for each in DATASETS},
            most=settings.history.results,
            older_s=settings.history.older_s,
        ),
    )


async def _drafted(compiler: PromptCompiler, prompt: str, fallback: bool) -> Struct:  # noqa: FBT001 (by position)
    draft = await compiler.draft(prompt, fallback=fallback)
    return draft.preview()


def share_key(settings: Settings) -> bytes:
    """What makes the results of two nodes differ, beside the database: version, settings and role."""
    config = settings.database
    role = parameters(config.reader_url or "").get("user", "")
    limits = (config.row_limit, config.result_bytes_limit)
    return msgspec.msgpack.encode((__version__, config.data_schemas, config.time_zone, role, *limits))


async def _holds(sessions: Sessions, links: Links, session: str) -> bool:
    """Whether a session or a signed link, by the `session` of its principal, has not ended."""
    return await (links if session.startswith(SESSION) else sessions).holds(session)
