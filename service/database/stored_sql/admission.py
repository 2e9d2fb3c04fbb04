"""Decide who gets a place (a connection of the reader), who waits for one, and who is refused at once.

Waiting callers take turns, and so do the metrics of one caller. Each pair of caller and metric is a `_Flow`,
served in the order of arrival. A caller is refused as soon as it is clear that the wait would be too long:

- it would wait longer than `wait_s`, by the rate at which its flow is served, or by the work before it: the
  waiters of the same metric, and of all metrics that are not quick, times the seconds of a run. A run takes
  as long as the shorter one of the last two, and as those that run now have taken already. A metric that
  never ran is taken for one like the others that ran for the first time;
- its head has waited longer than `TARGET_S` for `INTERVAL_S` (as CoDel, RFC 8289, tells a burst from a queue
  that does not drain): then newcomers may wait `TARGET_S` at most;
- `queue_limit` callers wait already. The caller with the most waiters gives way to one with fewer.

A metric may hold a part of the places only, so that others find one: half of them if its runs are slow or not
known yet, all but one if they are quick. Slow ones together leave a quarter free.

The work of the service itself waits in turn with the callers, and is never refused.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from math import ceil
from typing import Final

from service.database.stored_sql.expected import Expected
from service.database.stored_sql.waiters import (
    QUICK,
    SLOW,
    TARGET_S,
    UNKNOWN,
    Flow,
    Line,
    Metric,
    Place,
)
from service.errors import Busy

SLOW_S: Final = 0.1
"""A metric whose runs take longer on average counts as slow."""
KNOWN_METRICS: Final = 4096
LONGEST_RETRY_S: Final = 10
_WEIGHT: Final = 0.25
"""The weight of the last run in the average."""


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
        self._metrics: OrderedDict[Hashable, Metric] = OrderedDict()
        self._held = [0, 0, 0]
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._own: OrderedDict[Place, None] = OrderedDict()
        self._own_next = True
        self._waiting_for: dict[Hashable, dict[Flow, None]] = {}
        """The flows with waiters, by metric."""
        self._first_s = (0.0, 0.0)
        """The seconds of the last two runs that were the first of a metric."""
        self._first_started_at = 0.0
        self.expected = Expected()
        self.used = 0
        self.waiting = 0
        """Callers that wait. The service itself is not counted."""

    # Places

    def take(self, place: Place) -> bool:
        """Take a place if one is free for this metric. Nobody who waits could have it."""
        if self._room_for(place.metric) <= 0:
            return False
        self._hold(place)
        return True

    def start(self, place: Place) -> None:
        """Note that a place is used from now on. Connecting says nothing about the metric."""
        now = place.since = self._clock()
        if place.metric is not None:
            metric = self._metrics[place.metric]
            metric.started_at = now
            if metric.kind == UNKNOWN:
                self._first_started_at = now

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
            known = metric.kind != UNKNOWN
            if not known:
                self._first_s = (self._first_s[1], took_s)
            metric.average_s += (took_s - metric.average_s) * (_WEIGHT if known else 1.0)
            kind = QUICK if metric.average_s < SLOW_S else SLOW
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
        if place.metric is None:
            place.since = self._clock()
            return
        metric = self._metrics.get(place.metric)
        if metric is None:
            metric = self._metrics[place.metric] = Metric()
            if len(self._metrics) > KNOWN_METRICS:
                self._forget_one()
        metric.held += 1
        self._held[metric.kind] += 1
        self.start(place)

    def _room_for(self, name: Hashable) -> int:
        """How many places the metric could take now."""
        free = self._places - self.used
        if name is None or free <= 0:
            return max(free, 0)
        metric = self._metrics.get(name)
        held, kind = (0, UNKNOWN) if metric is None else (metric.held, metric.kind)
        if kind == QUICK:
            return max(min(free, self._most_quick - held), 0)
        slow, unknown = self._held[SLOW], self._held[UNKNOWN]
        room = min(free, self._half - held, self._most_quick - slow - unknown)
        return max(room if kind == UNKNOWN else min(room, self._most_slow - slow), 0)

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
            self._waiting_for.setdefault(place.metric, {})[flow] = None
        flow.waiters.append(place)
        place.flow = flow
        flow.size += 1
        line.size += 1
        self.waiting += 1
        return pushed_out

    def refuse(self, caller: str | None, metric: Hashable, *, expect: bool) -> None:
        """Raise `Busy` if `wait` would, before any work is done for who would be refused.

        `expect` who is not refused: others that ask before it arrives are told as if it had arrived.
        """
        if caller is None:
            return
        room = self._room_for(metric)
        if room <= self.expected.number:
            now = self._clock()
            line, flow = self._flow(caller, metric, now)
            depth = flow.size + self.expected.of(caller, metric) + 1 - room
            full = self.waiting + self.expected.number - room >= self._queue_limit
            if (self._sheds and depth > 0 and self._is_late(flow, depth, now)) or (
                full and not self._is_small(line, flow)
            ):
                raise self._busy(flow, now)
        if expect:
            self.expected.expect(caller, metric)

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
            flows = self._waiting_for[flow.metric]
            del flows[flow]
            if not flows:
                del self._waiting_for[flow.metric]
            if not line.size:
                del self._lines[line.caller]

    def shed(self) -> Iterator[tuple[Place, Busy]]:
        """Remove the waiters whose turn will not come in time, with what each is told."""
        if not self._sheds:
            return
        now = self._clock()
        # Those whose turn comes last are the first to go.
        for flow in [flow for line in self._lines.values() for flow in line.flows.values()][::-1]:
            flow.is_standing(now)
            while flow.size:
                newest = flow.waiters[-1]
                if now - newest.since + self._wait_of(flow, flow.size, now) <= self._wait_s:
                    break
                told = self._busy(flow, now)
                self.leave(newest)
                yield newest, told

    def _flow(self, caller: str, metric: Hashable, now: float) -> tuple[Line, Flow]:
        """The caller's line and its flow for the metric. New ones are not yet in the queue."""
        line = self._lines.get(caller) or Line(caller)
        return line, line.flows.get(metric) or Flow(line, metric, now)

    def _room(self, line: Line, flow: Flow, now: float) -> Place | None:
        """Raise `Busy` if there is no room for a newcomer. Returns the waiter who has to give way, if any."""
        if self._sheds and self._is_late(flow, flow.size + 1, now):
            raise self._busy(flow, now)
        if self.waiting < self._queue_limit:
            return None
        pushed_out = self._push_out(line, flow)
        if pushed_out is None:
            raise self._busy(flow, now)
        return pushed_out

    def _is_late(self, flow: Flow, depth: int, now: float) -> bool:
        """Whether the waiter at this depth of the flow would wait too long."""
        limit_s = TARGET_S if flow.size and flow.is_standing(now) else self._wait_s
        return self._wait_of(flow, depth, now) > limit_s

    def _wait_of(self, flow: Flow, depth: int, now: float) -> float:
        """The seconds that the waiter at this depth of the flow will wait at least.

        0 for those who get one of the next places: as many as the metric may hold.
        """
        metric = self._metrics.get(flow.metric)
        held, kind = (self.used, UNKNOWN) if metric is None else (metric.held, metric.kind)
        wait_s = depth * flow.gap_s(now, held) if depth > self._half else 0.0
        run_s = self._run_of(metric, now)
        if run_s and flow.metric is not None:
            places = self._most_quick if kind == QUICK else self._half
            ahead = self._ahead_of(flow, depth)
            if ahead > places:
                wait_s = max(wait_s, ahead * run_s / places)
            if kind != QUICK:
                places = self._most_slow if kind == SLOW else self._most_quick
                ahead = self._slow_ahead_of(flow, depth)
                if ahead > places:
                    wait_s = max(wait_s, ahead * run_s / places)
        return wait_s

    def _run_of(self, metric: Metric | None, now: float) -> float:
        """The seconds that a run of the metric takes at least, as far as that can be told."""
        if metric is None or metric.kind == UNKNOWN:
            usual_s, started_at = min(self._first_s), self._first_started_at
            runs = self._held[UNKNOWN] > 0
        else:
            usual_s = min(metric.last_s) if metric.kind == SLOW else 0.0
            started_at, runs = metric.started_at, metric.held > 0
        lasts_s = now - started_at if runs else 0.0
        return max(usual_s, lasts_s if lasts_s >= SLOW_S else 0.0)

    def _ahead_of(self, flow: Flow, depth: int) -> int:
        """How many waiters of the metric have their turn before the one at this depth, and this one."""
        others = self._waiting_for.get(flow.metric, ())
        return depth + sum(min(each.size, depth) for each in others if each is not flow)

    def _slow_ahead_of(self, flow: Flow, depth: int) -> int:
        """The same for the waiters of all metrics that are not quick."""
        in_line = depth
        for each in flow.line.flows.values():
            if each is not flow and self._kind_of(each.metric) != QUICK:
                in_line += min(each.size, depth)
        return in_line + sum(
            min(line.size, in_line) for line in self._lines.values() if line is not flow.line
        )

    def _kind_of(self, name: Hashable) -> int:
        metric = self._metrics.get(name)
        return UNKNOWN if metric is None else metric.kind

    def _busy(self, flow: Flow, now: float) -> Busy:
        """The refusal; `Retry-After` is about the time until those who wait have been served."""
        wait_s = ceil(self._wait_of(flow, flow.size, now))
        return Busy(headers={"Retry-After": str(min(max(wait_s, 1), LONGEST_RETRY_S))})

    def _push_out(self, line: Line, flow: Flow) -> Place | None:
        """The newest waiter of the caller with the most, if the newcomer has fewer; else None."""
        longest = max(self._lines.values(), key=_size, default=line)
        if longest.size <= line.size + 1 and longest is not line:
            return None
        widest = max(longest.flows.values(), key=_size, default=flow)
        if longest is line and widest.size <= flow.size + 1:
            return None
        return widest.waiters[-1] if widest.size else None

    def _is_small(self, line: Line, flow: Flow) -> bool:
        """Whether `_push_out` would find somebody for the newcomer, if all who are expected were there."""
        callers, flows = self.expected.by_caller(), self.expected.by_metric(line.caller)
        for each in self._lines.values():
            callers[each.caller] = callers.get(each.caller, 0) + each.size
        for each in line.flows.values():
            flows[each.metric] = flows.get(each.metric, 0) + each.size
        own, widest = flows.get(flow.metric, 0), max(flows.values(), default=0)
        mine, longest = callers.get(line.caller, 0), max(callers.values(), default=0)
        return longest > mine + 1 or (longest == mine and widest > own + 1)

    def _next_own(self) -> Place | None:
        for place in self._own:
            if self._room_for(place.metric) > 0:
                del self._own[place]
                return place
        return None

    def _next_of_callers(self) -> Place | None:
        for line in self._lines.values():
            for flow in line.flows.values():
                if self._room_for(flow.metric) > 0:
                    return self._serve(line, flow)
        return None

    def _serve(self, line: Line, flow: Flow) -> Place:
        """Take the head of a flow; then it is the turn of the others."""
        if len(self._lines) > 1:
            self._lines.move_to_end(line.caller)
        if len(line.flows) > 1:
            line.flows.move_to_end(flow.metric)
        place = flow.waiters[0]
        flow.granted += 1
        self.leave(place)
        return place


def _size(part: Line | Flow) -> int:
    return part.size
