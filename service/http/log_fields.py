"""The fields of a request's log line: short, and without secrets."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from service.observe.events import Served

VALUE_CHARACTERS: Final = 200
QUERY_CHARACTERS: Final = 2000
MASK: Final = "***"

_SECRET_WORDS: Final = (
    "token", "ticket", "secret", "password", "passwd", "assertion", "credential", "signature",
)  # fmt: skip
_SECRET_NAME: Final = re.compile(rf"{'|'.join(_SECRET_WORDS)}|\bkey|api_?key")
_UNUSUAL: Final = (*_SECRET_WORDS, "key", "%", "+", ".", "&&")
"""A short query without any of these is shown as it is."""
# A JWT, and whatever looks like one. Each part is read once: the text may be as long as a request's head.
_TOKEN: Final = re.compile(r"(?<![\w-])[\w-]{8,}+\.[\w-]{8,}+\.[\w-]{8,}+")
_LINK: Final = re.compile(r"(?<=^/s/)[^/]+")


def shown_path(path: str) -> str:
    """The path without the token of a signed link."""
    return _LINK.sub(MASK, _TOKEN.sub(MASK, path)) if "." in path or path.startswith("/s/") else path


def shown_query(query: bytes) -> str:
    """The query string as it was sent, with long values cut and secrets masked."""
    text = query.decode("latin-1")
    if len(text) <= VALUE_CHARACTERS:
        contains = text.lower().__contains__
        if not any(map(contains, _UNUSUAL)):
            return text
    parts = [_shown(part) for part in text.split("&") if part]
    return _cut("&".join(parts), QUERY_CHARACTERS)


def _shown(part: str) -> str:
    name, equals, value = part.partition("=")
    if equals and _SECRET_NAME.search(unquote_plus(name).lower()):
        return f"{_cut(name)}={MASK}"
    if _TOKEN.search(unquote_plus(part)):
        return f"{_cut(name)}={MASK}" if equals and not _TOKEN.search(unquote_plus(name)) else MASK
    return f"{_cut(name)}{equals}{_cut(value)}"


def _cut(text: str, limit: int = VALUE_CHARACTERS) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def cache_outcome(headers: Iterable[tuple[bytes, bytes]]) -> Served | None:
    """Read `Cache-Status`: a hit, a stale hit, a miss, or a miss that another caller's run answered."""
    for name, value in headers:
        if name == b"cache-status":
            if b"; hit" in value:
                return "stale" if b"detail=stale" in value else "hit"
            return "joined" if b"collapsed" in value else "miss"
    return None


def caller_of(state: Mapping[str, Any]) -> str | None:
    """The subject of the token; None where none was needed."""
    principal = state.get("principal")
    return None if principal is None else principal.subject
