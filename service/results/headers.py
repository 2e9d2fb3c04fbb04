"""What the headers of a request ask of a held answer, and what those of a reply say of it.

One place for both ways to a result, so that they cannot differ.
"""

import re
from math import inf
from typing import Final

from msgspec import Struct

from service.results.table import Served
from service.wire import Coding

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


def result_headers(served: Served, coding: Coding, now: float) -> dict[str, str]:
    """What a reply with this answer says beside its length; the coding's bytes were made before."""
    entry, terms = served.entry, served.entry.terms
    age = max(0, int(now - terms.made_at))
    lifetime = f"private, max-age={terms.max_age}, stale-while-revalidate={int(terms.stale_for_s)}"
    headers = {
        "etag": entry.representations[coding].etag,
        "content-type": entry.media_type,
        "cache-control": f"{lifetime}, stale-if-error={int(terms.stale_if_error_s)}",
        "age": str(age),
        "cache-status": _cache_status(served, age),
        "server-timing": entry.timings if served.forward else "hit",
        "vary": "Accept, Accept-Encoding",
    }
    if coding != "identity":
        headers["content-encoding"] = coding
    return headers


def _cache_status(served: Served, age: int) -> str:
    """RFC 9211; `ttl` is what is left of a freshness that time bounds, or how long it is over."""
    if served.forward is not None:
        return f"tally; fwd={served.forward}{'; collapsed' if served.collapsed else ''}"
    if served.stale_s:
        return f"tally; hit; ttl=-{served.stale_s}; detail=stale"
    lifetime = served.entry.terms.fresh_until - served.entry.terms.made_at
    return "tally; hit" if lifetime == inf else f"tally; hit; ttl={max(0, int(lifetime) - age)}"
