"""Limit the time that a request body may take, and the idle connections of one address.

The server closes a connection whose request head is late (HEADER_TIMEOUT_S). Neither the server nor the
kernel limits the connections of one address. `ConnectionGuard` does. It inspects the sockets from a thread of
its own, so requests pay nothing for it.
"""

import os
import socket
import struct
import sys
import time
from asyncio import timeout
from collections.abc import Awaitable, Callable, Container
from contextlib import ExitStack, suppress
from threading import Thread
from typing import Any, Final

from msgspec import Struct

from service.errors import SlowBody
from service.http.asgi import App, Message, Receive, Scope, Send
from service.http.client_address import Proxies
from service.http.current_caller import address_block
from service.observe.events import IdleConnectionsClosed, Observe
from service.settings import Server

Client = tuple[str, int]
Stream = Callable[[Client | None, Receive, Send], Awaitable[None]]

PLACES: Final = 20_000  # maximum connections per worker; fewer if the limit of open files is lower
RESERVED_FILES: Final = 512  # for the database, calls to other services, and uploads
FULL: Final = 0.9  # share of the places; above it we close the longest idle connections of any address

LOOK_S: Final = 0.1
LOOK_ANYWAY_S: Final = 2.0
_FILES: Final = "/proc/self/fd"
# Two fields of struct tcp_info (linux/tcp.h): milliseconds since data were last sent and last received.
_TCP_INFO_BYTES: Final = 104
_LAST_SENT_AND_RECEIVED: Final = struct.Struct("=44xIxxxxI")
# We treat a peer that is silent for a minute as gone.
_KEEPALIVE: Final = (
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
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_BYTES_PER_SECOND: Final = 1024  # body bytes per extra second of time


def raise_file_limit() -> int:
    """Raise the limit of open files. Returns how many connections a worker may hold."""
    import resource  # noqa: PLC0415 (not on every platform)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = PLACES + RESERVED_FILES if hard == resource.RLIM_INFINITY else min(hard, 1 << 20)
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
            soft = needed
    files = PLACES + RESERVED_FILES if soft == resource.RLIM_INFINITY else soft
    return max(min(PLACES, files - RESERVED_FILES), 64)


class RequestBounds:
    """ASGI layer that limits the wait for a body. `running` holds the clients whose requests run.

    A layer within may leave an open stream in `scope["stream"]`. It is run here, when all layers between
    have returned: an idle stream keeps neither them nor its request's headers in memory.
    """

    def __init__(self, app: App, running: set[Client], body_timeout_s: float) -> None:
        self._app = app
        self._running = running
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = scope.get("client")
        # The server gives the port as text.
        client: Client | None = (given[0], int(given[1])) if given else None
        if scope["type"] == "http" and scope["method"] not in _BODILESS:
            names = {name for name, _ in scope["headers"]}
            if names & _BODY_HEADERS:
                receive = _BodyDeadline(receive, self._body_timeout_s).receive
        if client is not None:
            self._running.add(client)
        try:
            await self._app(scope, receive, send)
            stream: Stream | None = scope.get("stream")
            if stream is not None:
                scope.clear()
                await stream(client, receive, send)
        finally:
            if client is not None:
                self._running.discard(client)


class _BodyDeadline:
    """Limits the seconds spent waiting for the caller. Time that the service takes does not count."""

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
            self._left_s += len(message["body"]) / _BYTES_PER_SECOND
            self._complete = not message.get("more_body", False)
        self._left_s -= time.monotonic() - began
        return message


class _Connection(Struct, frozen=True):
    """A caller's connection: its socket, and the milliseconds since its last byte."""

    idle_ms: int
    file: socket.socket


class ConnectionGuard:
    """Closes idle connections above the limit per address.

    When the places run out, it also closes the longest idle connections of all addresses. Connections with a
    running request count but are never closed.
    """

    def __init__(self, settings: Server, places: int, running: set[Client], observe: Observe) -> None:
        self._port = settings.port
        self._per_address = settings.connections_per_address
        self._proxies = Proxies(settings.trusted_proxies)
        self._full = int(places * FULL)
        self._running = running
        self._last_count = 0
        self._last_look_at = 0.0
        self._observe = observe

    def start(self) -> None:
        """Inspect the connections from a thread. Only Linux lets us inspect sockets."""
        if sys.platform == "linux":
            Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._set_up_listener():
            time.sleep(LOOK_S)
        while True:
            took = self.look()
            time.sleep(max(LOOK_S, took * 10))  # use at most a tenth of a core

    def _set_up_listener(self) -> bool:
        """Let the kernel end connections whose peer is gone. Accepted connections inherit these options."""
        for number in _open_files():
            with suppress(OSError), _handle(number) as file:
                listens = file.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listens and file.getsockname()[1] == self._port:
                    file.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in _KEEPALIVE.items():
                        file.setsockopt(socket.IPPROTO_TCP, option, value)
                    return True
        return False

    def look(self) -> float:
        """Close excess connections. Returns the seconds that this took."""
        began = time.monotonic()
        files = _open_files()
        below_limits = len(files) <= min(self._per_address, self._full)
        unchanged = len(files) < self._last_count + self._per_address // 4
        if not below_limits and not (unchanged and began < self._last_look_at + LOOK_ANYWAY_S):
            self._last_count, self._last_look_at = len(files) - self._close_excess(files), began
        return time.monotonic() - began

    def cut(self, clients: Container[Client]) -> None:
        """Close the connections of these clients, who do not read what they are sent."""
        for number in _open_files() if sys.platform == "linux" else ():
            with suppress(OSError), _handle(number) as file:
                if _port(file.getsockname()) == self._port and file.getpeername()[:2] in clients:
                    file.shutdown(socket.SHUT_RDWR)

    def _close_excess(self, files: list[int]) -> int:
        with ExitStack() as handles:
            counts, idle = self._sort(files, handles)
            excess: list[_Connection] = []
            rest: list[_Connection] = []
            for address, connections in idle.items():
                limit = self._full if self._proxies.trust(address) else self._per_address
                over = max(counts[address] - limit, 0)
                connections.sort(key=_idle_ms, reverse=True)
                excess += connections[:over]
                rest += connections[over:]
            if (over := sum(counts.values()) - len(excess) - self._full) > 0:
                excess += sorted(rest, key=_idle_ms, reverse=True)[:over]
            for connection in excess:
                with suppress(OSError):  # the connection has just ended
                    connection.file.shutdown(socket.SHUT_RDWR)
        if excess:
            most = max(counts, key=counts.__getitem__)
            self._observe(IdleConnectionsClosed(len(excess), most, counts[most]))
        return len(excess)

    def _sort(
        self, files: list[int], handles: ExitStack
    ) -> tuple[dict[str, int], dict[str, list[_Connection]]]:
        """Count the connections of each address, and list the idle ones."""
        counts: dict[str, int] = {}
        idle: dict[str, list[_Connection]] = {}
        for number in files:
            with suppress(OSError):  # a pipe, the listening socket, a connection that just ended
                file = handles.enter_context(_handle(number))
                if _port(file.getsockname()) != self._port:
                    continue
                client = file.getpeername()[:2]
                address = address_block(client[0])
                counts[address] = counts.get(address, 0) + 1
                if client not in self._running:
                    idle.setdefault(address, []).append(_Connection(_idle_for(file), file))
        return counts, idle


def _open_files() -> list[int]:
    return [int(name) for name in os.listdir(_FILES)]  # noqa: PTH208 (many files, listed often)


def _handle(number: int) -> socket.socket:
    """Duplicate the file descriptor, because its number may soon belong to another file."""
    own = os.dup(number)
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=own)
    except OSError:  # not a socket
        os.close(own)
        raise


def _port(name: Any) -> int | None:
    """The port of a socket address; None for a Unix socket."""
    return name[1] if isinstance(name, tuple) and len(name) > 1 else None  # type: ignore[arg-type]


def _idle_ms(connection: _Connection) -> int:
    return connection.idle_ms


def _idle_for(file: socket.socket) -> int:
    info = file.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return min(_LAST_SENT_AND_RECEIVED.unpack_from(info))
