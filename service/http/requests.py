"""Validate the query parameters and the body of a request before its handler runs; write exact responses."""

import re
from collections.abc import Collection, Iterable
from typing import Any, Final, TypeVar

from litestar import Request, Response
from litestar.enums import HttpMethod, RequestEncodingType
from litestar.exceptions import InternalServerException
from litestar.handlers import HTTPRouteHandler
from litestar.params import BodyKwarg, QueryParameter
from litestar.routes import HTTPRoute
from litestar.serialization import default_serializer
from litestar.types import Empty, Serializer
from litestar.typing import FieldDefinition

from service import errors
from service.errors import FieldError, InvalidInput
from service.http import bodies

_INTEGER: Final = re.compile("-?[0-9]{1,30}")
_SHOWN: Final = 60  # characters of a wrong value that an error repeats
T = TypeVar("T")
Call = Request[Any, Any, Any]
"""A request as handlers get it."""


class ReadRequest(Call):
    """Decodes the JSON body once, as the type of the handler's `data`. The framework would round numbers."""

    async def json(self) -> Any:
        if self._json is Empty:
            field = self.route_handler.parsed_data_field
            self._json = bodies.decode(await self.body(), field.annotation if field else Any)
        return self._json


class Exact(Response[T]):
    """A JSON response that writes Decimals as numbers with all their digits. The framework writes texts."""

    def render(self, content: Any, media_type: str, enc_hook: Serializer = default_serializer) -> bytes:
        if content is None or isinstance(content, bytes) or not media_type.partition(";")[0].endswith("json"):
            return super().render(content, media_type, enc_hook)
        return bodies.encode(content)


async def refuse_bad_input(request: Call) -> Response[None] | None:
    """Validate parameters and body before the framework, whose parser is laxer and has poorer errors.

    OPTIONS is answered here: the framework would name the methods of the first handler of a path alone.
    """
    if request.method == HttpMethod.OPTIONS:
        return Response(None, status_code=204, headers={"Allow": _allowed(request)})
    refuse_unknown_parameters(request)
    await refuse_bad_body(request)
    return None


def _allowed(request: Call) -> str:
    path = request.scope["path_template"]
    found = (route for route in request.app.routes if isinstance(route, HTTPRoute))
    methods = {str(method) for route in found if route.path_format == path for method in route.methods}
    return ", ".join(sorted(methods))


async def refuse_bad_body(request: Call) -> None:
    """Raise 415 or 422 if the body is not JSON of the type of the handler's `data`."""
    handler = request.route_handler
    field = handler.parsed_data_field
    takes = field.kwarg_definition if field else None
    if field is None or not isinstance(takes, BodyKwarg) or takes.media_type != RequestEncodingType.JSON:
        return
    media_type, _ = request.content_type
    if media_type and media_type != "application/json" and not media_type.endswith("+json"):
        raise errors.UnsupportedMediaType(f"Send application/json, not {media_type[:60]}.")
    try:
        await request.json()
    except InternalServerException:  # Litestar raises this when the client disconnects within the body
        raise errors.BadRequest("The connection ended within the body.") from None


def refuse_unknown_parameters(request: Call) -> None:
    """Raise 422 for a query parameter that is unknown, is no list and given more than once, or no integer."""
    if not request.scope["query_string"]:
        return
    handler = request.route_handler
    if handler.opt.get("free_query"):
        return
    known = query_parameters(handler)
    given = [name for name, _ in request.query_params.multi_items()]
    wrong = [
        *unknown_parameters(given, known),
        *(
            FieldError(name, "given more than once")
            for name in sorted(set(given))
            if given.count(name) > 1 and not known.get(name)
        ),
        *(
            FieldError(name, f"{text[:_SHOWN]!r} is not an integer")
            for name, text in request.query_params.multi_items()
            if name in known and _takes_integers(handler, name) and not _INTEGER.fullmatch(text)
        ),
    ]
    if wrong:
        raise InvalidInput(errors=tuple(wrong))


def unknown_parameters(given: Iterable[str], known: Collection[str] = ()) -> tuple[FieldError, ...]:
    """The errors of query parameters that an address does not know."""
    takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
    return tuple(FieldError(name, f"unknown query parameter; {takes}") for name in given if name not in known)


def _takes_integers(handler: Any, name: str) -> bool:
    """Whether the framework would make an integer of the parameter. It would take `1e1` for 10."""
    field = _query_fields(handler)[name]
    return int in {field.annotation, *(each.annotation for each in field.inner_types)}


def given_once(request: Call) -> dict[str, str]:
    """The parameters of metrics in a request. Raises `InvalidInput` for one that is repeated."""
    pairs = list(request.query_params.multi_items())
    given = dict(pairs)
    if len(given) != len(pairs):
        raise InvalidInput(errors=(FieldError("query", "a parameter is given more than once"),))
    return given


def query_parameters(handler: Any) -> dict[str, bool]:
    """The query parameters that a route handler declares, and whether each is a list."""
    return {name: field.is_non_string_sequence for name, field in _query_fields(handler).items()}


def _query_fields(handler: Any) -> dict[str, FieldDefinition]:
    assert isinstance(handler, HTTPRouteHandler)
    return {
        field.kwarg_definition.query or field.kwarg_definition.name or name: field
        for name, field in handler.parsed_fn_signature.parameters.items()
        if isinstance(field.kwarg_definition, QueryParameter)
    }
