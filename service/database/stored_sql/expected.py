"""Callers that have passed the first check and are not yet in the queue.

Hundreds of requests may begin in one turn of the event loop, and each reaches the queue a turn later. Without
their number all of them would pass, and be refused only after most of the work.
"""

from collections.abc import Hashable


class Expected:
    """Counts them by caller and metric. Who has not arrived after two turns is forgotten."""

    __slots__ = ("_earlier", "_now", "number")

    def __init__(self) -> None:
        self._now: dict[tuple[str, Hashable], int] = {}
        self._earlier: dict[tuple[str, Hashable], int] = {}
        self.number = 0

    def expect(self, caller: str, metric: Hashable) -> None:
        key = (caller, metric)
        self._now[key] = self._now.get(key, 0) + 1
        self.number += 1

    def arrive(self, caller: str, metric: Hashable) -> None:
        key = (caller, metric)
        for counts in (self._earlier, self._now):
            if number := counts.get(key):
                if number == 1:
                    del counts[key]
                else:
                    counts[key] = number - 1
                self.number -= 1
                return

    def turn(self) -> bool:
        """Note that the event loop has turned. Returns whether it has to be noted again."""
        self.number -= sum(self._earlier.values())
        self._earlier, self._now = self._now, {}
        return bool(self._earlier)

    def of(self, caller: str, metric: Hashable) -> int:
        key = (caller, metric)
        return self._now.get(key, 0) + self._earlier.get(key, 0)

    def by_caller(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for counts in (self._now, self._earlier):
            for (caller, _), number in counts.items():
                found[caller] = found.get(caller, 0) + number
        return found

    def by_metric(self, caller: str) -> dict[Hashable, int]:
        """Those of one caller."""
        found: dict[Hashable, int] = {}
        for counts in (self._now, self._earlier):
            for (name, metric), number in counts.items():
                if name == caller:
                    found[metric] = found.get(metric, 0) + number
        return found
