"""What the headers of a request ask of a held answer, and what those of a reply say of it.

One place for both ways to a result, so that they cannot differ.
"""

import re
from math import inf
from typing import Final

from msgspec import Struct

from service.http.representation import Coding
from service.results.table import CacheOutcome, Headers, Reply

# What the answers of an address with formats depend on, whichever of them it is.
VARY: Final = "Accept, Accept-Encoding"

_MAX_AGE: Final = re.compile(r'max-age="?(\d{1,10})"?')


class Directives(Struct, frozen=True):
    """A request's Cache-Control: run anew, or take nothing older than `max_age` seconds."""

    no_cache: bool = False
    max_age: int | None = None


ANY: Final = Directives()


def directives(cache_control: str) -> Directives:
    """Read `Cache-Control`; unknown directives are passed over, as RFC 9111 has it."""
    if not cache_control:
        return ANY
    no_cache, ages = False, list[int]()
    for part in cache_control.lower().split(","):
        directive = part.strip()
        no_cache = no_cache or directive == "no-cache"
        if found := _MAX_AGE.fullmatch(directive):
            ages.append(int(found[1]))
    return Directives(no_cache, min(ages, default=None))


def reply(served: CacheOutcome, coding: Coding, now: float) -> Reply:
    """Say of an answer what is due at `now`; the coding's bytes were made before."""
    entry = served.entry
    age = max(0, int(now - entry.terms.made_at))
    if served.forward is not None or served.stale_s:
        return _reply(served, coding, age)
    known = entry.hits.get(coding)
    if known is None or known[0] != age:
        known = entry.hits[coding] = age, _reply(served, coding, age)
    return known[1]


def _reply(served: CacheOutcome, coding: Coding, age: int) -> Reply:
    entry, terms = served.entry, served.entry.terms
    made = entry.representations[coding]
    body, etag = made
    of_the_body: Headers = [
        (b"content-type", entry.media_type.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    if made is not entry.representations["identity"]:
        of_the_body.append((b"content-encoding", coding.encode()))
    lifetime = f"private, max-age={terms.max_age}, stale-while-revalidate={int(terms.stale_for_s)}"
    others: Headers = [
        (b"etag", etag.encode()),
        (b"cache-control", f"{lifetime}, stale-if-error={int(terms.stale_if_error_s)}".encode()),
        (b"vary", VARY.encode()),
        (b"age", b"%d" % age),
        (b"cache-status", _cache_status(served, age)),
        (b"server-timing", entry.timings.encode() if served.forward else b"hit"),
    ]
    return Reply(body, etag, of_the_body, others)


def _cache_status(served: CacheOutcome, age: int) -> bytes:
    """RFC 9211; `ttl` is what is left of a freshness that time bounds, or how long it is over."""
    if served.forward is not None:
        return b"tally; fwd=%s%s" % (served.forward.encode(), b"; collapsed" if served.collapsed else b"")
    if served.stale_s:
        return b"tally; hit; ttl=-%d; detail=stale" % served.stale_s
    terms = served.entry.terms
    if terms.fresh_until == inf:
        return b"tally; hit"
    return b"tally; hit; ttl=%d" % max(0, int(terms.fresh_until - terms.made_at) - age)
