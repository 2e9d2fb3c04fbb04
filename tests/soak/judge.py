"""What was promised and what was seen: commits, announcements and answers, while faults come and go."""

import time
from bisect import bisect_right
from collections import Counter
from math import inf

from msgspec import Struct

from tests.bench.freshness import Course
from tests.soak.relay import Relay

LONGEST_UNNOTICED_S = 6.0
"""No answer that is marked fresh lacks a commit older than this, whatever is broken."""


class Judge(Course):
    """The course of `tests/bench/freshness.py` where connections come and go.

    A commit counts as announced when every worker's listening connection has been told of it, or has begun
    after it. While a worker does not listen nothing counts as announced.
    """

    def __init__(self, relay: Relay, workers: int) -> None:
        super().__init__()
        self._relay = relay
        self._workers = workers
        self._numbers: list[int] = []
        self._xids: dict[int, int] = {}
        self.wrong: list[str] = []

    def commit(self, n: int, xid: int) -> None:
        self._numbers.append(n)
        self._xids[n] = xid
        self.committed[n] = time.perf_counter()
        self.waiting.append(n)

    @property
    def last(self) -> int:
        return self._numbers[-1] if self._numbers else 0

    def announced(self, n: int) -> float:
        position = bisect_right(self._numbers, n - 1)
        ears = [ear for ear in self._relay.ears if ear.since is not None]
        if position == len(self._numbers) or len(ears) < self._workers:
            return inf
        missed = self._numbers[position]
        xid, at = self._xids[missed], self.committed[missed]
        return max(ear.told.get(xid, (ear.since or inf) if at < (ear.since or 0) else inf) for ear in ears)

    def answered(self, n: int, *, stale: bool, asked_at: float) -> None:
        before = len(self.late_s)
        super().answered(n, stale=stale, asked_at=asked_at)
        if len(self.late_s) > before:
            late_ms = self.late_s[-1] * 1000
            self.wrong.append(
                f"an answer marked fresh had {n}: the next was announced {late_ms:.0f} ms before"
            )
        position = bisect_right(self._numbers, n)
        if not stale and position < len(self._numbers):
            age = asked_at - self.committed[self._numbers[position]]
            if age > LONGEST_UNNOTICED_S:
                self.wrong.append(f"an answer marked fresh lacked a commit of {age:.1f} s before")


class Window(Struct):
    """One fault: when its cause was there, and what callers saw from then until the next fault."""

    fault: str
    began: float
    ended: float = inf
    seen: Counter[str] = Counter()
    longest_wait: float = 0.0
    hits_after: float = inf
    misses_after: float = inf


class Report:
    """Counts outcomes by fault. `wrong` are broken promises."""

    def __init__(self) -> None:
        self.windows = [Window("none", time.perf_counter(), time.perf_counter(), Counter())]
        self.wrong: list[str] = []
        self._answered_at = time.perf_counter()

    @property
    def now(self) -> Window:
        return self.windows[-1]

    def begin(self, fault: str) -> None:
        self.windows.append(Window(fault, time.perf_counter(), inf, Counter()))

    def end(self) -> None:
        self.now.ended = time.perf_counter()

    def outcome(self, kind: str) -> None:
        self.now.seen[kind] += 1

    def answer(self) -> None:
        """Some answer came to the pollers of a cached result."""
        now = time.perf_counter()
        self.now.longest_wait = max(self.now.longest_wait, now - self._answered_at)
        self._answered_at = now

    def fresh(self, committed_at: float) -> None:
        """An answer marked fresh holds a commit of this time."""
        window = self.now
        if committed_at >= window.ended and window.hits_after == inf:
            window.hits_after = time.perf_counter() - window.ended

    def missed(self, asked_at: float) -> None:
        """A query that nobody had asked before was answered."""
        window = self.now
        if asked_at >= window.ended and window.misses_after == inf:
            window.misses_after = time.perf_counter() - window.ended

    def recovered(self) -> bool:
        """Whether callers got both since the cause ended: a fresh cached result, and a new query's."""
        return max(self.now.hits_after, self.now.misses_after) < inf

    def table(self) -> list[str]:
        """A line for each kind of fault: the worst of its times, the sum of its counts."""
        kinds = dict.fromkeys(each.fault for each in self.windows)
        lines = [
            "| fault | times | callers saw | longest wait for a cached result | fresh again | misses again |",
            "|---|---|---|---|---|---|",
        ]
        for kind in kinds:
            same = [each for each in self.windows if each.fault == kind]
            seen = sum((each.seen for each in same), Counter[str]())
            words = ", ".join(f"{number} {name}" for name, number in sorted(seen.items()))
            times = [max(getattr(each, name) for each in same) for name in ("hits_after", "misses_after")]
            shown = ["-" if kind == "none" else f"{each * 1000:.0f} ms" for each in times]
            wait = max(each.longest_wait for each in same) * 1000
            lines.append(f"| {kind} | {len(same)} | {words} | {wait:.0f} ms | {shown[0]} | {shown[1]} |")
        return lines
