"""A worker process: it runs the app and the connection guard, and sends heartbeats to the supervisor."""

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from typing import Any, Final

import structlog
from granian import _signals

from service.app import base_of, create_app, drain, layered
from service.environment import load
from service.errors import Stop
from service.http.asgi import App, Message, Receive, Scope, Send
from service.http.connections import Client, ConnectionGuard
from service.http.lifecycle import Lifecycle
from service.observe.counters import SharedCounters
from service.observe.log import set_up_logs
from service.observe.prometheus import Prometheus
from service.server.place import CLOSE_S, RESTART_S, STOPPED, Place
from service.server.sockets import ListeningSocket

BEAT_S: Final = 1.0
FIRST_BEAT_S: Final = 0.01
COLLECT: Final = (20_000, 20, 20)  # thresholds of the three generations (gc.set_threshold)
CUT_AFTER_S: Final = 5.0  # how long after SIGTERM a live client may take to read
ORPHAN_CHECK_S: Final = 0.5
ORPHAN_GRACE_S: Final = 10


def build(place: Place, sockets: Sequence[socket.socket], index: int) -> App:
    """Build a worker's app, which listens on one of the sockets. A `Stop` is printed and ends the process."""
    listener = ListeningSocket(sockets, index)
    Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
    try:
        settings = load(os.environ)
        set_up_logs(settings.logs)
        running: set[Client] = set()
        counters = None if place.page is None else SharedCounters(place.counters)
        counted = None if counters is None else Prometheus(counters, place.page or 0)
        routed = create_app(settings, counted)
        app = layered(routed, running)
    except Stop as stop:
        sys.stderr.write(f"tally: {stop}\n")
        sys.exit(STOPPED)
    base = base_of(routed)
    guard = ConnectionGuard(settings.server, place.connections, running, base.observe)

    def stop_streams() -> None:
        """End the live streams, for whose end the server waits, and cut off clients that do not read."""
        drain(routed)

        def cut() -> None:
            guard.cut(frozenset(drain(routed)))

        asyncio.get_running_loop().call_later(min(CUT_AFTER_S, settings.server.grace_s / 2), cut)

    stays = partial(place.stays.__getitem__, place.slot)
    _on_stop(_Stop(base.lifecycle, listener, stop_streams, stays, settings.server.drain_s))
    # The cache holds many small objects and hardly any cycles. A full collection would stop every caller for
    # tens of milliseconds. The objects built so far live forever, so collections skip them.
    gc.freeze()
    gc.set_threshold(*COLLECT)
    gc.enable()

    def beat() -> None:
        place.beats[place.slot] += 1
        asyncio.get_running_loop().call_later(BEAT_S, beat)

    def started() -> None:
        guard.start()
        # The server takes connections once the startup has returned to it, and only then the loop runs on.
        asyncio.get_running_loop().call_later(FIRST_BEAT_S, beat)

    return _LifespanWatcher(app, started, base.lifecycle)


class _Stop:
    """What happens on SIGTERM and SIGINT, in this order: readiness turns, no connection is taken any more,
    streams end, the server stops.

    SIGTERM leaves DRAIN_S between the first and the second. A worker that is restarted takes no connection
    from the beginning, for its successor does. A second signal ends the wait.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        listener: ListeningSocket,
        stop_streams: Callable[[], None],
        stays: Callable[[], int],
        drain_s: float,
    ) -> None:
        self._lifecycle = lifecycle
        self._listener = listener
        self._stop_streams = stop_streams
        self._stays = stays
        self._drain_s = drain_s
        self._stopped = False
        self.event: Any = None

    def begin(self, number: signal.Signals) -> None:
        loop = asyncio.get_running_loop()
        waits = number == signal.SIGTERM and not self._lifecycle.is_stopping
        self._lifecycle.stop()
        if waits and self._stays():
            self._listener.close()
            loop.call_later(RESTART_S, self.finish)
        elif waits and self._drain_s:
            loop.call_later(self._drain_s, self._listener.close)
            loop.call_later(self._drain_s + CLOSE_S, self.finish)
        else:
            self.finish()

    def finish(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._stop_streams()
            self.event.set()


def _on_stop(stop: _Stop) -> None:
    """Have signals handled in the event loop, before the server does."""
    server_signals: Any = _signals
    set_loop_signals = server_signals.set_loop_signals

    def set_both(loop: asyncio.AbstractEventLoop) -> Any:
        stop.event = set_loop_signals(loop)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.begin, number)
        return stop.event

    server_signals.set_loop_signals = set_both


def _stop_with(parent: int) -> None:
    """Stop this worker when its parent is gone. An orphan would keep the port open."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)


async def _send_and_close(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], (b"connection", b"close")]
    await send(message)


class _LifespanWatcher:
    """The outermost ASGI layer. It calls `started` after the app's startup, and logs a failed startup.

    When the service is about to stop, every response ends its connection, so that clients and proxies keep
    no idle connection that would be closed just as they use it.
    """

    def __init__(self, app: App, started: Callable[[], None], lifecycle: Lifecycle) -> None:
        self._app = app
        self._started = started
        self._lifecycle = lifecycle

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        if self._lifecycle.is_stopping and scope["type"] == "http":
            return self._app(scope, receive, partial(_send_and_close, send))
        return self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def observed(message: Message) -> None:
            kind: str = message["type"]
            if kind == "lifespan.startup.complete":
                self._started()
            elif kind.endswith(".failed"):
                log: Any = structlog.get_logger("serve")
                log.error("a worker failed", at=kind, why=message.get("message", ""))
            await send(message)

        await self._app(scope, receive, observed)
