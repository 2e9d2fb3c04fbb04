"""Authenticate callers (`Gate`), authorize them (`allow`), and set the headers for browsers.

Every route says once in its `opt` which scope it needs: `{"scope": "metrics:read"}`, or `{"scope": None}` for
everybody. The gate checks the token before anything else, so an unknown address is 401 too.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from secrets import token_urlsafe
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit
from uuid import UUID

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.routes import BaseRoute
from msgspec import Struct

from service.audit import Actor
from service.auth.limits import Allowance, RateDecision
from service.auth.origins import host_of, is_foreign, is_own, read_host
from service.auth.sessions import Sessions
from service.auth.tokens import EVERYONE, SCOPES, VISITOR, Principal, Tokens
from service.errors import BadRequest, Forbidden, InvalidToken, Problem, TooManyRequests, Unauthorized
from service.http.asgi import App, Headers, Receive, Refuse, Scope, Send, field_of, with_headers
from service.http.current_caller import current_caller
from service.http.ids import metric_of
from service.settings import Settings, is_loopback

Connection = ASGIConnection[Any, Any, Any, Any]
TakeMetric = Callable[[str, UUID], None]
"""Counts a request of a caller, by its subject, for a metric. Raises `TooManyRequests`."""

CHALLENGE: Final = 'Bearer realm="tally"'
WINDOW_S: Final = 60

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ALWAYS: Final = ((b"x-content-type-options", b"nosniff"),)
_VARY_ORIGIN: Final = (b"vary", b"Origin")
_FORWARDED: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
_NO_CHANGES: Final = "AUTH=off takes no changes from pages of other sites: see CORS_ORIGINS"


class Addresses(Struct, frozen=True):
    """Public addresses, which need no token: exact paths, and prefixes of paths with parameters."""

    whole: frozenset[str]
    beginnings: tuple[str, ...]

    def hold(self, path: str) -> bool:
        return (path.rstrip("/") or "/") in self.whole or path.startswith(self.beginnings)


class Limits:
    """Rate limits per minute: per caller, and per caller and metric. 0 means no limit."""

    def __init__(self, per_caller: int, per_metric: int) -> None:
        self._per_caller = Allowance(per_caller, WINDOW_S) if per_caller else None
        self._per_metric = Allowance(per_metric, WINDOW_S) if per_metric else None
        self.any = bool(per_caller or per_metric)

    def take(self, principal: Principal, path: str) -> Headers:
        """Count a request. Return the rate limit headers. Raises `TooManyRequests`."""
        decisions: dict[str, RateDecision] = {}
        if self._per_caller is not None:
            decisions["caller"] = self._per_caller.take(principal.subject)
        if self._per_metric is not None and (metric := metric_of(path)):
            decisions["metric"] = self._per_metric.take((principal.subject, metric))
        if not decisions:
            return []
        policy = ", ".join(f'"{name}";q={each.limit};w={WINDOW_S}' for name, each in decisions.items())
        state = ", ".join(f'"{name}";r={each.remaining};t={each.reset_s}' for name, each in decisions.items())
        headers = {"RateLimit-Policy": policy, "RateLimit": state}
        if wait := max(each.retry_s for each in decisions.values()):
            raise TooManyRequests(headers=headers | {"Retry-After": str(wait)})
        return [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    def take_metric(self, subject: str, metric: UUID) -> None:
        """Count a metric that a message or body names, as if its address had. Raises `TooManyRequests`."""
        if self._per_metric is None:
            return
        wait = self._per_metric.take((subject, metric)).retry_s
        if wait:
            told = f"Too many requests for metric {metric}: wait {wait} s."
            raise TooManyRequests(told, headers={"Retry-After": str(wait)})


class Gate:
    """ASGI layer: puts the caller into `scope["state"]["principal"]`, or answers instead of the app.

    At a public address the caller is None unless the request has a valid token or session. With AUTH=off,
    `tokens` and `sessions` are None and every caller is `EVERYONE`, except pages of other sites. A layer that
    has admitted a caller by a signed link says so in `scope["state"]["admitted"]`. For answers that do not
    pass the layer, `admit`, `take` and `browser_headers` are its parts, and `known` is all of them without
    waiting.
    """

    def __init__(
        self,
        app: App,
        tokens: Tokens | None,
        sessions: Sessions | None,
        *,
        public: Addresses,
        settings: Settings,
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._sessions = sessions
        self._public = public
        self._limits = Limits(*settings.rate_limits)
        public_parts = urlsplit(settings.public_url)
        self._own_hosts = frozenset(filter(None, [public_parts.hostname]))
        self._own_origin = frozenset({f"{public_parts.scheme}://{public_parts.netloc}"})
        port = settings.server.port
        self._usual_hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost", "[::1]")}
        self._origins = frozenset(settings.auth.cors_origins)
        self._refuse = refuse
        self._always: Headers = [*_ALWAYS, *((_VARY_ORIGIN,) if self._origins else ())]
        self._for_origins = {origin.encode(): _cors(origin.encode()) for origin in self._origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = field_of(scope, b"origin")
        extra = [*self.browser_headers(origin)]
        send = with_headers(send, extra)
        if origin in self._for_origins and _is_preflight(scope):
            await _allow_preflight(send, field_of(scope, b"access-control-request-headers"))
            return
        try:
            principal = await self.admit(scope)
            extra += self.take(principal, scope["path"])
        except Problem as problem:
            await self._refuse(scope, send, problem)
            return
        scope["state"]["principal"] = principal
        await self._app(scope, receive, send)

    def browser_headers(self, origin: bytes) -> Headers:
        """Response headers for browsers. Only pages of CORS_ORIGINS may read the response."""
        return self._for_origins.get(origin, self._always)

    def take(self, principal: Principal | None, path: str) -> Headers:
        """Count a request against the rate limits; return their headers. Raises `TooManyRequests`."""
        return self._limits.take(principal, path) if principal is not None and self._limits.any else []

    def take_metric(self, subject: str, metric: UUID) -> None:
        """Count a metric that a request names otherwise than by its path. Raises `TooManyRequests`."""
        self._limits.take_metric(subject, metric)

    def known(self, headers: dict[bytes, bytes], path: str, scope: str) -> Headers | None:
        """The headers for the answer to a caller that `admit` would admit, if that takes no waiting.

        None for callers who only `admit` can admit, and for those it would refuse.
        """
        get = headers.get
        if self._tokens is None:
            if get(b"host") not in self._usual_hosts:
                return None
            principal = EVERYONE
        else:
            given = get(b"authorization", b"")
            found = self._tokens.lookup(given[7:]) if given[:7] == b"Bearer " else None
            if not given and self._sessions is not None and get(b"sec-fetch-site") == b"same-origin":
                found = self._sessions.lookup(get(b"cookie", b""))
            if found is None or scope not in found.scopes or read_host(get(b"host", b"")) is None:
                return None
            principal = found
        extra = self._for_origins.get(get(b"origin", b""), self._always)
        if not self._limits.any:
            return extra
        try:
            return [*extra, *self._limits.take(principal, path)]
        except TooManyRequests:
            return None

    async def admit(self, scope: Any) -> Principal | None:
        """Authenticate the caller, for whom the work of this request is from now on.

        Raises `BadRequest`, `Unauthorized`, `Forbidden` and the problems of its token.
        """
        principal = await self._admitted(scope)
        subject = EVERYONE.subject if principal is None else principal.subject
        if subject != EVERYONE.subject:
            current_caller.set(subject)
        return principal

    async def _admitted(self, scope: Any) -> Principal | None:
        host = host_of(scope)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) > 1:
            raise BadRequest("Two Authorization headers: send one.")
        if admitted := scope["state"].get("admitted"):
            return admitted
        if self._tokens is None:
            return self._page(scope, host)
        token = _bearer(given)
        if self._public.hold(scope["path"]):
            with suppress(Problem):
                return await (self._tokens.verify(token) if token else self.session(scope))
            return None
        if token is None:
            principal = None if given else await self.session(scope)
            if principal is None:
                raise Unauthorized(headers={"WWW-Authenticate": CHALLENGE})
            return principal
        try:
            return await self._tokens.verify(token)
        except InvalidToken as invalid:
            challenge = f'{CHALLENGE}, error="invalid_token", error_description="{_quoted(str(invalid))}"'
            raise InvalidToken(str(invalid), headers={"WWW-Authenticate": challenge}) from None

    def refuse_other_sites(self, scope: Any) -> None:
        """Raises `Forbidden` for a form that no page of ours has sent."""
        if not is_own(scope, host_of(scope), self._own_origin):
            raise Forbidden("This takes forms of our own pages only: the request has no `Origin` of ours.")

    def refuse_foreign(self, scope: Any) -> None:
        """Raises `Forbidden` for a request of another site's page, whatever credential it shows."""
        if is_foreign(scope, host_of(scope), self._own_origin | self._origins):
            raise Forbidden("Pages of other sites may not call this: see CORS_ORIGINS.")

    @staticmethod
    def check_host(scope: Any) -> None:
        """Raises `BadRequest`. Callers without an Authorization header are admitted elsewhere."""
        host_of(scope)

    async def session(self, scope: Any) -> Principal | None:
        """The caller whose session's cookie a request of our own pages shows.

        The browser says which page sent a request. The cookie of a request that another site sent is ignored.
        Raises `Forbidden` for a change that our own page has not sent.
        """
        cookies = field_of(scope, b"cookie") if self._sessions is not None else b""
        if not cookies or is_foreign(scope, host_of(scope), self._own_origin):
            return None
        assert self._sessions is not None
        principal = await self._sessions.find(cookies)
        reads = scope["type"] == "http" and scope["method"] in _SAFE_METHODS
        if principal is not None and not reads and not is_own(scope, host_of(scope), self._own_origin):
            raise Forbidden("A session changes things from our own pages only: the request has no `Origin`.")
        return principal

    def _page(self, scope: Scope, host: bytes) -> Principal:
        """The caller with AUTH=off. A page of another site in the same browser may only read.

        A foreign name that resolves to this machine (DNS rebinding) shows in `Host`.
        """
        name = read_host(host) or "localhost"
        if not (is_loopback(name) or name in self._own_hosts):
            raise Forbidden(f"AUTH=off answers on loopback names only, not on {name[:100]!r}: set AUTH=on")
        if not is_foreign(scope, host, self._origins):
            return EVERYONE
        if scope["type"] != "http" or scope["method"] not in _SAFE_METHODS:
            raise Forbidden(_NO_CHANGES)
        return VISITOR


