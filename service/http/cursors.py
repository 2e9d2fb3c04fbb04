"""Cursors of paged lists: an opaque text for the position of the last item of a page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, TypeVar

import msgspec
from litestar.params import QueryParameter

from service.errors import FieldError, InvalidInput
from service.http.ids import MAX_ID

T = TypeVar("T")

Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")]


def write_cursor(position: object) -> str:
    return urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def read_cursor(cursor: str, position: type[T]) -> T:
    """Read a position of this type. Raises `InvalidInput` for a text that `write_cursor` did not make."""
    try:
        read = msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=position)
    except (ValueError, msgspec.MsgspecError):
        read = None
    if read is None or write_cursor(read) != cursor:
        raise _unknown()
    return read


def read_id_cursor(cursor: str | None, first: int) -> int:
    """Read the position in a list that is sorted by id; `first` is the one before the first page."""
    if cursor is None:
        return first
    position = read_cursor(cursor, int)
    if not 0 <= position < MAX_ID:
        raise _unknown()
    return position


def _unknown() -> InvalidInput:
    return InvalidInput(errors=(FieldError("cursor", "not a cursor of this list"),))
