"""Write a result's response headers: `CacheHitMiddleware` and `ResultEndpoint` share them."""

from math import inf
from typing import Final

from service.http.asgi import Headers
from service.http.representation import Coding
from service.results.table import CacheOutcome, Entry, Reply

# All formats of a result have the same Vary header.
VARY: Final = "Accept, Accept-Encoding"


def reply(outcome: CacheOutcome, coding: Coding, now: float) -> Reply:
    """Make the reply for an outcome at time `now`. The entry already holds the coding's bytes."""
    entry = outcome.entry
    age = max(0, int(now - entry.policy.made_at))
    made = _reply(outcome, coding, age)
    if outcome.forward is None and not outcome.stale_s:
        entry.hits[coding] = entry.policy.made_at + age + 1, made
    return made


def hit(entry: Entry, coding: Coding, now: float) -> Reply:
    """The reply to a hit: the same as `reply` makes, within a second the very one."""
    until, made = entry.hits.get(coding, _NEVER)
    if made is None or now >= until:
        return reply(CacheOutcome(entry), coding, now)
    return made


_NEVER: Final = (0.0, None)


def _reply(outcome: CacheOutcome, coding: Coding, age: int) -> Reply:
    entry, policy = outcome.entry, outcome.entry.policy
    representation = entry.representations[coding]
    body, etag = representation[0], representation[1].encode()
    lines: Headers = [
        (b"content-type", entry.media_type.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    if entry.disposition:
        lines.append((b"content-disposition", entry.disposition.encode()))
    if representation is not entry.representations["identity"]:
        lines.append((b"content-encoding", coding.encode()))
    omitted = len(lines)
    lifetime = f"private, max-age={policy.max_age}, stale-while-revalidate={int(policy.stale_for_s)}"
    lines += (
        (b"etag", etag),
        (b"cache-control", f"{lifetime}, stale-if-error={int(policy.stale_if_error_s)}".encode()),
        (b"vary", VARY.encode()),
        (b"age", b"%d" % age),
        (b"cache-status", _cache_status(outcome, age)),
        (b"server-timing", entry.timings.encode() if outcome.forward else b"hit"),
    )
    if entry.truncated:
        lines.append((b"tally-truncated", b"true"))
    return Reply(etag, lines, omitted, {"type": "http.response.body", "body": body, "more_body": False})


def _cache_status(outcome: CacheOutcome, age: int) -> bytes:
    """The `Cache-Status` field (RFC 9211). `ttl` is the rest of a limited freshness; negative once stale."""
    if outcome.forward is not None:
        return b"tally; fwd=%s%s" % (outcome.forward.encode(), b"; collapsed" if outcome.collapsed else b"")
    if outcome.stale_s:
        return b"tally; hit; ttl=-%d; detail=stale" % outcome.stale_s
    policy = outcome.entry.policy
    if policy.fresh_until == inf:
        return b"tally; hit"
    return b"tally; hit; ttl=%d" % max(0, int(policy.fresh_until - policy.made_at) - age)
