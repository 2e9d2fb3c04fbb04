"""Cancel requests of clients that have disconnected."""

import asyncio
from typing import Final

from service.http.asgi import SAFE_METHODS, App, Message, Receive, Scope, Send


class DisconnectMiddleware:
    """ASGI layer that cancels reads and batches when the client disconnects. It never cancels changes.

    Watching a connection costs time. So it begins `WATCH_AFTER_S` after the request, and ends when the
    response begins.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"] in SAFE_METHODS or scope["path"].endswith("/batch")):
            await _Client(receive, send).serve(self._app, scope)
        else:
            await self._app(scope, receive, send)


class _Client:
    """The `receive` and `send` of one request, and a task that waits for the client's disconnect."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._body_complete = False
        self._unread: list[Message] = []
        self._watch: asyncio.Task[None] | None = None
        self._disconnected = False

    async def serve(self, app: App, scope: Scope) -> None:
        task = asyncio.current_task()
        assert task, "each request runs in a task"
        self._body_complete = scope["method"] in SAFE_METHODS
        timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin_watch, task)
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._disconnected or task.uncancel():
                raise
        finally:
            timer.cancel()
            self._end_watch()

    async def receive(self) -> Message:
        if self._unread:
            return self._unread.pop(0)
        self._end_watch()
        message = await self._receive()
        self._body_complete = self._body_complete or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self._end_watch()
        await self._send(message)

    def _begin_watch(self, task: "asyncio.Task[None]") -> None:
        if self._body_complete:
            self._watch = asyncio.create_task(self._wait_for_end(task))

    def _end_watch(self) -> None:
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


WATCH_AFTER_S: Final = 0.05
