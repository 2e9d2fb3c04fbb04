"""Complete the OpenAPI document that Litestar generates, and add a path for each metric."""

import re
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from service import errors
from service.auth.guards import scope_of
from service.auth.tokens import SCOPE_TEXTS
from service.errors import InvalidInput, Problem
from service.http.openapi import FORMATS, Object, query
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor, QueryPlan
from service.metrics.models import Metric
from service.sql.parameters import Parameter

MOST_METRICS: Final = 500
"""Metrics that one document describes: each is planned when it is asked for the first time."""

_UNION: Final = ("oneOf", "anyOf")
_RESULT_PATH: Final = "/api/v1/metrics/{metric_id}"
_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}


def complete_document(document: Object, app: Litestar) -> Object:
    """Add problems, examples and headers to each operation, which Litestar does not generate.

    A handler declares them in `opt`: `problems` (classes besides those of every route), `example`, and
    `operation` (parts of an OpenAPI operation).
    """
    document["components"]["schemas"] |= {"ProblemDocument": _PROBLEM_SCHEMA, "TileProblem": _TILE_PROBLEM}
    document["components"]["securitySchemes"] = {"oauth2": _OAUTH2, "bearer": _BEARER}
    document["security"] = []
    for route in app.routes:
        if isinstance(route, HTTPRoute) and (path := document["paths"].get(route.path_format)):
            for handler in route.route_handlers:
                for method in handler.http_methods:
                    if operation := path.get(str(method).lower()):
                        _complete_operation(operation, handler)
    _plain_unions(document)
    _complete_schemas(document["components"]["schemas"])
    for name in _strict_types(app):
        document["components"]["schemas"].get(name, {})["additionalProperties"] = False
    return document


def _strict_types(app: Litestar) -> set[str]:
    """Names of the types that refuse unknown fields, in bodies that handlers take."""
    bodies = {
        field.annotation
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if (field := handler.parsed_data_field) is not None
    }
    known = {
        struct.cls: struct
        for body in bodies
        for struct in _structs(msgspec.inspect.type_info(body), seen=set())
    }
    return {cls.__name__ for cls, struct in known.items() if struct.forbid_unknown_fields}


def _structs(part: Any, seen: set[int]) -> Iterator[msgspec.inspect.StructType]:
    """Each Struct in a type."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, msgspec.inspect.StructType):
        yield part
    if isinstance(part, tuple):
        for each in cast("tuple[Any, ...]", part):
            yield from _structs(each, seen)
    elif isinstance(part, msgspec.Struct):
        for name in part.__struct_fields__:
            yield from _structs(getattr(part, name), seen)


async def add_metrics(document: Object, catalog: Catalog, executor: Executor) -> Object:
    """Add a path for each of the first `MOST_METRICS` metrics, with its own parameters and columns."""
    template: Object = document["paths"][_RESULT_PATH]["get"]
    taken = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    }
    for metric in catalog.page(None, MOST_METRICS - 1):
        try:
            plan = await executor.prepare(metric)
        except Problem as problem:  # it answers this problem too
            operation = _metric_operation(metric, template, taken)
            operation["description"] = f"Now: {problem.detail}"
        else:
            operation = _metric_operation(metric, template, taken)
            _describe(operation, plan)
        document["paths"][f"/api/v1/metrics/{metric.id}"] = {"get": operation}
    return document


def _metric_operation(metric: Metric, template: Object, taken: set[str]) -> Object:
    words = re.findall(r"[A-Za-z0-9]+", metric.shown_title or "")
    name = "get" + "".join(word[:1].upper() + word[1:] for word in words)[:80]
    if name in taken or name == "get":
        name = f"{name}{metric.id.hex.upper()}"
    taken.add(name)
    responses = {status: answer for status, answer in template["responses"].items() if status != "404"}
    return template | {
        "operationId": name,
        "summary": metric.shown_title or f"Metric {metric.id}",
        "parameters": [*FORMATS, template["parameters"][-1]],
        "responses": responses,
    }


def _describe(operation: Object, plan: QueryPlan) -> None:
    """Add the metric's parameters and columns."""
    definition = plan.definition()
    own = [_parameter(each) for each in definition.parameters]
    operation["parameters"] = [*own, *operation["parameters"]]
    row = {
        "type": "object",
        "required": [column.name for column in definition.columns],
        "properties": {
            column.name: _nullable(_JSON.get(column.type, {})) | {"description": column.type}
            for column in definition.columns
        },
    }
    records = {"type": "object", "properties": {"records": {"type": "array", "items": row}}}
    answer = operation["responses"]["200"]
    whole = {"allOf": [{"$ref": "#/components/schemas/Result"}, records]}
    content = answer["content"] | {"application/json": {"schema": whole}}
    operation["responses"] = operation["responses"] | {"200": answer | {"content": content}}


def _parameter(parameter: Parameter) -> Object:
    schema: Object = dict(_JSON.get(parameter.postgres_type) or _JSON.get(parameter.type, {"type": "string"}))
    if parameter.values:
        schema["enum"] = list(parameter.values)
    if parameter.array:
        schema = {"type": "array", "items": schema}
    if parameter.default is not None:
        schema["default"] = parameter.default
    return query(parameter.name, f"Postgres type {parameter.postgres_type or parameter.type}", **schema) | {
        "required": parameter.required
    }


def _nullable(schema: Object) -> Object:
    return schema | {"type": [schema["type"], "null"]} if "type" in schema else schema


