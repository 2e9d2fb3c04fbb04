"""Build the app: its routes, its ASGI layers, and the parts that are injected into the controllers."""

import time
from typing import Any, Final, cast

from litestar import Litestar
from litestar.types import ASGIApp

from service.app.routes import routed
from service.app.services import Base, Services
from service.auth.clients import Client as KnownClient
from service.auth.guards import Gate, public_addresses
from service.auth.issuer import Issuer, KeyFile
from service.auth.keys import oidc_trust
from service.auth.sessions import Sessions, cookie_for
from service.auth.tokens import Tokens
from service.connect.mcp.endpoint import McpEndpoint
from service.dashboard.assets import Assets
from service.dashboard.error_pages import ErrorPages
from service.dashboard.links.layer import LinkRoutes
from service.dashboard.links.signing import Signer
from service.dashboard.pages import Pages
from service.database.breaker import Breaker, same_server
from service.database.listen import Listener
from service.database.stored_sql.limiter import GRACE_S, QUEUE_WAIT_S
from service.errors import DatabaseUnavailable, Stop
from service.http.asgi import App
from service.http.client_address import Proxies
from service.http.connections import Client, RequestBounds
from service.http.disconnect import DisconnectMiddleware
from service.http.lifecycle import Lifecycle
from service.http.problems import ErrorMiddleware, send_problem
from service.http.representation import RepresentationMiddleware
from service.http.request_log import RequestLog
from service.live.sockets import Sockets
from service.live.streams import EventStreams
from service.metrics.result_endpoint import READ, ResultEndpoint
from service.observe.events import Observe, both
from service.observe.log import EventLog
from service.observe.prometheus import Prometheus
from service.observe.trace import traces
from service.results.cache import Results
from service.results.cache_hits import CacheHitMiddleware, RequestIndex
from service.results.freshness import Generations
from service.results.sharing import Sharing
from service.results.store import open_store
from service.results.table import ResultTable
from service.settings import Settings

KEYS_DEADLINE_S: Final = 3.0  # a caller may wait for the key

__all__ = ["base_of", "configured", "create_app", "drain", "layered", "routed"]


def create_app(settings: Settings, prometheus: Prometheus | None = None, *, alerts: bool = True) -> Litestar:
    """Build the app. It opens nothing before its lifespan. Raises `Stop` without database addresses.

    Without `alerts` it evaluates no rules and sends nothing: for commands, which soon end.
    """
    return configured(routed(), settings, prometheus=prometheus, alerts=alerts)


def configured(
    app: Litestar,
    settings: Settings,
    observe: Observe | None = None,
    prometheus: Prometheus | None = None,
    *,
    alerts: bool = True,
) -> Litestar:
    """Configure the routes. The app can be configured again while its lifespan is closed.

    `observe` receives all events. By default they are logged. `prometheus` counts them: by default for this
    process alone.
    """
    config = settings.database
    if config.url is None or config.reader_url is None:
        raise Stop("DATABASE_URL and READER_DATABASE_URL are both needed to serve", exit_code=2)
    prometheus = prometheus or Prometheus()
    spans = traces(settings.traces)
    prometheus.link_traces(spans.current)
    observe = both(observe or EventLog(), prometheus)
    direct = config.direct_url or ""
    primary = reader_server = Breaker("primary", direct, observe)
    if not same_server(direct, config.reader_url):
        reader_server = Breaker("reader", config.reader_url, observe, is_primary=False)
    listener = Listener(direct, primary)
    generations = Generations(observe)
    redis_url = settings.nodes.redis_url
    sharing = (
        None if redis_url is None else Sharing(open_store(redis_url, observe), generations, time.monotonic)
    )
    results = Results(
        generations,
        ResultTable(settings.results.cache_bytes),
        time.monotonic,
        wait_s=config.statement_timeout_ms / 1000 + QUEUE_WAIT_S + GRACE_S,
        stale_if_error_s=settings.results.stale_if_error_s,
        unread=listener.unread,
        observe=observe,
        sharing=sharing,
        traces=spans,
    )
    issuer, tokens = _issuers(app, settings, observe)
    sessions = _sessions(app, settings, issuer)
    gate = _guard(app, settings, tokens, sessions)
    base = Base(
        settings=settings,
        observe=observe,
        lifecycle=Lifecycle(),
        primary=primary,
        reader_server=reader_server,
        listener=listener,
        results=results,
        sharing=sharing,
        request_index=RequestIndex(results),
        issuer=issuer,
        tokens=tokens,
        sessions=sessions,
        gate=gate,
        pages=Pages(
            Assets(),
            auth=settings.auth.mode == "on",
            zone=config.zone,
            embed_origins=settings.pages.embed_origins,
        ),
        signer=_signer(settings),
        prometheus=prometheus,
        traces=spans,
        alerts=alerts,
    )
    app.state.update({"base": base, "services": None})
    return app


