"""The pages over HTTP, and the files that they load."""

from typing import Any, Final, cast
from urllib.parse import urlencode

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from service import errors
from service.auth.guards import require
from service.auth.origins import host_of, is_foreign
from service.auth.tokens import Principal
from service.dashboard.pages import HTML, Pages, headers, new_nonce, prefers_html
from service.dashboard.sign_in import local_address
from service.dashboard.view import dashboard_page, form_page, list_dashboards
from service.http.asgi import header_of
from service.http.requests import Call, unknown_parameters
from service.metrics.catalog import DEFAULT_DASHBOARD, Catalog
from service.metrics.result_endpoint import READ

PagesOf = NamedDependency[Pages]
Catalogue = NamedDependency[Catalog]

PUBLIC: Final[dict[str, Any]] = {"scope": None}
PAGE: Final[dict[str, Any]] = {"scope": None, "free_query": True}
"""Pages are public routes: they send a caller who has no rights to the sign-in."""

PROMPT_LENGTH_LIMIT: Final = 2000
"""Characters of a question that the page Ask takes from its address."""

ALERTS: Final = "alerts:read"
_KINDS: Final = errors.problems_by_code()


class Welcome(Struct, frozen=True):
    message: str
    docs: str
    health: str


WELCOME: Final = Welcome("Tally: stored SQL as JSON metrics", "/docs", "/health")


@get("/", summary="The default dashboard, or links", include_in_schema=False, sync_to_thread=False, opt=PAGE)
def root(request: Call, pages: PagesOf, catalog: Catalogue) -> Response[Any]:
    if not prefers_html(header_of(request.scope, b"accept")):
        if wrong := unknown_parameters(request.query_params):
            raise errors.InvalidInput(errors=wrong)
        return Response(WELCOME, headers={"Vary": "Accept"})
    return _dashboard(request, pages, catalog, DEFAULT_DASHBOARD)


@get("/d", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def all_dashboards(request: Call, pages: PagesOf, catalog: Catalogue) -> Response[Any]:
    principal = caller(request)
    if principal is None:
        return to_sign_in(request, pages)
    require(principal, READ)
    listed, more = list_dashboards(catalog)
    return _html(pages.render("dashboards.html", principal=principal, dashboards=listed, more=more))


@get("/d/{dashboard_id:str}", include_in_schema=False, sync_to_thread=False, opt=PAGE)
def dashboard(
    dashboard_id: FromPath[str], request: Call, pages: PagesOf, catalog: Catalogue
) -> Response[Any]:
    return _dashboard(request, pages, catalog, dashboard_id)


@get("/ask", include_in_schema=False, sync_to_thread=False, opt=PAGE)
def ask(request: Call, pages: PagesOf, catalog: Catalogue) -> Response[Any]:
    question = request.query_params.get("q", "")[:PROMPT_LENGTH_LIMIT]
    return _form(request, pages, catalog, "ask.html", "metrics:write", question=question)


@get("/data", include_in_schema=False, sync_to_thread=False, opt=PAGE)
def data(request: Call, pages: PagesOf, catalog: Catalogue) -> Response[Any]:
    return _form(request, pages, catalog, "data.html", "imports:write")


@get("/alerts", include_in_schema=False, sync_to_thread=False, opt=PAGE)
def alerts(request: Call, pages: PagesOf) -> Response[Any]:
    """Open alerts, rules and charts. Its script asks the API for all of them."""
    principal = caller(request)
    if principal is None:
        return to_sign_in(request, pages)
    require(principal, ALERTS)
    return _html(pages.render("alerts.html", principal=principal))


@get("/problems/{code:str}", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def problem_page(code: FromPath[str], request: Call, pages: PagesOf) -> Response[str]:
    """The page that the `type` of a problem document names."""
    kind = _KINDS.get(code)
    if kind is None:
        raise errors.NotFound(f"There is no problem {code[:60]!r}; there are: {', '.join(sorted(_KINDS))}.")
    meaning = kind.__doc__ or ""
    return _html(pages.render("about_problem.html", principal=caller(request), problem=kind, meaning=meaning))


@get("/static/{version:str}/{name:path}", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def static_file(
    version: FromPath[str], name: FromPath[str], request: Call, pages: PagesOf
) -> Response[bytes]:
    accepted = header_of(request.scope, b"accept-encoding")
    found = pages.assets.find(version, str(name).removeprefix("/"), accepted)
    if found is None:
        raise errors.NotFound
    body, media_type, fields = found
    return Response(body, media_type=media_type, headers=fields)


def routes() -> list[ControllerRouterHandler]:
    return [root, all_dashboards, dashboard, ask, data, alerts, problem_page, static_file]


def caller(request: Call) -> Principal | None:
    return cast("Any", request.scope)["state"].get("principal")


def _dashboard(request: Call, pages: Pages, catalog: Catalog, dashboard_id: str) -> Response[Any]:
    principal = caller(request)
    if principal is None:
        return to_sign_in(request, pages)
    require(principal, READ)
    nonce = new_nonce()
    query = request.scope["query_string"].decode("latin-1")
    page = dashboard_page(pages, catalog, dashboard_id, query, principal)
    return _html(pages.render("dashboard.html", principal=principal, nonce=nonce, **page), nonce)


def _form(
    request: Call, pages: Pages, catalog: Catalog, template: str, scope: str, **more: Any
) -> Response[Any]:
    principal = caller(request)
    if principal is None:
        return to_sign_in(request, pages)
    require(principal, scope)
    page = form_page(catalog, principal)
    return _html(pages.render(template, principal=principal, page=page, **more))


def to_sign_in(request: Call, pages: Pages) -> Response[Any]:
    """Send the caller to the sign-in, and from there back.

    A browser that follows a link of another site keeps the session's cookie back. It may be signed in: it is
    sent here once more, by our own page.
    """
    query = request.scope["query_string"].decode("latin-1")
    here = local_address(request.scope["path"] + (f"?{query}" if query else ""))
    if is_foreign(request.scope, host_of(request.scope), frozenset()):
        return _html(pages.render("onward.html", title="One moment", following=here))
    return Redirect(f"/sign-in?{urlencode({'next': here})}", status_code=303, headers=headers())


def _html(body: str, nonce: str | None = None) -> Response[str]:
    return Response(body, media_type=HTML, headers=headers(nonce=nonce))
