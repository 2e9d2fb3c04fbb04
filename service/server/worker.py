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

from service.app import create_app, layered
from service.environment import load
from service.errors import Stop
from service.http.connections import App, Client, ConnectionGuard, Message, Receive, Scope, Send
from service.observe.log import set_up_logs

BEAT_S: Final = 1.0
FIRST_BEAT_S: Final = 0.01
STOPPED: Final = 2  # exit status of a worker that can never start and has printed the reason
COLLECT: Final = (20_000, 20, 20)  # thresholds of the three generations (gc.set_threshold)
ORPHAN_CHECK_S: Final = 0.5
ORPHAN_GRACE_S: Final = 10


def build(beats: Any, index: int, places: int) -> App:
    """Build a worker's app. It increments `beats[index]`. A `Stop` is printed and ends the process."""
    Thread(target=_stop_with, args=(os.getppid(),), daemon=True).start()
    try:
        settings = load(os.environ)
        set_up_logs(settings.logs)
        running: set[Client] = set()
        app = cast("App", layered(create_app(settings), running))
    except Stop as stop:
        sys.stderr.write(f"tally: {stop}\n")
        sys.exit(STOPPED)
    guard = ConnectionGuard(settings.server, places, running)
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