def _issuers(app: Litestar, settings: Settings, observe: Observe) -> tuple[Issuer, Tokens]:
    """Our own issuer, and all issuers whose tokens are accepted."""
    auth = settings.auth
    issuer = Issuer(settings.public_url, KeyFile(settings.database.data_dir))
    trusted = [issuer.trust()]
    if auth.oidc_issuer is not None:

        async def fetch_json(url: str) -> Any:
            services: Services = app.state.services
            return await services.outbound.get_json(url, dict[str, Any], deadline_s=KEYS_DEADLINE_S)

        trusted.append(
            oidc_trust(auth.oidc_issuer, auth.oidc_audience, auth.oidc_jwks_url, fetch_json, observe)
        )
    return issuer, Tokens(trusted)


def _sessions(app: Litestar, settings: Settings, issuer: Issuer) -> Sessions:
    cookie = cookie_for(settings.public_url, settings.server.port, settings.pages.session_ttl_s)

    async def find_client(client_id: str) -> KnownClient | None:
        return await _services(app).clients.find(client_id)

    return Sessions(cookie, issuer.name, lambda: _services(app).database, find_client)


def _signer(settings: Settings) -> Signer:
    """The key of links. One that is set has to be usable, the other is made for the first link."""
    given = settings.pages.link_secret_file
    signer = Signer(given or settings.database.data_dir / "links.key")
    if given is not None:
        signer.load()
    return signer


def _guard(app: Litestar, settings: Settings, tokens: Tokens, sessions: Sessions) -> Gate:
    """Put the gate before the router, so that unknown paths require a token too."""
    on = settings.auth.mode == "on"
    gate = Gate(
        app.state.setdefault("router", app.asgi_handler),
        tokens if on else None,
        sessions if on else None,
        public=public_addresses(app.routes),
        settings=settings,
        refuse=send_problem,
    )
    app.asgi_handler = cast("ASGIApp", gate)
    return gate


def layered(app: Litestar, running: set[Client] | None = None) -> App:
    """Wrap the app in its ASGI layers, the innermost first, as the server runs it.

    `CacheHitMiddleware` is outside the request log, so hits are logged as counts. `running` receives the
    clients whose requests run.
    """
    base = base_of(app)
    error_pages = ErrorPages(cast("App", app), base.pages)
    refuse = error_pages.refusing(send_problem)
    layers: App = RepresentationMiddleware(error_pages)
    layers = McpEndpoint(layers, base.gate, lambda: _services(app).mcp, refuse)
    layers = EventStreams(layers, base.gate, lambda: _services(app).streams, refuse)
    layers = ResultEndpoint(layers, base.gate, lambda: _services(app).result_service, refuse)
    layers = DisconnectMiddleware(layers)
    layers = Sockets(layers, base.gate, lambda: _services(app).streams, send_problem)
    layers = LinkRoutes(layers, lambda: _services(app).links, refuse)
    layers = ErrorMiddleware(layers)
    layers = RequestLog(layers, base.observe, base.traces, Proxies(base.settings.server.trusted_proxies))
    layers = RequestBounds(
        layers, set[Client]() if running is None else running, base.settings.server.body_timeout_s
    )
    hits = CacheHitMiddleware(
        layers, base.request_index, base.results, base.gate, need=READ, observe=base.observe
    )
    base.prometheus.before_publishing(hits.tell_hits)
    return hits


def _services(app: Litestar) -> Services:
    services: Services | None = app.state.services
    if services is None:  # the lifespan has not begun, or is over
        raise DatabaseUnavailable(headers={"Retry-After": "2"})
    return services


def base_of(app: Litestar) -> Base:
    """The parts that are there before the lifespan begins."""
    return app.state.base


def drain(app: Litestar) -> list[Client]:
    """Tell all live connections to go elsewhere. Returns the clients of those that have not ended."""
    services: Services | None = app.state.services
    return [] if services is None else services.streams.hub.drain()
