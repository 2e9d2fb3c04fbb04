"""The service's own routes: health, and the OpenAPI document with its pages."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Annotated, Any, Final

from litestar import Controller, MediaType, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from service import errors
from service.auth.guards import page_headers, require
from service.auth.tokens import Principal
from service.http import bodies
from service.http.asgi import header_of
from service.http.requests import Call
from service.http.scrapes import Scraped
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.openapi import add_metrics, complete_document

SWAGGER_UI: Final = files("swagger_ui") / "static"

PUBLIC: Final[dict[str, Any]] = {"scope": None}
_HEALTH: Final = {"schema": {"$ref": "#/components/schemas/Health"}}
_UNREADY: Final = {
    "responses": {"503": {"description": "Not ready", "content": {"application/json": _HEALTH}}}
}


class Health(Struct, frozen=True):
    status: str
    checks: dict[str, str]


Scrape = Callable[[str], Awaitable[Scraped]]
"""Gives the metrics of the service in the format that an `Accept` asks for."""

CheckHealth = Callable[[], Awaitable[Health]]
"""Runs all checks. The status is `ok` if the service is ready."""


class HealthController(Controller):
    path = "/health"
    tags = ("service",)
    opt = PUBLIC

    @get(
        "/",
        operation_id="getHealth",
        summary="Readiness with the result of each check",
        opt={"operation": _UNREADY},
    )
    async def health(self, request: Call, check_health: NamedDependency[CheckHealth]) -> Response[Health]:
        return _shown(await check_health(), request)

    @get("/live", operation_id="getLiveness", summary="Liveness of the process", sync_to_thread=False)
    def live(self) -> Health:
        return Health("ok", {})

    @get(
        "/ready",
        operation_id="getReadiness",
        summary="Readiness: migrated, and stored SQL can run",
        opt={"operation": _UNREADY},
    )
    async def ready(self, request: Call, check_health: NamedDependency[CheckHealth]) -> Response[Health]:
        return _shown(await check_health(), request)


def _shown(health: Health, request: Call) -> Response[Health]:
    """Only administrators see details: others learn nothing of what is behind the service."""
    status_code = 200 if health.status == "ok" else 503
    principal: Principal | None = request.scope["state"].get("principal")
    if principal is None or "admin" not in principal.scopes:
        checks = {name: check if check == "ok" else "failed" for name, check in health.checks.items()}
        health = Health(health.status, checks)
    return Response(health, status_code=status_code)


@get("/openapi.json", include_in_schema=False, opt=PUBLIC)
async def openapi_document(
    request: Call,
    catalog: NamedDependency[Catalog],
    executor: NamedDependency[Executor],
    *,
    metrics: Annotated[bool, QueryParameter(description="add each metric as a path of its own")] = False,
) -> Response[bytes]:
    document = complete_document(request.app.openapi_schema.to_schema(), request.app)
    if metrics:
        require(request.scope["state"].get("principal"), "metrics:read")
        document = await add_metrics(document, catalog, executor)
    return Response(bodies.encode(document), media_type="application/json")


_DOCS_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tally: API</title>
<link rel="stylesheet" nonce="{nonce}" href="/docs/assets/swagger-ui.css">
<link rel="icon" href="/docs/assets/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script nonce="{nonce}" src="/docs/assets/swagger-ui-bundle.js"></script>
<script nonce="{nonce}" src="/docs/assets/start.js"></script>
</body>
</html>
"""
_DOCS_START: Final = (
    'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});'
)
_DOCS_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


@get("/docs", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def docs_page() -> Response[str]:
    nonce, headers = page_headers()
    return Response(_DOCS_PAGE.format(nonce=nonce), media_type=MediaType.HTML, headers=headers)


@get("/redoc", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def redoc_page() -> Redirect:
    _, headers = page_headers()
    return Redirect("/docs", headers=headers)


@get("/docs/assets/{name:str}", include_in_schema=False, sync_to_thread=True, opt=PUBLIC)
def docs_asset(name: FromPath[str]) -> Response[bytes]:
    if name == "start.js":
        return Response(_DOCS_START.encode(), media_type="text/javascript")
    if name not in _DOCS_ASSETS:
        raise errors.NotFound
    content = (SWAGGER_UI / name).read_bytes()
    return Response(
        content, media_type=_DOCS_ASSETS[name], headers={"Cache-Control": "public, max-age=86400"}
    )


@get("/internal/prometheus", include_in_schema=False, opt={"scope": "admin", "loopback": True})
async def prometheus(request: Call, scrape: NamedDependency[Scrape]) -> Response[str]:
    """Metrics of the service itself, for callers on this machine and for those with the scope `admin`."""
    scraped = await scrape(header_of(request.scope, b"accept"))
    return Response(
        scraped.text,
        headers={"Content-Type": scraped.media_type, "Cache-Control": "no-store", "Vary": "Accept"},
    )


def own_routes() -> list[ControllerRouterHandler]:
    return [openapi_document, docs_page, redoc_page, docs_asset, prometheus]
