"""Keep places free for new callers: bound the time of a request's body, and an address's idle connections.

The server closes a connection whose head is late (HEADER_TIMEOUT_S). Neither it nor the kernel bounds how
many connections one address holds; `ConnectionGuard` does, by looking at the sockets themselves, beside the
event loop, so that requests pay nothing for it.
"""

import os
import socket
import struct
import sys
import time
from asyncio import timeout
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack, suppress
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from threading import Thread
from typing import Any, Final

import structlog
from msgspec import Struct

from service.errors import SlowBody
from service.settings import Server

Client = tuple[str, int]
Scope = Any
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PLACES: Final = 20_000  # connections per worker at most; fewer where the limit of open files is lower
RESERVED_FILES: Final = 512  # for the database, outside calls and uploads
FULL: Final = 0.9  # of the places: from there on the longest idle go, whoever they are

LOOK_S: Final = 0.1
LOOK_ANYWAY_S: Final = 2.0
_FILES: Final = "/proc/self/fd"
# struct tcp_info (linux/tcp.h): milliseconds since data were last sent and received.
_TCP_INFO_BYTES: Final = 104
_LAST_SENT_AND_RECEIVED: Final = struct.Struct("=44xIxxxxI")
# A peer without a sign of life for a minute has vanished.
_VANISHED: Final = (
    {
        socket.TCP_KEEPIDLE: 30,
        socket.TCP_KEEPINTVL: 10,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 60_000,
    }
    if sys.platform == "linux"
    else {}
)
_BODY_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})
_UNREAD: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_RATE: Final = 1024  # bytes of a body that earn one more second


def raise_file_limit() -> int:
    """Open as many files as the system lets us; returns how many connections a worker may hold."""
    import resource  # noqa: PLC0415 (not on every platform)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PLACES + RESERVED_FILES if hard == resource.RLIM_INFINITY else min(hard, 1 << 20)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    files = PLACES + RESERVED_FILES if soft == resource.RLIM_INFINITY else soft
    return max(min(PLACES, files - RESERVED_FILES), 64)


class RequestBounds:
    """ASGI layer that bounds the wait for a body, and notes whose requests run in `running`."""

    def __init__(self, app: App, running: set[Client], body_timeout_s: float) -> None:
        self._app = app
        self._running = running
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        client: Client | None = scope.get("client")
        if scope["type"] == "http" and scope["method"] not in _UNREAD:
            names = {name for name, _ in scope["headers"]}
            if names & _BODY_HEADERS:
                receive = _BodyDeadline(receive, self._body_timeout_s).receive
        if client is not None:
            self._running.add(client)
        try:
            await self._app(scope, receive, send)
        finally:
            if client is not None:
                self._running.discard(client)


class _BodyDeadline:
    """Counts the seconds spent waiting for the caller, never those that the service takes between."""

    def __init__(self, receive: Receive, timeout_s: float) -> None:
        self._receive = receive
        self._left_s = timeout_s
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        began = time.monotonic()
        try:
            async with timeout(max(self._left_s, 0)):
                message = await self._receive()
        except TimeoutError:
            raise SlowBody(headers={"Connection": "close"}) from None
        if message["type"] == "http.request":
            self._left_s += len(message["body"]) / _RATE
            self._complete = not message.get("more_body", False)
        self._left_s -= time.monotonic() - began
        return message


class _Connection(Struct, frozen=True):
    """A caller's connection: its file, and for how many milliseconds nothing went over it."""

    idle_ms: int
    file: socket.socket


