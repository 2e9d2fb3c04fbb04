"""Cursors of paged lists. A cursor is an opaque text that encodes the position of a page's last item."""

from typing import Annotated, TypeVar

import msgspec
from litestar.params import QueryParameter

from service.errors import FieldError, InvalidInput
from service.http import base64url
from service.http.ids import MAX_ID

T = TypeVar("T")

Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the previous page")]


def write_cursor(position: object) -> str:
    return base64url.encode(msgspec.json.encode(position)).decode()


def read_cursor(cursor: str, position: type[T]) -> T:
    """Decode a position of this type. Raises `InvalidInput` unless `write_cursor` made the text."""
    try:
        decoded = msgspec.json.decode(base64url.decode(cursor.encode()), type=position)
    except (ValueError, msgspec.MsgspecError):
        decoded = None
    if decoded is None or write_cursor(decoded) != cursor:
        raise _unknown()
    return decoded


def read_id_cursor(cursor: str | None, first: int) -> int:
    """Decode a position in a list sorted by id. `first` is the position before the first page."""
    if cursor is None:
        return first
    position = read_cursor(cursor, int)
    if not 0 <= position < MAX_ID:
        raise _unknown()
    return position


def _unknown() -> InvalidInput:
    return InvalidInput(errors=(FieldError("cursor", "not a cursor of this list"),))
