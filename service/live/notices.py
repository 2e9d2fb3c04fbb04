"""Streams that tell that results changed, and not what they are. Others write their events."""

import asyncio
from collections.abc import Awaitable, Callable

from service.auth.live import Credential
from service.errors import Problem
from service.live.hub import Hub, Watch
from service.live.streams import EventStream, OpenStream
from service.metrics.catalog import LIST
from service.metrics.notices import Events, Followed, OpenedStream

_NONE = "none"
"""What a client holds that was told of no result."""


class NoticeStream(EventStream):
    __slots__ = ("_event_of", "_own")

    def __init__(self, credential: Credential | None, events: Events) -> None:
        super().__init__(credential, many=False)  # each result takes its own parameters
        self._own = events
        self._event_of: dict[Watch, bytes] = {}

    def follow(self, followed: list[Followed]) -> None:
        for each in followed:
            self._event_of[Watch(self, each.metric_id, each.given)] = each.changed
        self.watches = tuple(self._event_of)

    def open(self) -> None:
        """Take what is known now as what the client may read, and say that the stream is open."""
        for watch in self.watches:
            watch.held = _state(watch)
        self._changed.clear()
        self._last = self._own.opened

    def listed(self) -> None:
        """Say that metrics came, went or changed, once until the client has taken it."""
        if self._own.listed and not self._ends and self._own.listed not in self._last:
            self._last += self._own.listed
            self.flush()

    def gone(self, watch: Watch) -> None:
        """The resource ends: the client finds out by reading it again."""
        if not self._ends:
            self._last += self._event_of.pop(watch, b"")
            self._changed.pop(watch, None)
            self.watches = tuple(self._event_of)
            self.flush()

    def deny(self, problem: Problem) -> None:
        self._end(self._own.denied(problem))

    def go_away(self) -> None:
        self._end(self._own.ended)

    def _events(self, watch: Watch) -> bytes:
        state = _state(watch)
        if not watch.lacks(state):
            return b""
        watch.held = state
        return self._event_of.get(watch, b"")


def _state(watch: Watch) -> str:
    return (watch.topic.tag if watch.topic is not None else "") or _NONE


async def open_notices(
    hub: Hub,
    credential: Credential | None,
    followed: list[Followed],
    events: Events,
    begin: Callable[[], Awaitable[None]],
) -> OpenedStream:
    """Follow results, and begin the response when each has a first state: no later change is missed.

    Raises `LiveUnavailable`, `TooManyStreams` and the problems of a metric and its parameters.
    """
    stream = NoticeStream(credential, events)
    stream.follow(followed)
    hub.enter(stream, len(followed))
    try:
        async with asyncio.TaskGroup() as group:
            for watch in stream.watches:
                group.create_task(hub.attach(watch))
        if events.listed is not None:
            hub.follow_owner(stream, LIST, stream.listed)
        stream.open()
        await begin()
    except BaseExceptionGroup as errors:
        hub.leave(stream, stream.watches)
        raise _first(errors) from None
    except BaseException:
        hub.leave(stream, stream.watches)
        raise
    return OpenStream(hub, stream)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    return next((each for each in errors.exceptions if isinstance(each, Problem)), errors.exceptions[0])
