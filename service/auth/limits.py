"""Rate limits: one allowance per key, refilled evenly, in bounded memory.

The algorithm is GCRA: a key costs one float, the time at which its allowance is whole again.
Allowances are kept by each worker for itself.
"""

from collections.abc import Callable, Hashable
from math import ceil, floor
from time import monotonic

from msgspec import Struct

KEYS = 20_000
"""How many keys are stored. The least recently used key is evicted and then has a full allowance."""


class RateDecision(Struct, frozen=True):
    """`reset_s` is when the allowance is whole again, `retry_s` when one more request fits (0: at once)."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int
    retry_s: int


class Allowance:
    """Allows `limit` requests within `window_s` seconds for each key, also as a burst."""

    def __init__(self, limit: int, window_s: int, *, now: Callable[[], float] = monotonic) -> None:
        self.limit = limit
        self.window_s = window_s
        self._interval = window_s / limit
        self._whole_at: dict[Hashable, float] = {}
        self._now = now

    def take(self, key: Hashable) -> RateDecision:
        """Count one request; a refused one costs nothing."""
        now = self._now()
        whole_at = max(self._whole_at.pop(key, now), now) + self._interval
        allowed = whole_at - now <= self.window_s + 1e-9
        if not allowed:
            whole_at -= self._interval
        self._whole_at[key] = whole_at
        if len(self._whole_at) > KEYS:
            del self._whole_at[next(iter(self._whole_at))]
        return self._decision(allowed, whole_at - now)

    def look(self, key: Hashable) -> RateDecision:
        """Whether one more request would be allowed, without counting it."""
        now = self._now()
        missing = max(self._whole_at.get(key, now) - now, 0.0)
        return self._decision(missing + self._interval <= self.window_s + 1e-9, missing)

    def _decision(self, allowed: bool, missing: float) -> RateDecision:  # noqa: FBT001 (private)
        remaining = floor((self.window_s - missing) / self._interval + 1e-6)
        wait = max(missing + self._interval - self.window_s, 0.0)
        return RateDecision(
            allowed, self.limit, max(remaining, 0), ceil(missing), 0 if allowed else ceil(wait) or 1
        )
