"""What the headers of a request ask of a held answer, and what those of a reply say of it.

One place for both ways to a result, so that they cannot differ.
"""

import re
from collections.abc import Iterable
from math import inf
from typing import Final, NamedTuple

from msgspec import Struct

from service.results.table import Entry, Headers, Served
from service.wire import Coding, Message, matches

Messages = tuple[Message, Message]

_MAX_AGE: Final = re.compile(r'max-age="?(\d{1,10})"?')


class Directives(Struct, frozen=True):
    """A request's Cache-Control: run anew, or take nothing older than `max_age` seconds."""

    no_cache: bool = False
    max_age: int | None = None


def directives(cache_control: str) -> Directives:
    """Read `Cache-Control`; unknown directives are passed over, as RFC 9111 has it."""
    no_cache, ages = False, list[int]()
    for part in cache_control.lower().split(","):
        directive = part.strip()
        no_cache = no_cache or directive == "no-cache"
        if found := _MAX_AGE.fullmatch(directive):
            ages.append(int(found[1]))
    return Directives(no_cache, min(ages, default=None))


class Reply(NamedTuple):
    """An answer as it is sent: its body, the headers that a 304 goes without, and all others."""

    body: bytes
    of_the_body: Headers
    others: Headers
    etag: str

    def messages(self, if_none_match: bytes | None, extra: Iterable[tuple[bytes, bytes]]) -> Messages:
        """The reply to a GET, which is 304 to somebody who holds it."""
        if if_none_match is not None and matches(if_none_match.decode("latin-1"), self.etag):
            headers = [*self.others, *extra]
            return {"type": "http.response.start", "status": 304, "headers": headers}, _NO_BODY
        headers = [*self.of_the_body, *self.others, *extra]
        return (
            {"type": "http.response.start", "status": 200, "headers": headers},
            {"type": "http.response.body", "body": self.body, "more_body": False},
        )

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in (*self.of_the_body, *self.others)}


_NO_BODY: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


def reply(served: Served, coding: Coding, now: float) -> Reply:
    """Say of an answer what is due at `now`; the coding's bytes were made before."""
    entry = served.entry
    body, etag = entry.representations[coding]
    of_the_body, lasting = entry.heads.get(coding) or _head(entry, coding)
    age = max(0, int(now - entry.terms.made_at))
    passing = (
        (b"age", b"%d" % age),
        (b"cache-status", _cache_status(served, age)),
        (b"server-timing", entry.timings.encode() if served.forward else b"hit"),
    )
    return Reply(body, of_the_body, [*lasting, *passing], etag)


def _head(entry: Entry, coding: Coding) -> tuple[Headers, Headers]:
    """What stays the same for as long as the answer is held: of its body, and of the rest."""
    body, etag = entry.representations[coding]
    terms = entry.terms
    lifetime = f"private, max-age={terms.max_age}, stale-while-revalidate={int(terms.stale_for_s)}"
    of_the_body: Headers = [
        (b"content-type", entry.media_type.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    if coding != "identity":
        of_the_body.append((b"content-encoding", coding.encode()))
    lasting: Headers = [
        (b"etag", etag.encode()),
        (b"cache-control", f"{lifetime}, stale-if-error={int(terms.stale_if_error_s)}".encode()),
        (b"vary", b"Accept, Accept-Encoding"),
    ]
    entry.heads[coding] = of_the_body, lasting
    return of_the_body, lasting


def _cache_status(served: Served, age: int) -> bytes:
    """RFC 9211; `ttl` is what is left of a freshness that time bounds, or how long it is over."""
    if served.forward is not None:
        return b"tally; fwd=%s%s" % (served.forward.encode(), b"; collapsed" if served.collapsed else b"")
    if served.stale_s:
        return b"tally; hit; ttl=-%d; detail=stale" % served.stale_s
    terms = served.entry.terms
    if terms.fresh_until == inf:
        return b"tally; hit"
    return b"tally; hit; ttl=%d" % max(0, int(terms.fresh_until - terms.made_at) - age)
