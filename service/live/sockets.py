"""The WebSocket `/live`: many subscriptions on one connection, each with its own parameters."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from service.auth.guards import Gate, require
from service.auth.live import Credential
from service.errors import (
    InvalidInput,
    InvalidToken,
    NotFound,
    Problem,
    TooLarge,
    TooManyRequests,
    TooManyStreams,
    Unauthorized,
)
from service.http import bodies
from service.http.asgi import App, Message, Receive, Refuse, Scope, Send
from service.http.ids import parse_uuid
from service.http.representation import bare_tag
from service.live.connection import Connection
from service.live.hub import Watch, described
from service.live.messages import Auth, Incoming, Outgoing, Ping, Subscribe, Unsubscribe, as_text
from service.live.places import UnreadBytes
from service.live.streams import Parts
from service.metrics.result_endpoint import READ

FRAME_BYTES: Final = 65_536
LARGE_BYTES: Final = 65_536
MOST_SUBSCRIPTIONS: Final = 1000
PARAMETER_BYTES: Final = 8192
MESSAGES: Final = 200
WINDOW_S: Final = 10.0
TOKEN_WAIT_S: Final = 10.0
SILENCE_S: Final = 120.0
MOST_REPLIES: Final = 100
CLOSE_POLICY: Final = 1008
CLOSE_TOO_LARGE: Final = 1009
CLOSE_RESTART: Final = 1012


class Subscription(Watch):
    """A watch of a socket, with the parameters as its client wrote them."""

    __slots__ = ("key", "parameters")

    def __init__(self, socket: "Socket", message: Subscribe, key: bytes) -> None:
        super().__init__(socket, parse_uuid(message.id), message.parameters, bare_tag(message.etag))
        self.key = key
        self.parameters = message.parameters


class Socket(Connection):
    """One WebSocket. Results are rendered when they can be written; answers wait in a short list."""

    __slots__ = (
        "_changed", "_close", "_count", "_large", "_last", "_replies", "_unread", "_window_ends",
        "hearing", "subscriptions",
    )  # fmt: skip

    def __init__(self, credential: Credential | None, unread: UnreadBytes) -> None:
        super().__init__(credential)
        self._unread = unread
        self._large: tuple[str, int] | None = None
        self.subscriptions: dict[bytes, Subscription] = {}
        self._changed: dict[Watch, None] = {}
        self._replies: list[Outgoing] = []
        self._close: int | None = None
        self._last = False
        self.hearing: asyncio.Timeout | None = None
        self._count = 0
        self._window_ends = 0.0

    def open(self, send: Send) -> None:
        self._send = send

    def reply(self, message: Outgoing) -> None:
        """Answer. A client that asks without reading is cut off."""
        self._replies.append(message)
        if len(self._replies) > MOST_REPLIES:
            self.close(CLOSE_POLICY)
        self.flush()

    def refuse(self, problem: Problem, **about: Any) -> None:
        self.reply(Outgoing("error", **described(problem), **about))

    @property
    def closing(self) -> bool:
        return self._close is not None

    def close(self, code: int) -> None:
        """Close it once the replies are written. The server closes no socket from which we still receive."""
        self._close = self._close or code
        if self.hearing is not None:
            self.hearing.reschedule(0)
        self.flush()

    async def end(self) -> None:
        """Write the replies and the close, when nothing is received any more."""
        self._close = self._close or CLOSE_POLICY
        self._last = True
        self.flush()
        await self.finish()

    def tell(self, watch: Watch) -> None:
        self._changed[watch] = None
        self.flush()

    def gone(self, watch: Watch) -> None:
        if isinstance(watch, Subscription):
            self.subscriptions.pop(watch.key, None)
            self.reply(_about(watch, "gone"))

    def fail(self, watch: Watch, problem: Problem) -> None:
        watch.problem = problem
        self.refuse(problem, id=watch.metric_id, parameters=watch.given)

    def deny(self, problem: Problem) -> None:
        self._replies.append(Outgoing("denied", code=problem.code, message=problem.detail))
        self.close(CLOSE_POLICY)

    def go_away(self) -> None:
        self._changed.clear()
        self.close(CLOSE_RESTART)

    def beat(self) -> None:
        self.reply(Outgoing("heartbeat"))

    def count(self) -> None:
        """Count a message of the client. Raises `TooManyRequests`."""
        now = asyncio.get_running_loop().time()
        if now >= self._window_ends:
            self._count, self._window_ends = 0, now + WINDOW_S
        self._count += 1
        if self._count > MESSAGES:
            raise TooManyRequests(f"At most {MESSAGES} messages within {WINDOW_S:g} s.")

    def _next_message(self) -> Message | None:
        if self._replies:
            return as_text(self._replies.pop(0))
        while self._changed and self._close is None:
            watch = next(iter(self._changed))
            if not self._has_room(watch):
                return None
            said = self._state(watch)
            if said is not None:
                return as_text(said)
            del self._changed[watch]
        if self._last:
            self.ended = True
            return {"type": "websocket.close", "code": self._close, "reason": ""}
        return None

    def _has_room(self, watch: Watch) -> bool:
        """Whether the result of a watch may be written now. A frame is not written in pieces."""
        topic = watch.topic
        if topic is None or len(topic.body) < LARGE_BYTES or not watch.lacks(topic.tag):
            return True
        if not self._unread.take(self, len(topic.body)):
            return False
        self._large = self.subject, len(topic.body)
        return True

    def _taken(self) -> None:
        if self._large is not None:
            large, self._large = self._large, None
            self._unread.free(*large)

    def _state(self, watch: Watch) -> Outgoing | None:
        """What the client has not been told of a watch."""
        topic = watch.topic
        if topic is None or watch.left or (news := watch.news()) is None:
            return None
        kind, members = news
        if kind == "result":
            members = {"etag": f'"{topic.tag}"', "result": Raw(topic.body)}
        return _about(watch, "error" if kind == "problem" else kind, **members)


def _about(watch: Watch, kind: Any, **members: Any) -> Outgoing:
    return Outgoing(kind, id=watch.metric_id, parameters=watch.given, **members)  # type: ignore[arg-type]


class Sockets:
    """ASGI layer that answers the WebSocket `/live`. Everything else goes to `app`."""

    def __init__(
        self,
        app: App,
        gate: Gate,
        parts: Callable[[], Parts],
        refuse: Refuse,
    ) -> None:
        self._app = app
        self._gate = gate
        self._parts = parts
        self._refuse = refuse

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "websocket" or scope["path"].rstrip("/") not in {"/live", "/api/v1/live"}:
            return self._app(scope, receive, send)
        return self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            parts = self._parts()
            hub, rights = parts.hub, parts.rights
            credential = await rights.admit(scope)
            if credential is not None:
                scope["state"]["principal"] = credential.principal
                self._gate.take(credential.principal, scope["path"])
                require(credential.principal, READ)
            socket = Socket(credential, hub.unread)
            hub.enter(socket)
        except Problem as problem:
            await self._refuse(scope, send, problem)
            return
        client = scope.get("client")
        socket.client = (client[0], int(client[1])) if client else None
        try:
            await _Conversation(socket, parts, receive).hold(send)
        finally:
            socket.ended = True
            hub.leave(socket, tuple(socket.subscriptions.values()))


class _Conversation:
    """What a client says on its socket, and the answers."""

    def __init__(self, socket: Socket, parts: Parts, receive: Receive) -> None:
        self._socket = socket
        self._hub = parts.hub
        self._rights = parts.rights
        self._take = parts.take
        self._receive = receive

    async def hold(self, send: Send) -> None:
        if (await self._receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})
        socket = self._socket
        socket.open(send)
        socket.flush()
        with suppress(TimeoutError):
            if socket.credential is None:
                async with asyncio.timeout(TOKEN_WAIT_S):
                    while socket.credential is None and not socket.closing:
                        if not await self._hear(SILENCE_S):
                            return
            while not socket.closing:
                if not await self._hear(None if socket.subscriptions else SILENCE_S):
                    return
        await socket.end()

    async def _hear(self, within_s: float | None) -> bool:
        """Receive and answer one message. False when the client has left. Raises TimeoutError."""
        async with asyncio.timeout(within_s) as patience:
            self._socket.hearing = patience
            try:
                message = await self._receive()
            finally:
                self._socket.hearing = None
        if message["type"] != "websocket.receive":
            return False
        text = message.get("text")
        raw = message.get("bytes") or b"" if text is None else text.encode()
        try:
            self._socket.count()
            if len(raw) > FRAME_BYTES:
                self._socket.refuse(TooLarge(f"A message takes at most {FRAME_BYTES} bytes."))
                self._socket.close(CLOSE_TOO_LARGE)
                return True
            await self._answer(_read(raw))
        except TooManyRequests as problem:
            self._socket.refuse(problem)
            self._socket.close(CLOSE_POLICY)
        except Problem as problem:
            self._socket.refuse(problem, **_id_of(raw))
        return True

    async def _answer(self, message: Incoming) -> None:
        socket = self._socket
        if isinstance(message, Ping):
            socket.reply(Outgoing("pong"))
        elif isinstance(message, Auth):
            await self._authenticate(message.token)
        elif socket.credential is None:
            raise Unauthorized('Say who you are first: {"type": "auth", "token": "..."}.')
        elif isinstance(message, Subscribe):
            self._subscribe(message)
        else:
            key = _key(message)
            if key not in socket.subscriptions:
                raise NotFound("There is no such subscription on this socket.")
            self._hub.detach(socket.subscriptions.pop(key))
            self._hub.count(socket, -1)

    async def _authenticate(self, token: str) -> None:
        """Take a token: the first, or a newer one of the same caller. With AUTH=off it says nothing."""
        if self._rights.open_to_all:
            return
        socket = self._socket
        credential = await self._rights.by_token(token.encode())
        require(credential.principal, READ)
        known = socket.credential
        if known is None:
            self._hub.leave(socket, ())
            socket.credential = credential
            try:
                self._hub.enter(socket)
            except Problem as problem:
                socket.refuse(problem)
                socket.close(CLOSE_POLICY)
        elif (known.principal.subject, known.principal.claims) == _who(credential):
            socket.credential = credential
        else:
            raise InvalidToken("The token is another caller's: open another socket for it.")

    def _subscribe(self, message: Subscribe) -> None:
        socket = self._socket
        key = _key(message)
        if key in socket.subscriptions:
            raise InvalidInput("This is subscribed to already.")
        if len(socket.subscriptions) >= MOST_SUBSCRIPTIONS:
            raise TooManyStreams(f"At most {MOST_SUBSCRIPTIONS} subscriptions on a socket.")
        if len(key) > PARAMETER_BYTES:
            raise TooLarge(f"The parameters of a subscription take at most {PARAMETER_BYTES} bytes.")
        watch = Subscription(socket, message, key)
        try:
            self._take(socket.subject, watch.metric_id)
        except TooManyRequests as problem:  # the others of the socket go on
            socket.refuse(problem, id=message.id, parameters=message.parameters)
            return
        self._hub.count(socket, 1)
        socket.subscriptions[key] = watch
        self._hub.follow(watch)


def _who(credential: Credential) -> tuple[str, str]:
    return credential.principal.subject, credential.principal.claims


def _read(raw: bytes) -> Incoming:
    return bodies.decode(Raw(raw), Incoming, within="message")


def _key(message: Subscribe | Unsubscribe) -> bytes:
    return bodies.encode_key((message.id.lower(), message.parameters))


class _Named(Struct):
    id: str


def _id_of(raw: bytes) -> dict[str, Any]:
    """The id in a message that was refused, if it can be read."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        return {"id": msgspec.json.decode(raw, type=_Named).id}
    return {}
