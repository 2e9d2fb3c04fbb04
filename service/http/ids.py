"""Parse ids in paths and bodies."""

from typing import Final
from uuid import UUID

import msgspec

from service.errors import FieldError, InvalidInput, NotFound

MAX_ID: Final = 2**63 - 1
"""The largest bigint."""
_SHOWN: Final = 60  # characters of a wrong id that an error repeats


def read_uuid(text: str) -> UUID | None:
    """Parse a UUID in any case, with or without dashes. Returns None for every other text."""
    try:
        return msgspec.convert(text, UUID, strict=False)
    except msgspec.ValidationError:
        return None


def parse_uuid(text: str) -> UUID:
    """Parse a UUID. Raises `InvalidInput` for every other text."""
    found = read_uuid(text)
    if found is None:
        raise not_a_uuid(text)
    return found


def not_a_uuid(text: str) -> InvalidInput:
    return InvalidInput(errors=(FieldError("id", f"{text[:_SHOWN]!r} is not a UUID"),))


def route_parts(path: str) -> list[str]:
    """The parts of a path below `/api/v1` or the root. Like the router, it treats repeated slashes as one."""
    parts = [part for part in path.split("/") if part]
    return parts[2:] if parts[:2] == ["api", "v1"] else parts


def metric_of(path: str, *, whole: bool = False) -> UUID | None:
    """The metric that a path is about; `whole`: only if the path names nothing but the metric."""
    parts = route_parts(path)
    if len(parts) < _METRIC_PARTS or parts[0] != "metrics" or (whole and len(parts) > _METRIC_PARTS):
        return None
    return read_uuid(parts[1])


_METRIC_PARTS: Final = 2


def parse_number(text: str, field: str = "id", *, smallest: int = 1) -> int:
    """Read an id of decimal digits.

    Raises `InvalidInput` for text other than digits, or a number below `smallest` (0 or 1). Raises `NotFound`
    above `MAX_ID`, because no row can have that id.
    """
    digits = text.lstrip("0") or text[-1:]
    if not (digits.isascii() and digits.isdigit() and (smallest == 0 or digits != "0")):
        raise InvalidInput(errors=(FieldError(field, f"{text[:_SHOWN]!r} is not a positive integer"),))
    if len(digits) > len(str(MAX_ID)) or int(digits) > MAX_ID:
        raise NotFound(f"There is no {field.removesuffix('_id')} {text[:_SHOWN]}.")
    return int(digits)
