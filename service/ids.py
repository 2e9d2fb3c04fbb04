"""Ids as callers write them, read in one place: what is counted by id and what is answered cannot differ."""

from uuid import UUID

import msgspec


def read_uuid(text: str) -> UUID | None:
    """The id in any case, with dashes or without; None for every other text."""
    try:
        return msgspec.convert(text, UUID, strict=False)
    except msgspec.ValidationError:
        return None
