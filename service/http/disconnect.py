"""Cancel requests of clients that have disconnected."""

import asyncio
from collections.abc import Awaitable
from typing import Final

from service.http.asgi import SAFE_METHODS, App, Message, Receive, Scope, Send


class DisconnectMiddleware:
    """ASGI layer that cancels reads and batches when the client disconnects. It never cancels changes.

    Watching a connection costs time. So it begins one to two times `WATCH_AFTER_S` after the request, and
    ends when the response begins. All requests share one timer, because a timer for each costs time too.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._young: set[_Client] = set()
        self._older: set[_Client] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"] in SAFE_METHODS or scope["path"].endswith(_READS)):
            client = _Client(receive, send, body_complete=scope["method"] in SAFE_METHODS)
            self._young.add(client)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._look)
            try:
                await self._app(scope, client.receive, client.send)
            except asyncio.CancelledError:
                if not client.has_cancelled():
                    raise
            finally:
                client.end_watch()
                self._young.discard(client)
                self._older.discard(client)
        else:
            await self._app(scope, receive, send)

    def _look(self) -> None:
        for client in self._older:
            client.begin_watch()
        self._young, self._older = set(), self._young
        self._timer = None
        if self._older:
            self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._look)


class _Client:
    """The `receive` and `send` of one request, and a task that waits for the client's disconnect."""

    def __init__(self, receive: Receive, send: Send, *, body_complete: bool) -> None:
        self._receive = receive
        self._send = send
        self._body_complete = body_complete
        self._unread: list[Message] = []
        self._watch: asyncio.Task[None] | None = None
        self._disconnected = False
        self._started = False
        self._task = asyncio.current_task()

    def has_cancelled(self) -> bool:
        """Whether nobody but this watch has cancelled the request."""
        return self._disconnected and self._task is not None and not self._task.uncancel()

    async def receive(self) -> Message:
        if self._unread:
            return self._unread.pop(0)
        self.end_watch()
        message = await self._receive()
        self._body_complete = self._body_complete or not message.get("more_body", False)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        self._started = True
        self.end_watch()
        return self._send(message)

    def begin_watch(self) -> None:
        """Cancel the request when its client disconnects, unless its response has begun."""
        if self._body_complete and self._task and not self._started:
            self._watch = asyncio.create_task(self._wait_for_end(self._task))

    def end_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _wait_for_end(self, task: "asyncio.Task[None]") -> None:
        message = await self._receive()
        if message["type"] != "http.disconnect":  # a request body that the app has not read yet
            self._unread.append(message)
            message = await self._receive()
        if message["type"] == "http.disconnect":
            self._disconnected = True
            task.cancel()


_READS: Final = ("/batch", "/mcp")
"""Ends of the paths whose POST changes nothing."""
WATCH_AFTER_S: Final = 0.05
