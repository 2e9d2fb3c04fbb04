"""The parts of the queue: a place, what is known of a metric, and who waits."""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Any, Final

TARGET_S: Final = 0.25
INTERVAL_S: Final = 0.5
QUICK: Final = 0
SLOW: Final = 1
UNKNOWN: Final = 2
_RATE_OVER_S: Final = 4.0
"""How long back the rate of a flow looks at least; at most twice as long."""


class Place:
    """What one statement of a caller needs: a place now, or a place in the queue.

    `answer` is the future of whoever waits. `caller` None is the service itself, `metric` None a statement of
    the service's own.
    """

    __slots__ = ("answer", "caller", "flow", "metric", "since")

    def __init__(self, caller: str | None, metric: Hashable) -> None:
        self.caller = caller
        self.metric = metric
        self.since = 0.0
        """When it began to wait; once it is taken, when that was."""
        self.flow: Flow | None = None
        self.answer: Any = None


class Metric:
    """The places that a metric holds, and the seconds of its runs: on average, and of the last two.

    All runs that hold a place have begun by `started_at`.
    """

    __slots__ = ("average_s", "held", "kind", "last_s", "started_at")

    def __init__(self) -> None:
        self.held = 0
        self.started_at = 0.0
        self.average_s = 0.0
        self.last_s = (0.0, 0.0)
        self.kind = UNKNOWN


class Flow:
    """The waiters of one caller for one metric: `size` of them, beside those who have left in the middle."""

    __slots__ = ("began", "granted", "line", "metric", "size", "slow_since", "waiters")

    def __init__(self, line: "Line", metric: Hashable, now: float) -> None:
        self.line = line
        self.metric = metric
        self.size = 0
        self.waiters: deque[Place] = deque()
        self.began = now
        self.granted = 0.0
        self.slow_since: float | None = None

    def gap_s(self, now: float, held: int) -> float:
        """Seconds between two places that it gets.

        The `held` places of its metric count as if they were given back now, so this is the least. Before
        the first place nothing is known for a while: connections may have to be opened first.
        """
        elapsed = now - self.began
        if not self.granted and elapsed < TARGET_S + INTERVAL_S:
            return 0.0
        if elapsed > 2 * _RATE_OVER_S:
            self.began, self.granted = now - elapsed / 2, self.granted / 2
        return (now - self.began) / max(self.granted + held, 1.0)

    def is_standing(self, now: float) -> bool:
        """Whether the queue does not drain: its head has waited too long for a while."""
        since = self.waiters[0].since
        if now - since < TARGET_S:
            self.slow_since = None
            return False
        if self.slow_since is None:
            self.slow_since = since + TARGET_S
        return now - self.slow_since >= INTERVAL_S


class Line:
    """The flows of one caller, by metric. The first one is next."""

    __slots__ = ("caller", "flows", "size")

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.flows: OrderedDict[Hashable, Flow] = OrderedDict()
        self.size = 0
