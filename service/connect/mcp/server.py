"""Answer calls of the Model Context Protocol. Nothing is kept between two calls."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from uuid import UUID

from msgspec import Raw, Struct

from service import __version__
from service.auth.tokens import Principal
from service.connect.mcp.library import TEMPLATE, Library, read_uri
from service.connect.mcp.messages import (
    EARLIER,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MODERN,
    RESOURCE_NOT_FOUND,
    SERVER_KEY,
    SUBSCRIPTION_KEY,
    Call,
    RpcError,
    decode,
)
from service.connect.mcp.tools import Tools
from service.errors import Forbidden, InvalidInput, NotFound, Problem, TooManyRequests
from service.http import bodies
from service.http.asgi import server_sent_event
from service.metrics.notices import Events, Followed

INSTRUCTIONS: Final = (
    "Metrics are reviewed SQL over a Postgres database. Find one with list_metrics, read it with get_metric; "
    "explain_metric tells its SQL, its parameters and whether it takes a period (start_date, end_date or "
    "day_range). draft_metric answers a question that no metric answers, and stores nothing."
)
PAGE: Final = 100
MOST_FOLLOWED: Final = 100
LISTEN: Final = "subscriptions/listen"
_HOUR_MS: Final = 3_600_000
_SERVER_FAULTS: Final = 500
_SERVER: Final = {"name": "tally", "title": "Tally", "version": __version__}

Result = dict[str, Any]
Handler = Callable[[Call, Principal], Awaitable[Result]]


class _Initialize(Struct, rename="camel"):
    protocol_version: str


class _Paged(Struct):
    cursor: str | None = None


class _Read(Struct):
    uri: str


class _Filter(Struct, rename="camel"):
    """What a client wants to be told of. There are no prompts, and the tools never change."""

    resources_list_changed: bool = False
    resource_subscriptions: list[str] = []


class _Listen(Struct):
    notifications: _Filter


class Listening(Struct, frozen=True):
    """A subscription that `endpoint` opens."""

    followed: list[Followed]
    events: Events


class Server:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._tools = Tools(library)
        both: dict[str, Handler] = {
            "tools/list": self._list_tools,
            "tools/call": self._tools.call,
            "resources/list": self._list_resources,
            "resources/templates/list": self._list_templates,
            "resources/read": self._read,
        }
        self._modern = both | {"server/discover": self._discover}
        self._earlier = both | {"initialize": self._initialize, "ping": self._ping}

    async def answer(self, call: Call, caller: Principal) -> Result:
        """Raises `RpcError`, and `Forbidden` for a scope that the caller lacks."""
        handlers = self._modern if call.modern else self._earlier
        handler = handlers.get(call.method)
        if handler is None:
            names = ", ".join(sorted([*handlers, *([LISTEN] if call.modern else [])]))
            raise RpcError(METHOD_NOT_FOUND, f"There is no method {call.method[:80]!r}; there are: {names}.")
        try:
            result = await handler(call, caller)
        except (Forbidden, TooManyRequests):
            raise
        except InvalidInput as wrong:
            raise RpcError(INVALID_PARAMS, wrong.sentence, wrong.document()) from None
        except Problem as problem:
            code = INTERNAL_ERROR if problem.status >= _SERVER_FAULTS else INVALID_PARAMS
            raise RpcError(code, problem.detail, problem.document()) from None
        if call.modern:
            meta: dict[str, Any] = result.get("_meta", {})
            result |= {"resultType": "complete", "_meta": meta | {SERVER_KEY: _SERVER}}
        return result

    def listening(self, call: Call, caller: Principal) -> Listening:
        """Raises `RpcError` for a resource that does not exist, and `TooManyRequests`."""
        wanted: _Filter = _params(call, _Listen).notifications
        if len(wanted.resource_subscriptions) > MOST_FOLLOWED:
            raise RpcError(INVALID_PARAMS, f"resourceSubscriptions: at most {MOST_FOLLOWED} resources")
        tag = {SUBSCRIPTION_KEY: call.id}
        followed: list[Followed] = []
        honoured: dict[str, Any] = {}
        for uri in dict.fromkeys(wanted.resource_subscriptions):
            metric_id, given = self._resource(uri, call)
            self._library.take(caller.subject, metric_id)
            changed = _event("notifications/resources/updated", {"uri": uri, "_meta": tag})
            followed.append(Followed(metric_id, given, changed))
            honoured.setdefault("resourceSubscriptions", []).append(uri)
        listed = None
        if wanted.resources_list_changed:
            honoured["resourcesListChanged"] = True
            listed = _event("notifications/resources/list_changed", {"_meta": tag})
        opened = _event("notifications/subscriptions/acknowledged", {"notifications": honoured, "_meta": tag})
        done = {"resultType": "complete", "_meta": tag | {SERVER_KEY: _SERVER}}
        ended = _framed({"jsonrpc": "2.0", "id": call.id, "result": done})

        def denied(problem: Problem) -> bytes:
            error = {"code": INTERNAL_ERROR, "message": problem.detail, "data": problem.document()}
            return _framed({"jsonrpc": "2.0", "id": call.id, "error": error})

        return Listening(followed, Events(opened, ended, denied, listed))

    async def _discover(self, call: Call, _caller: Principal) -> Result:
        del call
        return {
            "supportedVersions": [MODERN],
            "capabilities": _capabilities(subscribe=True),
            "instructions": INSTRUCTIONS,
            **_fresh_for(_HOUR_MS, "public"),
        }

    async def _initialize(self, call: Call, _caller: Principal) -> Result:
        asked: str = _params(call, _Initialize).protocol_version
        return {
            "protocolVersion": asked if asked in EARLIER else EARLIER[-1],
            "capabilities": _capabilities(subscribe=False),
            "serverInfo": _SERVER,
            "instructions": INSTRUCTIONS,
        }

    async def _ping(self, call: Call, _caller: Principal) -> Result:
        del call
        return {}

    async def _list_tools(self, call: Call, _caller: Principal) -> Result:
        _params(call, _Paged)
        return {"tools": self._tools.listed, **_fresh_for(_HOUR_MS, "public")}

    async def _list_resources(self, call: Call, _caller: Principal) -> Result:
        page = self._library.page("", _params(call, _Paged).cursor, PAGE)
        found = [
            {
                "uri": each.uri,
                "name": str(each.id),
                "title": each.title or each.query_id,
                "mimeType": "application/json",
            }
            for each in page.items
        ]
        following = {} if page.next_cursor is None else {"nextCursor": page.next_cursor}
        return {"resources": found, **following, **_fresh_for(0)}

    async def _list_templates(self, call: Call, _caller: Principal) -> Result:
        _params(call, _Paged)
        template = {
            "uriTemplate": TEMPLATE,
            "name": "metric",
            "title": "Result of a metric",
            "description": "explain_metric lists the parameters that a metric takes.",
            "mimeType": "application/json",
        }
        return {"resourceTemplates": [template], **_fresh_for(_HOUR_MS, "public")}

    async def _read(self, call: Call, caller: Principal) -> Result:
        uri: str = _params(call, _Read).uri
        metric_id, given = self._resource(uri, call)
        found = await self._library.result(metric_id, given, caller)
        contents = {"uri": uri, "mimeType": "application/json", "text": found.body.decode()}
        return {"contents": [contents], **_fresh_for(found.ttl_ms)}

    def _resource(self, uri: str, call: Call) -> tuple[UUID, list[tuple[str, str]]]:
        """Raises `RpcError` for a resource that does not exist."""
        try:
            metric_id, given = read_uri(uri)
            self._library.metric(metric_id)
        except (InvalidInput, NotFound) as wrong:
            code = INVALID_PARAMS if call.modern else RESOURCE_NOT_FOUND
            message = wrong.sentence
            raise RpcError(code, message, {"uri": uri[:200]}) from None
        return metric_id, given


def _params(call: Call, kind: Any) -> Any:
    return decode(Raw(bodies.encode(call.params)), kind, "params")


def _capabilities(*, subscribe: bool) -> Result:
    resources = {"subscribe": True, "listChanged": True} if subscribe else {}
    return {"tools": {}, "resources": resources}


def _fresh_for(ttl_ms: int, scope: str = "private") -> Mapping[str, Any]:
    return {"ttlMs": ttl_ms, "cacheScope": scope}


def _event(method: str, params: Mapping[str, Any]) -> bytes:
    return _framed({"jsonrpc": "2.0", "method": method, "params": params})


def _framed(message: Mapping[str, Any]) -> bytes:
    return server_sent_event("message", bodies.encode(message))
