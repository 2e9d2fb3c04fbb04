"""Server-sent events: one metric, a list of metrics, or a dashboard.

`EventStreams` answers before the framework and gives the server one coroutine that waits for the client's
disconnect. The routes in `api.py` only document it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from random import randint
from typing import Any, Final
from uuid import UUID

import msgspec

from service.auth.guards import Gate, TakeMetric, require
from service.auth.live import TICKET, Credential, LiveRights
from service.errors import FieldError, InvalidInput, LiveUnavailable, NotFound, Problem
from service.http.asgi import (
    EVENT_STREAM,
    App,
    Message,
    Receive,
    Refuse,
    Scope,
    Send,
    field_of,
    header_of,
    query_pairs,
    server_sent_event,
    with_headers,
)
from service.http.ids import parse_uuid, route_parts
from service.http.representation import bare_tag
from service.live.connection import Connection
from service.live.hub import SHORT_TAG, Hub, Topic, Watch, described
from service.metrics.catalog import Catalog
from service.metrics.notices import Given
from service.metrics.result_endpoint import READ

MOST_IDS: Final = 100
RETRY_MS: Final = (1000, 5000)
LAST_EVENT_ID: Final = "last_event_id"
OWN_PARAMETERS: Final = frozenset({TICKET, LAST_EVENT_ID})

PIECE_BYTES: Final = 16384
_COMMENT: Final = b":\n\n"


def retry_ms() -> int:
    """When a client reconnects: at random, so that not all reach a restarted service at once."""
    return randint(*RETRY_MS)  # noqa: S311 (no secret)


class EventStream(Connection):
    """One stream. With `many` watches each event names its metric; the id is the vector of all results."""

    __slots__ = ("_beats", "_changed", "_ends", "_last", "_rest", "many", "watches")

    def __init__(self, credential: Credential | None, *, many: bool) -> None:
        super().__init__(credential)
        self.many = many
        self.watches: tuple[Watch, ...] = ()
        self._changed: dict[Watch, None] = {}
        self._last = b""
        self._rest: bytes | memoryview = b""
        self._beats = True  # the first bytes open the stream
        self._ends = False

    async def run(self, receive: Receive, send: Send) -> None:
        """Write until the client leaves or the stream ends."""
        self._send = send
        self.flush()
        while (await receive())["type"] != "http.disconnect":
            pass

    def tell(self, watch: Watch) -> None:
        if not self._ends:
            self._changed[watch] = None
            self.flush()

    def gone(self, watch: Watch) -> None:
        self.watches = tuple(each for each in self.watches if each is not watch)
        said = server_sent_event("gone", _of(watch) if self.many else b"{}")
        if self.watches:
            self._changed.pop(watch, None)
            self._last += said  # at most once for each watch
            self._beats = True
            self.flush()
        else:
            self._end(said)

    def fail(self, watch: Watch, problem: Problem) -> None:
        watch.problem = problem
        self.tell(watch)

    def deny(self, problem: Problem) -> None:
        self._end(server_sent_event("denied", _of(None, code=problem.code, message=problem.detail)))

    def go_away(self) -> None:
        self._end(f"event: reconnect\nretry: {retry_ms()}\ndata: {{}}\n\n".encode())

    def beat(self) -> None:
        self._beats = True
        self.flush()

    def end_gone(self) -> None:
        """Say that the dashboard was deleted, and end."""
        self._end(server_sent_event("gone", b"{}"))

    def _end(self, said: bytes) -> None:
        self._last += said
        self._ends = True
        self._changed.clear()
        self.flush()

    def _next_message(self) -> Message | None:
        """A piece of what is being written, or of the newest states."""
        said = self._rest or self._render()
        piece, self._rest = bytes(said[:PIECE_BYTES]), memoryview(said)[PIECE_BYTES:] or b""
        if self._ends and not (self._rest or self._last or self._changed):
            self.ended = True
        elif not piece:
            return None
        return {"type": "http.response.body", "body": piece, "more_body": not self.ended}

    def _render(self) -> bytes:
        """The next events: few if they are large."""
        said: list[bytes] = []
        size = 0
        while self._changed and size < PIECE_BYTES:
            watch = next(iter(self._changed))
            del self._changed[watch]
            if events := self._events(watch):
                said.append(events)
                size += len(events)
        if not self._changed:
            if self._last or (self._beats and not said):
                said.append(self._last or _COMMENT)
            self._last, self._beats = b"", False
        return b"".join(said)  # of a single one, that one

    def _events(self, watch: Watch) -> bytes:
        topic = watch.topic
        if topic is None:
            failed = watch.problem
            return b"" if failed is None else self._event("problem", watch, described(failed))
        said = b""
        while (news := watch.news()) is not None:
            kind, members = news
            said += self._result(topic) if kind == "result" else self._event(kind, watch, members)
        return said

    def _result(self, topic: Topic) -> bytes:
        if self.many:
            vector = ",".join(
                f"{each.metric_id}:{each.held[:SHORT_TAG]}" for each in self.watches if each.held
            )
            return server_sent_event("result", topic.body, vector)
        if topic.framed is None:
            topic.framed = server_sent_event("result", topic.body, f'"{topic.tag}"')
        return topic.framed

    def _event(self, kind: str, watch: Watch, members: dict[str, Any]) -> bytes:
        return server_sent_event(kind, _of(watch if self.many else None, **members))


def _of(watch: Watch | None, **members: Any) -> bytes:
    return msgspec.json.encode(({} if watch is None else {"id": watch.metric_id}) | members)


class EventStreams:
    """ASGI layer that answers the GETs of event streams. Other requests go to `app`.

    It leaves the stream in `scope["stream"]`: `RequestBounds` runs it when the layers between have returned,
    so that an idle stream keeps none of them alive.
    """

    def __init__(
        self,
        app: App,
        gate: Gate,
        parts: Callable[[], "Parts"],
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._gate = gate
        self._parts = parts
        self._refuse = refuse

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        address = _address(scope)
        if address is None:
            return self._app(scope, receive, send)
        return self._answer(*address, scope, send)

    async def _answer(self, template: str, name: str, scope: Scope, send: Send) -> None:
        scope["path_template"] = template
        extra = [*self._gate.browser_headers(field_of(scope, b"origin"))]
        send = with_headers(send, extra)
        try:
            parts = self._parts()
            credential = await parts.rights.admit(scope)
            principal = credential.principal if credential else None
            scope["state"]["principal"] = principal
            extra += self._gate.take(principal, scope["path"])
            require(principal, READ)
            stream = await parts.open(template, name, scope, credential)
        except Problem as problem:
            await self._refuse(scope, send, problem)
            return
        if stream is None:
            await send(
                {"type": "http.response.start", "status": 204, "headers": [(b"cache-control", b"no-store")]}
            )
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(EVENT_STREAM)})
        except BaseException:
            parts.hub.leave(stream, stream.watches)
            raise
        scope["stream"] = OpenStream(parts.hub, stream)


class OpenStream:
    """A stream whose response has begun."""

    __slots__ = ("_hub", "_stream")

    def __init__(self, hub: Hub, stream: EventStream) -> None:
        self._hub = hub
        self._stream = stream

    async def __call__(self, client: tuple[str, int] | None, receive: Receive, send: Send) -> None:
        self._stream.client = client
        try:
            await self._stream.run(receive, send)
        finally:
            self._stream.ended = True
            self._hub.leave(self._stream, self._stream.watches)


CheckNames = Callable[[list[UUID], list[str]], Awaitable[None]]
"""Refuses parameters that no metric of a list takes."""


class Parts:
    """Opens event streams: reads the address, and follows the results that it names.

    `take` counts each metric that a caller names.
    """

    def __init__(
        self, hub: Hub, rights: LiveRights, catalog: Catalog, check_names: CheckNames, take: TakeMetric
    ) -> None:
        self.take = take
        self.hub = hub
        self.rights = rights
        self._catalog = catalog
        self._check_names = check_names

    async def open(
        self, template: str, name: str, scope: Scope, credential: Credential | None
    ) -> EventStream | None:
        """Open the stream of an address. None for a deleted metric: its client should not reconnect."""
        pairs = query_pairs(scope["query_string"])
        held = header_of(scope, b"last-event-id") or dict(pairs).get(LAST_EVENT_ID, "")
        given = [pair for pair in pairs if pair[0] not in OWN_PARAMETERS]
        if template == ONE:
            return await self._one(parse_uuid(name), given, bare_tag(held), credential)
        stream = EventStream(credential, many=True)
        vector = _vector(held)
        if template == DASHBOARD:
            ids = self._metrics_of(name)
        else:
            ids = _ids_of(given)
            given = [pair for pair in given if pair[0] != "ids"]
            for each in ids:
                if str(each) not in vector:
                    self._catalog.get(each)
            await self._check_names(ids, [name for name, _ in given])
            if credential is not None:
                for each in ids:
                    self.take(credential.principal.subject, each)
        self.hub.enter(stream, len(ids))
        stream.watches = tuple([Watch(stream, each, given, vector.get(str(each), "")) for each in ids])
        if template == DASHBOARD:
            self.hub.follow_owner(stream, ("dashboard", name), partial(self._recomposed, stream, name, ids))
        for watch in stream.watches:
            self.hub.follow(watch)
        return stream

    async def _one(
        self, metric_id: UUID, given: Given, held: str, credential: Credential | None
    ) -> EventStream | None:
        stream = EventStream(credential, many=False)
        watch = Watch(stream, metric_id, given, held)
        self.hub.enter(stream, 1)
        try:
            await self.hub.attach(watch)
        except BaseException as error:
            self.hub.leave(stream, [watch])
            if isinstance(error, NotFound) and (held or self._catalog.was_deleted(metric_id)):
                return None
            raise
        topic = watch.topic
        if topic is None or (not topic.tag and topic.problem is not None):
            self.hub.leave(stream, [watch])
            raise (topic and topic.problem) or LiveUnavailable(headers={"Retry-After": "1"})
        stream.watches = (watch,)
        stream.tell(watch)
        return stream

    def _metrics_of(self, dashboard_id: str) -> list[UUID]:
        return [metric.id for metric in self._catalog.dashboard(dashboard_id).metrics]

    def _recomposed(self, stream: EventStream, dashboard_id: str, ids: list[UUID]) -> None:
        """End the stream of a dashboard that has other metrics now: the client comes back for them."""
        try:
            same = self._metrics_of(dashboard_id) == ids
        except NotFound:
            stream.end_gone()
        else:
            if not same:
                stream.go_away()


ONE: Final = "/api/v1/metrics/{metric_id}/events"
LIST: Final = "/api/v1/events"
DASHBOARD: Final = "/api/v1/dashboards/{dashboard_id}/events"


def _address(scope: Scope) -> tuple[str, str] | None:
    """The path template and the id of an event stream."""
    if scope["type"] != "http" or scope["method"] != "GET" or "/events" not in scope["path"]:
        return None
    match route_parts(scope["path"]):
        case ["events"]:
            return LIST, ""
        case ["metrics", name, "events"]:
            return ONE, name
        case ["dashboards", name, "events"]:
            return DASHBOARD, name
        case _:
            return None


def _ids_of(given: list[tuple[str, str]]) -> list[UUID]:
    """The metrics of `?ids=`, each once."""
    lists = [value for name, value in given if name == "ids"]
    if len(lists) != 1 or not lists[0]:
        raise InvalidInput(errors=(FieldError("ids", "give it once: UUIDs of metrics, separated by commas"),))
    ids = [*dict.fromkeys(parse_uuid(each.strip()) for each in lists[0].split(","))]
    if len(ids) > MOST_IDS:
        raise InvalidInput(errors=(FieldError("ids", f"at most {MOST_IDS} metrics"),))
    return ids


def _vector(held: str) -> dict[str, str]:
    """The tags of results that a client holds, by metric."""
    pairs = [part.strip().partition(":") for part in held.strip().strip('"').split(",")]
    return {name.lower(): tag for name, colon, tag in pairs if colon}
