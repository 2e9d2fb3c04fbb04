"""The service's own routes: root, health, and the OpenAPI document with its pages."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

import msgspec
from litestar import Controller, Litestar, MediaType, Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from service import errors
from service.auth.guards import page_headers, scope_of
from service.auth.tokens import SCOPE_TEXTS
from service.database.gateway import Database
from service.database.migrate import pending
from service.errors import InvalidInput, Problem

SWAGGER_UI: Final = files("swagger_ui") / "static"

PUBLIC: Final[dict[str, Any]] = {"scope": None}


class Health(Struct, frozen=True):
    status: str
    checks: dict[str, str]


class Welcome(Struct, frozen=True):
    message: str
    docs: str
    health: str


ExtraChecks = Callable[[], dict[str, str]]
"""Returns further checks for the operator. They do not affect readiness."""


class HealthController(Controller):
    path = "/health"
    tags = ("service",)
    opt = PUBLIC

    @get("/", summary="Readiness with the result of each check")
    async def health(
        self, database: NamedDependency[Database], extra_checks: NamedDependency[ExtraChecks]
    ) -> Response[Health]:
        return await self._ready(database, extra_checks)

    @get("/live", summary="Liveness of the process", sync_to_thread=False)
    def live(self) -> Health:
        return Health("ok", {})

    @get("/ready", summary="Readiness: the database answers and is migrated")
    async def ready(
        self, database: NamedDependency[Database], extra_checks: NamedDependency[ExtraChecks]
    ) -> Response[Health]:
        return await self._ready(database, extra_checks)

    async def _ready(self, database: Database, extra_checks: ExtraChecks) -> Response[Health]:
        try:
            missing = await pending(database)
            checks = {"database": "ok", "migrations": f"missing: {', '.join(missing)}" if missing else "ok"}
        except errors.DatabaseUnavailable:
            checks = {"database": "unreachable", "migrations": "unknown"}
        ready = all(check == "ok" for check in checks.values())
        health = Health("ok" if ready else "unavailable", checks | extra_checks())
        return Response(health, status_code=200 if ready else 503)


@get("/", summary="Name of the service and links", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def welcome() -> Welcome:
    return Welcome("Tally: stored SQL as JSON metrics", "/docs", "/health")


@get("/openapi.json", include_in_schema=False, sync_to_thread=False, opt=PUBLIC)
def openapi_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    document = complete_document(request.app.openapi_schema.to_schema(), request.app)
    return Response(msgspec.json.encode(document), media_type="application/json")


def complete_document(document: dict[str, Any], app: Litestar) -> dict[str, Any]:
    """Add problems and an example to each operation, which Litestar does not generate.

    A handler declares them in `opt`: `problems` (classes besides those of every route) and `example`.
    """
    document["components"]["schemas"]["ProblemDocument"] = _PROBLEM_SCHEMA
    document["components"]["securitySchemes"] = {"oauth2": _SECURITY}
    for route in app.routes:
        if isinstance(route, HTTPRoute) and (path := document["paths"].get(route.path_format)):
            for handler in route.route_handlers:
                for method in handler.http_methods:
                    if operation := path.get(str(method).lower()):
                        _complete_operation(operation, handler)
    return document


def _complete_operation(operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    responses = operation["responses"]
    responses.pop("400", None)
    if example := handler.opt.get("example"):
        responses[min(responses)]["content"]["application/json"]["example"] = example
    for problem in (InvalidInput, *_gate_problems(handler), *handler.opt.get("problems", ())):
        text = f"{problem.title}: {problem.__doc__}"
        responses[str(problem.status)] = {"description": text, "content": content}
    scope = scope_of(handler)
    operation["security"] = [{"oauth2": [scope]}] if scope else []
    if form := handler.opt.get("form"):
        _complete_token_operation(operation, form)


def _gate_problems(handler: HTTPRouteHandler) -> tuple[type[Problem], ...]:
    if scope_of(handler) is None:
        return (errors.BadRequest,)
    return (
        errors.BadRequest,
        errors.Unauthorized,
        errors.Forbidden,
        errors.TooManyRequests,
        errors.IssuerUnavailable,
    )


def _complete_token_operation(operation: dict[str, Any], form: dict[str, str]) -> None:
    """The token endpoint takes a form and has its own error format (RFC 6749)."""
    fields = (*form, "client_id", "client_secret")
    schema = {
        "type": "object",
        "required": ["grant_type"],
        "properties": {name: {"type": "string"} for name in fields},
    }
    media = {"application/x-www-form-urlencoded": {"schema": schema, "example": form}}
    operation["requestBody"] = {"required": True, "content": media}
    refusal = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("error", "error_description")},
    }
    operation["responses"].pop("422")
    for problem in (errors.TokenProblem, errors.ClientRefused, errors.ClientFailures):
        text = f"{problem.title}: {problem.__doc__}"
        content = {"application/json": {"schema": refusal}}
        operation["responses"][str(problem.status)] = {"description": text, "content": content}


_PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A problem document (RFC 9457). Its log line has the same `request_id`.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        **{
            name: {"type": "string"} for name in ("type", "title", "detail", "instance", "code", "request_id")
        },
        "status": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


_SECURITY: Final[dict[str, Any]] = {
    "type": "oauth2",
    "description": "A bearer token of this service or of the trusted issuer",
    "flows": {"clientCredentials": {"tokenUrl": "/oauth2/token", "scopes": SCOPE_TEXTS}},
}

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


def own_routes() -> list[ControllerRouterHandler]:
    return [welcome, openapi_document, docs_page, redoc_page, docs_asset]
