"""Cancel what runs for a client that has gone."""

import asyncio
from typing import Final

from service.http.asgi import SAFE_METHODS, App, Message, Receive, Scope, Send


class DisconnectMiddleware:
    """ASGI layer that cancels what runs for a caller who has gone: reads and batches, never changes.

    Watching costs, so it begins when an answer has taken `WATCH_AFTER_S`, and ends when the answer begins.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"] in SAFE_METHODS or scope["path"].endswith("/batch")):
            await _Caller(receive, send).serve(self._app, scope)
        else:
            await self._app(scope, receive, send)


class _Caller:
    """One caller: `receive` and `send` as the app sees them, and a watch for the end of the connection."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._read = False
        self._kept: list[Message] = []
        self._watch: asyncio.Task[None] | None = None
        self._gone = False

    async def serve(self, app: App, scope: Scope) -> None:
        task = asyncio.current_task()
        assert task, "a request is served in a task"
        self._read = scope["method"] in SAFE_METHODS
        timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin_watch, task)
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._gone or task.uncancel():
                raise
        finally:
            timer.cancel()
            self._end_watch()

    async def receive(self) -> Message:
        if self._kept:
            return self._kept.pop(0)
        self._end_watch()
        message = await self._receive()
        self._read = self._read or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self._end_watch()
        await self._send(message)

    def _begin_watch(self, task: "asyncio.Task[None]") -> None:
        if self._read:
            self._watch = asyncio.create_task(self._wait_for_end(task))

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _wait_for_end(self, task: "asyncio.Task[None]") -> None:
        message = await self._receive()
        if message["type"] != "http.disconnect":  # the body of a request that nobody has asked for yet
            self._kept.append(message)
            message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            task.cancel()


WATCH_AFTER_S: Final = 0.05