def _complete_operation(operation: Object, handler: HTTPRouteHandler) -> None:
    responses = operation["responses"]
    responses.pop("400", None)
    _merge(operation, handler.opt.get("operation", {}))
    if example := handler.opt.get("example"):
        responses[min(responses)]["content"]["application/json"]["example"] = example
    for problem in (InvalidInput, *_gate_problems(handler), *handler.opt.get("problems", ())):
        text = f"{problem.title}: {problem.__doc__}"
        others = responses.get(str(problem.status), {}).get("content", {})
        responses[str(problem.status)] = {"description": text, "content": others | _PROBLEM}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            parameter["schema"] |= _PATH_FORMS.get(parameter["name"], {})
        else:
            parameter["schema"] = _without_null(parameter["schema"])
    scope = scope_of(handler)
    operation["security"] = [{"oauth2": [scope]}, {"bearer": [scope]}] if scope else []
    for answer in responses.values():
        for header in answer.get("headers", {}).values():
            header.setdefault("schema", {"type": "string"})
    if form := handler.opt.get("form"):
        _complete_token_operation(operation, form)


def _merge(into: Object, parts: Object) -> None:
    """Add parts of an operation: lists are joined, objects are merged."""
    for name, part in parts.items():
        if isinstance(part, dict):
            _merge(into.setdefault(name, {}), cast("Object", part))
        elif isinstance(part, list):
            into[name] = [*into.get(name, ()), *cast("list[Any]", part)]
        else:
            into[name] = part


def _plain_unions(part: Any) -> None:
    """Replace unions with one member by the member: Litestar writes them for fields that may be absent."""
    if isinstance(part, list):
        for each in cast("list[Any]", part):
            _plain_unions(each)
    if not isinstance(part, dict):
        return
    schema = cast("Object", part)
    for each in schema.values():
        _plain_unions(each)
    for word in _UNION:
        members: list[Object] = [each for each in schema.get(word, ()) if each]
        if word in schema and len(members) <= 1:
            del schema[word]
            for member in members:
                schema.update(member | schema)  # what the field itself says wins


def _complete_schemas(schemas: Object) -> None:
    """Give types to the fields that hold encoded JSON, and name null beside the words of a closed list."""
    for (name, field), schema in _ENCODED.items():
        schemas[name]["properties"][field] = schema
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            schema["properties"][name] = _words_or_null(field)


def _words_or_null(schema: Object) -> Object:
    """Write a list of words or null as two types: few generators read null among the words."""
    if None not in schema.get("enum", ()):
        return schema
    words = [word for word in schema["enum"] if word is not None]
    rest = {name: part for name, part in schema.items() if name not in ("type", "enum")}
    return {"oneOf": [{"type": "string", "enum": words}, {"type": "null"}], **rest}


def _without_null(schema: Object) -> Object:
    """A query parameter that is not given is absent: text needs no null beside it.

    Beside a list of words null stays, for the text `null` is taken as none of them.
    """
    if None in schema.get("enum", ()):
        return _words_or_null(schema)
    members: list[Object] = [each for each in schema.get("oneOf", ()) if each != {"type": "null"}]
    if len(members) != 1:
        return schema
    return members[0] | {name: part for name, part in schema.items() if name != "oneOf"}


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


def _complete_token_operation(operation: Object, form: dict[str, str]) -> None:
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


_PATH_FORMS: Final[dict[str, Object]] = {
    "metric_id": {"format": "uuid"},
    "row_id": {"format": "uuid"},
    "item_id": {"pattern": "^[0-9]*[1-9][0-9]*$"},
}
"""What ids in paths look like. Handlers take them as text, to refuse them in words of ours."""
_INT32: Final[Object] = {"type": "integer", "format": "int32"}
_INT64: Final[Object] = {"type": "integer", "format": "int64"}
_DECIMAL: Final[Object] = {"type": "number", "format": "decimal"}
_DOUBLE: Final[Object] = {"type": "number", "format": "double"}
_BOOLEAN: Final[Object] = {"type": "boolean"}
_TEXT: Final[Object] = {"type": "string"}
_DATE: Final[Object] = {"type": "string", "format": "date"}
_JSON: Final[dict[str, Object]] = {
    **dict.fromkeys(("smallint", "integer", "int2", "int4"), _INT32),
    **dict.fromkeys(("bigint", "int8"), _INT64),
    **dict.fromkeys(("numeric", "number"), _DECIMAL),
    **dict.fromkeys(("real", "double precision", "float4", "float8"), _DOUBLE),
    **dict.fromkeys(("boolean", "bool"), _BOOLEAN),
    **dict.fromkeys(("text", "character varying", "character", "varchar", "uuid", "interval"), _TEXT),
    "date": _DATE,
}
"""JSON types of Postgres types, by both of their names. Other types have no simple schema."""

_RECORDS: Final[Object] = {"type": "array", "items": {"type": "object", "additionalProperties": {}}}
_ENCODED: Final[dict[tuple[str, str], Object]] = {
    ("Tile", "result"): {"$ref": "#/components/schemas/Result"},
    ("Tile", "problem"): {"$ref": "#/components/schemas/TileProblem"},
    ("Result", "records"): _RECORDS,
    ("DraftAnswer", "records"): _RECORDS,
}
_PROBLEM_SCHEMA: Final[Object] = {
    "type": "object",
    "description": "A problem document (RFC 9457). Its log line has the same `request_id`. `type` is a page.",
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

_TILE_PROBLEM: Final[Object] = _PROBLEM_SCHEMA | {
    "description": "A problem document (RFC 9457) inside the answer of a request that succeeded.",
    "required": ["type", "title", "status", "detail", "code"],
}

_OAUTH2: Final[Object] = {
    "type": "oauth2",
    "description": "A client asks for a token with its id and secret",
    "flows": {"clientCredentials": {"tokenUrl": "/oauth2/token", "scopes": SCOPE_TEXTS}},
}
_BEARER: Final[Object] = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A token that you have: of `tally token`, of this service or of the trusted issuer",
}
