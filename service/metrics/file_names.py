"""Names of files that hold a result: what it is, of which parameters, and as of when."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import quote

_NO_WORD: Final = re.compile(r"\W+")  # a dot after `con` or `nul` names a device of Windows
_UNSAFE: Final = re.compile(r"[^\w=.+-]+")  # \w has letters and digits only: no marks that turn text around
_EDGES: Final = "-._ "
_TITLE_BYTES: Final = 80
_VALUE_BYTES: Final = 40
_NAME_BYTES: Final = 200
"""File systems take 255, and browsers add to a name that is there already."""
_ATTRIBUTE: Final = "!#$&+-.^_`|~"
"""Characters of RFC 5987 that need no percent sign, beside letters and digits."""


def disposition(
    title: str | None, parameters: Mapping[str, Any], as_of: datetime, *, first_rows: int | None = None
) -> str:
    """The `Content-Disposition` of a result as CSV (RFC 6266): a name in ASCII, and the same in UTF-8."""
    name = file_name(title, parameters, as_of, first_rows=first_rows)
    plain = _UNSAFE.sub("-", unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode())
    plain = plain.lstrip("-. ")  # what is left of a title in other letters
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe=_ATTRIBUTE)}"


def file_name(
    title: str | None, parameters: Mapping[str, Any], as_of: datetime, *, first_rows: int | None = None
) -> str:
    """Such as `Alerts-by-type_start_date=2025-06-01_as-of-20250802T090000Z.csv`.

    `first_rows` is the number of rows if there are more than the file has, which no cell of it can tell.
    No part of it can leave a folder, hide the file, end its name early or be a device of Windows.
    """
    cut = "" if first_rows is None else f"_first-{first_rows}-rows-only"
    end = f"{cut}_as-of-{as_of.astimezone(UTC):%Y%m%dT%H%M%SZ}.csv"
    found = _safe(_NO_WORD.sub("-", title or ""), _TITLE_BYTES) or "metric"
    for name, value in parameters.items():
        if value is None:
            continue
        part = f"_{_safe(name, _VALUE_BYTES)}={_safe(_text(value), _VALUE_BYTES)}"
        if len((found + part + end).encode()) > _NAME_BYTES:
            break
        found += part
    return found + end


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "+".join(_text(each) for each in cast("list[Any]", value))
    return str(value)


def _safe(text: str, limit: int) -> str:
    """The text with a hyphen for everything that a file name should not have."""
    found = _UNSAFE.sub("-", unicodedata.normalize("NFC", text[: limit * 4])).strip(_EDGES)
    return found.encode()[:limit].decode("utf-8", "ignore").strip(_EDGES)