def _cors(origin: bytes) -> Headers:
    exposed = (
        "ETag, Age, Cache-Status, Content-Disposition, Link, Location, RateLimit, RateLimit-Policy, "
        "Retry-After, Tally-Truncated, X-Request-ID"
    )
    allowed = (b"access-control-allow-origin", origin)
    return [*_ALWAYS, allowed, (b"access-control-expose-headers", exposed.encode()), _VARY_ORIGIN]


def _is_preflight(scope: Any) -> bool:
    asked = field_of(scope, b"access-control-request-method")
    return scope["type"] == "http" and scope["method"] == "OPTIONS" and bool(asked)


async def _allow_preflight(send: Send, asked: bytes) -> None:
    answer = [
        (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def allow(connection: Connection, handler: BaseRouteHandler) -> None:
    """Guard of the whole app: 403 without the route's scope, before path parameters or body are read."""
    if connection.scope["type"] == "http" and connection.scope["method"] == "OPTIONS":
        return
    scope = scope_of(handler)
    if scope is not None and not (handler.opt.get("loopback") and _comes_from_here(connection)):
        require(connection.scope["state"].get("principal"), scope)


def require(principal: Principal | None, scope: str) -> Principal:
    """The caller, who has this scope. Raises `Unauthorized` or `Forbidden`."""
    if principal is None:
        raise Unauthorized(headers={"WWW-Authenticate": CHALLENGE})
    if scope not in principal.scopes:
        if principal is VISITOR:
            raise Forbidden(_NO_CHANGES)
        challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
        raise Forbidden(f"This needs the scope {scope}.", headers={"WWW-Authenticate": challenge})
    return principal


def scope_of(handler: BaseRouteHandler) -> str | None:
    """The scope of a route. Raises `LookupError` if the route states none."""
    scope = handler.opt.get("scope", "")
    if scope is not None and scope not in SCOPES:
        raise LookupError(f"{handler}: opt['scope'] is {scope!r}; it has to be one of SCOPES, or None")
    return scope


def public_addresses(routes: Iterable[BaseRoute]) -> Addresses:
    """The addresses of routes that need no token."""
    public = {
        route.path_format
        for route in routes
        for handler in stated_handlers(route)
        if scope_of(handler) is None or handler.opt.get("loopback")
    }
    beginnings = tuple(sorted(path.split("{")[0] for path in public if "{" in path))
    return Addresses(frozenset(path for path in public if "{" not in path), beginnings)


def stated_handlers(route: BaseRoute) -> list[BaseRouteHandler]:
    """A route's handlers without the framework's handler of OPTIONS."""
    found = cast("Any", route)
    handlers: list[BaseRouteHandler] = getattr(found, "route_handlers", None) or [found.route_handler]
    return [handler for handler in handlers if getattr(handler, "http_methods", None) != {"OPTIONS"}]


def caller(scope: Any) -> Principal:
    """The caller of a route that needs a scope."""
    return scope["state"]["principal"]


def actor(scope: Any) -> Actor:
    """The actor that the audit log records for this call."""
    return Actor(caller(scope).subject, scope["state"].get("request_id"))


def page_headers(*, connect: Literal["'self'", "'none'"] = "'self'") -> tuple[str, dict[str, str]]:
    """A nonce for the page's scripts and styles, and the headers that block all others."""
    nonce = token_urlsafe(16)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; "
        f"img-src 'self' data:; font-src 'self'; connect-src {connect}; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return nonce, {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
    }


def _bearer(given: list[bytes]) -> bytes | None:
    """The bearer token, if there is exactly one Authorization header with one."""
    if len(given) != 1 or given[0][:7].lower() != b"bearer ":
        return None
    return given[0][7:].strip(b" ") or None


def _comes_from_here(connection: Connection) -> bool:
    """Whether a program on this machine calls for itself.

    A local proxy forwards calls of others and adds headers. A page of another site in a local browser may
    call by a foreign name that resolves to this machine.
    """
    scope = cast("Any", connection.scope)
    if connection.client is None or not is_loopback(connection.client.host.removeprefix("::ffff:")):
        return False
    if not _FORWARDED.isdisjoint(name for name, _ in scope["headers"]):
        return False
    host = field_of(scope, b"host")
    return is_loopback(read_host(host) or "") and not is_foreign(scope, host, frozenset())


def _quoted(text: str) -> str:
    """Escape text for a quoted string in a header."""
    return re.sub(r'[^\x20-\x7e]|["\\]', "'", text)
