"""A worker process: it runs the app and the connection guard, and sends heartbeats to the supervisor."""

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any, Final, cast

import structlog
from granian import _signals

from service.app import create_app, drain, layered
from service.environment import load
from service.errors import Stop
from service.http.connections import App, Client, ConnectionGuard, Message, Receive, Scope, Send
from service.observe.counters import SharedCounters
from service.observe.log import set_up_logs
from service.observe.prometheus import Prometheus

BEAT_S: Final = 1.0
FIRST_BEAT_S: Final = 0.01
STOPPED: Final = 2  # exit status of a worker that can never start and has printed the reason
COLLECT: Final = (20_000, 20, 20)  # thresholds of the three generations (gc.set_threshold)
CUT_AFTER_S: Final = 5.0  # how long after SIGTERM a live client may take to read
ORPHAN_CHECK_S: Final = 0.5
ORPHAN_GRACE_S: Final = 10


def build(beats: Any, counters: Any, page: int | None, index: int, places: int) -> App:
    """Build a worker's app. It increments `beats[index]`, and counts events on a page of `counters`.

    A `Stop` is printed and ends the process.
    """
    Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
    try:
        settings = load(os.environ)
        set_up_logs(settings.logs)
        running: set[Client] = set()
        routed = create_app(settings, None if page is None else Prometheus(SharedCounters(counters), page))
        app = cast("App", layered(routed, running))
    except Stop as stop:
        sys.stderr.write(f"tally: {stop}\n")
        sys.exit(STOPPED)
    guard = ConnectionGuard(settings.server, places, running)

    def stop_streams() -> None:
        """End the live streams, for whose end the server waits, and cut off clients that do not read."""
        drain(routed)

        def cut() -> None:
            guard.cut(frozenset(drain(routed)))

        asyncio.get_running_loop().call_later(min(CUT_AFTER_S, settings.server.grace_s / 2), cut)

    _on_stop(stop_streams)
    # The cache holds many small objects and hardly any cycles. A full collection would stop every caller for
    # tens of milliseconds. The objects built so far live forever, so collections skip them.
    gc.freeze()
    gc.set_threshold(*COLLECT)

    def beat() -> None:
        beats[index] += 1
        asyncio.get_running_loop().call_later(BEAT_S, beat)

    def started() -> None:
        guard.start()
        # The server takes connections once the startup has returned to it, and only then the loop runs on.
        asyncio.get_running_loop().call_later(FIRST_BEAT_S, beat)

    return _LifespanWatcher(app, started)


def _on_stop(act: Callable[[], None]) -> None:
    """Call `act` in the event loop on SIGTERM or SIGINT, before the server stops."""
    server_signals: Any = _signals
    set_loop_signals = server_signals.set_loop_signals

    def set_both(loop: asyncio.AbstractEventLoop) -> Any:
        event = set_loop_signals(loop)

        def stop() -> None:
            act()
            event.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return event

    server_signals.set_loop_signals = set_both


def _stop_with(parent: int) -> None:
    """Stop this worker when its parent is gone. An orphan would keep the port open."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)


class _LifespanWatcher:
    """The outermost ASGI layer. It calls `started` after the app's startup, and logs a failed startup."""

    def __init__(self, app: App, started: Callable[[], None]) -> None:
        self._app = app
        self._started = started

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
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