class ConnectionGuard:
    """Closes what is over `per_address`, and the longest idle of all when the places run out.

    Connections with a running request are counted and never closed.
    """

    def __init__(self, settings: Server, places: int, running: set[Client]) -> None:
        self._port = settings.port
        self._per_address = settings.connections_per_address
        self._full = int(places * FULL)
        self._running = running
        self._seen = 0
        self._looked_at = 0.0
        self._log: Any = structlog.get_logger("connections")

    def start(self) -> None:
        """Look from a thread of its own; on Linux only, where the sockets can be looked at."""
        if sys.platform == "linux":
            Thread(target=self._keep_looking, daemon=True).start()

    def _keep_looking(self) -> None:
        while not self._set_up_listener():
            time.sleep(LOOK_S)
        while True:
            took = self.look()
            time.sleep(max(LOOK_S, took * 10))  # a tenth of a core at most

    def _set_up_listener(self) -> bool:
        """Let the kernel end connections whose peer has vanished; whoever is accepted inherits it."""
        for number in _open_files():
            with suppress(OSError), _handle(number) as file:
                listens = file.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and file.getsockname()[1] == self._port:
                    file.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in _VANISHED.items():
                        file.setsockopt(socket.IPPROTO_TCP, option, value)
                    return True
        return False

    def look(self) -> float:
        """Close what is too much; returns the seconds it took."""
        began = time.monotonic()
        files = _open_files()
        few = len(files) <= min(self._per_address, self._full)
        unchanged = len(files) < self._seen + self._per_address // 4
        if not few and not (unchanged and began < self._looked_at + LOOK_ANYWAY_S):
            self._seen, self._looked_at = len(files) - self._close_excess(files), began
        return time.monotonic() - began

    def _close_excess(self, files: list[int]) -> int:
        with ExitStack() as handles:
            held, idle = self._sort(files, handles)
            excess: list[_Connection] = []
            rest: list[_Connection] = []
            for address, connections in idle.items():
                over = max(held[address] - self._per_address, 0)
                connections.sort(key=_idle_ms, reverse=True)
                excess += connections[:over]
                rest += connections[over:]
            if (over := sum(held.values()) - len(excess) - self._full) > 0:
                excess += sorted(rest, key=_idle_ms, reverse=True)[:over]
            for connection in excess:
                with suppress(OSError):  # it ended by itself
                    connection.file.shutdown(socket.SHUT_RDWR)
        if excess:
            most = max(held, key=held.__getitem__)
            self._log.warning("idle connections closed", number=len(excess), most_from=most, held=held[most])
        return len(excess)

    def _sort(
        self, files: list[int], handles: ExitStack
    ) -> tuple[dict[str, int], dict[str, list[_Connection]]]:
        """How many connections each address holds, and those that are idle."""
        held: dict[str, int] = {}
        idle: dict[str, list[_Connection]] = {}
        for number in files:
            with suppress(OSError):  # a pipe, the listening socket, a connection that just ended
                file = handles.enter_context(_handle(number))
                if _port(file.getsockname()) != self._port:
                    continue
                client = file.getpeername()[:2]
                address = _neighbourhood(client[0])
                held[address] = held.get(address, 0) + 1
                if client not in self._running:
                    idle.setdefault(address, []).append(_Connection(_idle_for(file), file))
        return held, idle


def _open_files() -> list[int]:
    return [int(name) for name in os.listdir(_FILES)]  # noqa: PTH208 (many, and looked at often)


def _handle(number: int) -> socket.socket:
    """A handle of our own: the number may be another file's by the time it is used."""
    own = os.dup(number)
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=own)
    except OSError:  # no socket
        os.close(own)
        raise


def _port(name: Any) -> int | None:
    """The port of an address; None for a Unix socket's."""
    return name[1] if isinstance(name, tuple) and len(name) > 1 else None  # type: ignore[arg-type]


def _idle_ms(connection: _Connection) -> int:
    return connection.idle_ms


def _idle_for(file: socket.socket) -> int:
    info = file.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return min(_LAST_SENT_AND_RECEIVED.unpack_from(info))


@lru_cache(maxsize=4096)
def _neighbourhood(host: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one, which is the least that one customer gets."""
    address = ip_address(host.partition("%")[0])
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
