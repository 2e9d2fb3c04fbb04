"""Notices that results have changed: what those who send them and those who write them agree on."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from msgspec import Struct

from service.auth.live import Credential
from service.errors import Problem
from service.http.asgi import Receive, Send

Given = list[tuple[str, str]] | dict[str, Any]
"""Parameters as a query string has them, or as JSON has them."""


class Followed(Struct, frozen=True):
    """A result to follow, and the event that tells of its changes."""

    metric_id: UUID
    given: Given
    changed: bytes


class Events(Struct, frozen=True):
    """The other events of a stream: its first, its last, and that metrics came, went or changed."""

    opened: bytes
    ended: bytes
    denied: Callable[[Problem], bytes]
    listed: bytes | None = None


OpenedStream = Callable[[tuple[str, int] | None, Receive, Send], Awaitable[None]]
OpenNotices = Callable[
    [Credential | None, list[Followed], Events, Callable[[], Awaitable[None]]], Awaitable[OpenedStream]
]
"""Opens a stream of notices. It calls the last argument, which begins the response, once all is followed."""
