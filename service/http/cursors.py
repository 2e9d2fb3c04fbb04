"""Cursors of paged lists. A cursor is an opaque text that encodes the position of a page's last item."""

from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar.params import QueryParameter

from service.errors import FieldError, InvalidInput
from service.http import base64url
from service.http.ids import MAX_ID

T = TypeVar("T")

MAX_PAGE: Final = 500

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="items in a page")]
Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the previous page")]


def write_cursor(position: object) -> str:
    return base64url.encode(msgspec.json.encode(position)).decode()


def page_of(
    found: list[T], limit: int, position: Callable[[T], Any] = attrgetter("id")
) -> tuple[list[T], str | None]:
    """The items of a page, of which up to `limit` + 1 were read, and the cursor of the next page, if any."""
    shown = found[:limit]
    return shown, write_cursor(position(shown[-1])) if len(found) > limit else None


def read_cursor(cursor: str | None, position: type[T]) -> T | None:
    """Decode a position of this type; None without a cursor.

    Raises `InvalidInput` unless `write_cursor` made the text.
    """
    if cursor is None:
        return None
    try:
        decoded = msgspec.json.decode(base64url.decode(cursor.encode()), type=position)
    except (ValueError, msgspec.MsgspecError):
        decoded = None
    if decoded is None or write_cursor(decoded) != cursor:
        raise _unknown()
    return decoded


def read_id_cursor(cursor: str | None, first: int) -> int:
    """Decode a position in a list sorted by id. `first` is the position before the first page."""
    position = read_cursor(cursor, int)
    if position is None:
        return first
    if not 0 <= position < MAX_ID:
        raise _unknown()
    return position


def _unknown() -> InvalidInput:
    return InvalidInput(errors=(FieldError("cursor", "not a cursor of this list"),))
