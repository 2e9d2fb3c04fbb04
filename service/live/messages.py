"""The messages of the WebSocket `/live`, each told by its `type`."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from service.auth.tokens import TOKEN_BYTES
from service.http import bodies
from service.http.asgi import Message


class Auth(Struct, tag="auth", forbid_unknown_fields=True):
    token: Annotated[str, Meta(max_length=TOKEN_BYTES)]


class Subscribe(Struct, tag="subscribe", forbid_unknown_fields=True):
    """`etag` is that of the result that the client holds."""

    id: str
    parameters: dict[str, Any] = {}
    etag: str = ""


class Unsubscribe(Struct, tag="unsubscribe", forbid_unknown_fields=True):
    id: str
    parameters: dict[str, Any] = {}


class Ping(Struct, tag="ping", forbid_unknown_fields=True):
    pass


Incoming = Auth | Subscribe | Unsubscribe | Ping


class Outgoing(Struct, omit_defaults=True):
    """Any message to the client."""

    type: Literal["result", "stale", "fresh", "alert", "gone", "denied", "error", "pong", "heartbeat"]
    id: Any = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    etag: str | UnsetType = UNSET
    since: Any = UNSET
    open: int | UnsetType = UNSET
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET


def as_text(message: Outgoing) -> Message:
    return {"type": "websocket.send", "text": bodies.encode(message).decode()}
