"""Decide who gets a place (a connection of the reader), who waits for one, and who is refused at once.

Waiting callers take turns, and so do the metrics of one caller. Each pair of caller and metric is a `_Flow`,
served in the order of arrival. A caller is refused as soon as it is clear that the wait would be too long:

- the flow is served too slowly for its length: the last ones would wait longer than `wait_s`;
- its head has waited longer than `TARGET_S` for `INTERVAL_S` (as CoDel, RFC 8289, tells a burst from a queue
  that does not drain): then newcomers may wait `TARGET_S` at most;
- `queue_limit` callers wait already. The caller with the most waiters gives way to one with fewer.

A metric may hold a part of the places only, so that others find one: half of them if its runs are slow or not
known yet, all but one if they are quick. Slow ones together leave a quarter free.

The work of the service itself waits in turn with the callers, and is never refused.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from math import ceil
from typing import Any, Final

from service.errors import Busy

TARGET_S: Final = 0.25
INTERVAL_S: Final = 0.5
SLOW_S: Final = 0.1
"""A metric whose runs take longer on average counts as slow."""
KNOWN_METRICS: Final = 4096
LONGEST_RETRY_S: Final = 10
_WEIGHT: Final = 0.25
"""The weight of the last run in the average."""
_QUICK: Final = 0
_SLOW: Final = 1
_UNKNOWN: Final = 2
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
        self.flow: _Flow | None = None
        self.answer: Any = None


class _Metric:
    """The places that a metric holds, and the seconds of its runs: on average, and of the last two."""

    __slots__ = ("average_s", "held", "kind", "last_s")

    def __init__(self) -> None:
        self.held = 0
        self.average_s = 0.0
        self.last_s = (0.0, 0.0)
        self.kind = _UNKNOWN


class _Flow:
    """The waiters of one caller for one metric: `size` of them, beside those who have left in the middle."""

    __slots__ = ("began", "granted", "line", "metric", "size", "slow_since", "waiters")

    def __init__(self, line: "_Line", metric: Hashable, now: float) -> None:
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


class _Line:
    """The flows of one caller, by metric. The first one is next."""

    __slots__ = ("caller", "flows", "size")

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.flows: OrderedDict[Hashable, _Flow] = OrderedDict()
        self.size = 0


class Admission:
    """The places and the queue. `clock` is monotonic.

    `sheds` is false where only `queue_limit` and the waiters' own patience bound the queue.
    """

    def __init__(
        self,
        places: int,
        *,
        queue_limit: int,
        wait_s: float,
        clock: Callable[[], float],
        sheds: bool = True,
    ) -> None:
        self._places = places
        self._queue_limit = queue_limit
        self._wait_s = wait_s
        self._clock = clock
        self._sheds = sheds
        self._half = max(places // 2, 1)
        self._most_quick = max(places - 1, 1)
        self._most_slow = max(places - max(places // 4, 1), 1)
        self._metrics: OrderedDict[Hashable, _Metric] = OrderedDict()
        self._held = [0, 0, 0]
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._own: OrderedDict[Place, None] = OrderedDict()
        self._own_next = True
        self.used = 0
        self.waiting = 0
        """Callers that wait. The service itself is not counted."""

    # Places

    def take(self, place: Place) -> bool:
        """Take a place if one is free for this metric. Nobody who waits could have it."""
        if self.used >= self._places or not self._may_hold(place.metric):
            return False
        self._hold(place)
        return True

    def give_back(self, place: Place, *, ran: bool = True) -> None:
        """Free a place. `ran`: the time for which it was held tells how slow the metric is."""
        self.used -= 1
        if place.metric is None:
            return
        metric = self._metrics[place.metric]
        metric.held -= 1
        self._held[metric.kind] -= 1
        if ran:
            took_s = self._clock() - place.since
            metric.last_s = (metric.last_s[1], took_s)
            known = metric.kind != _UNKNOWN
            metric.average_s += (took_s - metric.average_s) * (_WEIGHT if known else 1.0)
            kind = _QUICK if metric.average_s < SLOW_S else _SLOW
            self._held[metric.kind] -= metric.held
            self._held[kind] += metric.held
            metric.kind = kind

    def grant(self) -> Place | None:
        """Give a free place to the next in turn; None if there is none, or nobody who may have it."""
        if self.used >= self._places or not (self._lines or self._own):
            return None
        for own in (self._own_next, not self._own_next):
            place = self._next_own() if own else self._next_of_callers()
            if place is not None:
                self._own_next = not own
                self._hold(place)
                return place
        return None

    def _hold(self, place: Place) -> None:
        self.used += 1
        place.since = self._clock()
        if place.metric is None:
            return
        metric = self._metrics.get(place.metric)
        if metric is None:
            metric = self._metrics[place.metric] = _Metric()
            if len(self._metrics) > KNOWN_METRICS:
                self._forget_one()
        metric.held += 1
        self._held[metric.kind] += 1

    def _may_hold(self, name: Hashable) -> bool:
        if name is None:
            return True
        metric = self._metrics.get(name)
        held, kind = (0, _UNKNOWN) if metric is None else (metric.held, metric.kind)
        if kind == _QUICK:
            return held < self._most_quick
        slow, unknown = self._held[_SLOW], self._held[_UNKNOWN]
        if held >= self._half or slow + unknown >= self._most_quick:
            return False
        return kind == _UNKNOWN or slow < self._most_slow

    def _forget_one(self) -> None:
        """Forget the metric that is known for longest and holds no place."""
        name = next((name for name, metric in self._metrics.items() if not metric.held), None)
        if name is not None:
            del self._metrics[name]

    # The queue

    def wait(self, place: Place) -> Place | None:
        """Queue. Returns a waiter who has to give way. Raises `Busy` if the wait would be too long."""
        now = place.since = self._clock()
        if place.caller is None:
            self._own[place] = None
            return None
        line, flow = self._flow(place.caller, place.metric, now)
        pushed_out = self._room(line, flow, now)
        if pushed_out is not None:
            self.leave(pushed_out)
        if not line.size:
            self._lines[place.caller] = line
        if not flow.size:
            line.flows[place.metric] = flow
        flow.waiters.append(place)
        place.flow = flow
        flow.size += 1
        line.size += 1
        self.waiting += 1
        return pushed_out

    def refuse(self, caller: str | None, metric: Hashable) -> None:
        """Raise `Busy` if `wait` would, before any work is done for who would be refused."""
        if caller is None or (self.used < self._places and self._may_hold(metric)):
            return
        now = self._clock()
        self._room(*self._flow(caller, metric, now), now)

    def leave(self, place: Place) -> None:
        """Leave the queue. Does nothing for who does not wait."""
        if place.caller is None:
            self._own.pop(place, None)
            return
        flow, place.flow = place.flow, None
        if flow is None:
            return
        line, waiters = flow.line, flow.waiters
        flow.size -= 1
        line.size -= 1
        self.waiting -= 1
        while waiters and waiters[0].flow is None:
            waiters.popleft()
        while waiters and waiters[-1].flow is None:
            waiters.pop()
        if not flow.size:
            del line.flows[flow.metric]
            if not line.size:
                del self._lines[line.caller]

    def shed(self) -> Iterator[tuple[Place, Busy]]:
        """Remove the waiters whose turn will not come in time, with what each is told."""
        if not self._sheds:
            return
        now = self._clock()
        for flow in [flow for line in self._lines.values() for flow in line.flows.values()]:
            flow.is_standing(now)
            gap_s = self._gap_s(flow, now)
            while flow.size > self._half:
                newest = flow.waiters[-1]
                if now - newest.since + flow.size * gap_s <= self._wait_s:
                    break
                told = self._busy(flow, now)
                self.leave(newest)
                yield newest, told

    def _flow(self, caller: str, metric: Hashable, now: float) -> tuple[_Line, _Flow]:
        """The caller's line and its flow for the metric. New ones are not yet in the queue."""
        line = self._lines.get(caller) or _Line(caller)
        return line, line.flows.get(metric) or _Flow(line, metric, now)

    def _room(self, line: _Line, flow: _Flow, now: float) -> Place | None:
        """Raise `Busy` if there is no room for a newcomer. Returns the waiter who has to give way, if any."""
        if self._sheds and flow.size >= self._half and self._is_late(flow, now):
            raise self._busy(flow, now)
        if self.waiting < self._queue_limit:
            return None
        pushed_out = self._push_out(line, flow)
        if pushed_out is None:
            raise self._busy(flow, now)
        return pushed_out

    def _is_late(self, flow: _Flow, now: float) -> bool:
        """Whether a newcomer would wait too long. As many as the metric's places may always wait."""
        limit_s = TARGET_S if flow.is_standing(now) else self._wait_s
        return (flow.size + 1) * self._gap_s(flow, now) > limit_s

    def _gap_s(self, flow: _Flow, now: float) -> float:
        metric = self._metrics.get(flow.metric)
        if metric is None:
            return flow.gap_s(now, self.used)
        gap_s = flow.gap_s(now, metric.held)
        if (
            not gap_s and metric.kind == _SLOW
        ):  # its earlier runs tell, so that a crowd need not wait to learn
            return min(metric.last_s) / self._half
        return gap_s

    def _busy(self, flow: _Flow, now: float) -> Busy:
        """The refusal; `Retry-After` is about the time until those who wait have been served."""
        wait_s = ceil(flow.size * self._gap_s(flow, now))
        return Busy(headers={"Retry-After": str(min(max(wait_s, 1), LONGEST_RETRY_S))})

    def _push_out(self, line: _Line, flow: _Flow) -> Place | None:
        """The newest waiter of the caller with the most, if the newcomer has fewer; else None."""
        longest = max(self._lines.values(), key=_size, default=line)
        if longest.size <= line.size + 1 and longest is not line:
            return None
        widest = max(longest.flows.values(), key=_size, default=flow)
        if longest is line and widest.size <= flow.size + 1:
            return None
        return widest.waiters[-1] if widest.size else None

    def _next_own(self) -> Place | None:
        for place in self._own:
            if self._may_hold(place.metric):
                del self._own[place]
                return place
        return None

    def _next_of_callers(self) -> Place | None:
        for line in self._lines.values():
            for flow in line.flows.values():
                if self._may_hold(flow.metric):
                    return self._serve(line, flow)
        return None

    def _serve(self, line: _Line, flow: _Flow) -> Place:
        """Take the head of a flow; then it is the turn of the others."""
        if len(self._lines) > 1:
            self._lines.move_to_end(line.caller)
        if len(line.flows) > 1:
            line.flows.move_to_end(flow.metric)
        place = flow.waiters[0]
        flow.granted += 1
        self.leave(place)
        return place


def _size(part: _Line | _Flow) -> int:
    return part.size
