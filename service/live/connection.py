"""Write to one client without ever queueing: what is written next is rendered when the last is on its way."""

import asyncio
import types
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Final

from service.auth.live import Credential
from service.errors import Problem
from service.http.asgi import Message, Send

LAST_MESSAGE_S: Final = 5.0
ALERTS: Final = "alerts:read"


class Connection:
    """An event stream or a socket. `ended`: nothing more is written.

    No task waits for it while it is idle. A client that does not read gets a task for the one message that
    it does not take; meanwhile the newest state stays where it is.
    """

    many = False
    """Whether it has several metrics, each of which takes the parameters that it knows."""

    __slots__ = ("_send", "_writing", "client", "credential", "ended", "watching", "written_at")

    def __init__(self, credential: Credential | None) -> None:
        self.credential = credential
        self.client: tuple[str, int] | None = None
        self.ended = False
        self.watching = 0  # as `Places` counts
        self.written_at = 0.0
        self._send: Send | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def subject(self) -> str:
        return self.credential.principal.subject if self.credential else ""

    @property
    def claims(self) -> str:
        return self.credential.principal.claims if self.credential else ""

    def hears_alerts(self) -> bool:
        """Whether the caller may know of alerts. Without a credential everybody may everything."""
        return self.credential is None or ALERTS in self.credential.principal.scopes

    def tell(self, watch: Any) -> None:
        """Write the newest state of a watch."""
        raise NotImplementedError

    def gone(self, watch: Any) -> None:
        """Say that the metric was deleted."""
        raise NotImplementedError

    def fail(self, watch: Any, problem: Problem) -> None:
        """Say why there is no result."""
        raise NotImplementedError

    def deny(self, problem: Problem) -> None:
        """Say why the caller has no rights any more, and end."""
        raise NotImplementedError

    def go_away(self) -> None:
        """Say that the service stops, and end."""
        raise NotImplementedError

    def beat(self) -> None:
        """Write something, so that a lost client and an idle proxy are noticed."""
        raise NotImplementedError

    def _next_message(self) -> Message | None:
        """Render what is to be written now."""
        raise NotImplementedError

    def _taken(self) -> None:
        """The client, or the server for it, has taken the last message."""

    def flush(self) -> None:
        """Write what there is to write, unless the client has not taken the last message yet."""
        while self._send is not None and self._writing is None and not self.ended:
            message = self._next_message()
            if message is None:
                return
            loop = asyncio.get_running_loop()
            self.written_at = loop.time()
            step = self._send(message).__await__()
            try:
                waited_for = next(step)
            except StopIteration:
                self._taken()
                continue
            except Exception:  # noqa: BLE001 (whatever the server raises: the client has left)
                self.ended = True
                self._taken()
                return
            self._writing = loop.create_task(self._finish(_rest(waited_for, step)))

    async def finish(self) -> None:
        """Wait until the last message is on its way; no longer than `LAST_MESSAGE_S`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_MESSAGE_S):
                while self._writing is not None:
                    await asyncio.wait({self._writing})

    async def _finish(self, rest: Any) -> None:
        try:
            await rest
        except Exception:  # noqa: BLE001 (the same)
            self.ended = True
        finally:
            self._taken()
        self._writing = None
        self.flush()


@types.coroutine
def _rest(waited_for: Any, step: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The rest of a send that waits already."""
    yield waited_for
    return (yield from step)
