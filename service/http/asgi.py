"""ASGI types, and access to request headers."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def header_of(scope: Any, name: bytes) -> str:
    """A request header's value: all its lines joined by commas, or empty if it is missing."""
    return field_of(scope, name).decode("latin-1")


def field_of(scope: Any, name: bytes) -> bytes:
    """The same as it was sent."""
    return b",".join([value for each, value in scope["headers"] if each == name])


EVENT_STREAM: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
"""Headers of an event stream."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
