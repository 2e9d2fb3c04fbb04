"""May this answer be served now, and as what: one decision, made the same way on every path.

Each table that answers depend on has a generation, raised by every announced change of it. An answer carries
the generations that stood when its run began; it is fresh for as long as they stand. All times are seconds
of one monotonic clock.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from math import ceil, inf
from typing import Final, Literal, NamedTuple

from msgspec import Struct

Source = Literal["announcements", "poll"]
"""What changes are known from: tables announce them, and the catalogues of Postgres are polled."""

LOG_LENGTH: Final = 4096
LOG_STEP_S: Final = 1.0


class Counter:
    """A table's generation, and when each began: rounded down by up to `LOG_STEP_S`, in the end to -inf."""

    __slots__ = ("_began", "_reached", "generation", "last_rose_at")

    def __init__(self) -> None:
        self.generation = 0
        self.last_rose_at = -inf
        self._reached: list[int] = []
        self._began: list[float] = []

    def rise(self, now: float) -> None:
        self.generation += 1
        self.last_rose_at = now
        if not self._began or now - self._began[-1] >= LOG_STEP_S:
            self._reached.append(self.generation)
            self._began.append(now)
            if len(self._began) > LOG_LENGTH:
                del self._reached[: LOG_LENGTH // 2], self._began[: LOG_LENGTH // 2]

    def left_at(self, generation: int) -> float:
        """When the table moved on from `generation`; inf while it has not."""
        if generation == self.generation:
            return inf
        index = bisect_right(self._reached, generation + 1) - 1
        return self._began[index] if index >= 0 else -inf


class Basis(NamedTuple):
    """What stood when a run began."""

    epoch: int
    seen: tuple[tuple[Counter, int], ...]

    def stands(self) -> bool:
        for counter, generation in self.seen:  # noqa: SIM110 (on the hot path; `all` costs three times as much)
            if counter.generation != generation:
                return False
        return True

    def left_at(self) -> float:
        """When the first of its tables moved on."""
        return min((counter.left_at(generation) for counter, generation in self.seen), default=inf)


class Generations:
    """What this process has heard of changes; after a silence a new epoch makes all before suspect.

    `silent_since` is when the first of the sources that are silent now went silent.
    """

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self.changes = 0
        """Raised by whatever may end the freshness of an answer: while it stands, so do all decisions."""
        self.epoch = 0
        self.epoch_began_at = -inf
        self.silent_since: float | None = -inf
        self._silent: dict[Source, float] = {"announcements": -inf}

    def of(self, tables: Iterable[str], *own: Counter) -> Basis:
        """Take the generations of these tables (`schema.table`, quoted as SQL would) before a run.

        `own` are further counters that the answer hangs on.
        """
        seen = [(counter, counter.generation) for counter in own]
        for table in tables:
            counter = self._counters.get(table)
            if counter is None:
                counter = self._counters[table] = Counter()
            seen.append((counter, counter.generation))
        return Basis(self.epoch, tuple(seen))

    def announced(self, payload: str, now: float) -> None:
        """Hear `<schema>.<table> <transaction id>`; tables that no answer depends on are not counted."""
        self.moved(payload.rpartition(" ")[0], now)

    def moved(self, table: str, now: float) -> None:
        if counter := self._counters.get(table):
            self.end(counter, now)

    def end(self, counter: Counter, now: float) -> None:
        """Raise a counter, which may be an answer's own: see `cache`."""
        self.changes += 1
        counter.rise(now)

    def silent(self, now: float, source: Source = "announcements") -> None:
        """Note that changes may go unnoticed from now on."""
        if source not in self._silent:
            self.changes += 1
            self._silent[source] = now
            self.silent_since = min(self._silent.values())

    def heard(self, now: float) -> None:
        """Note that announcements arrive again; those of the time between are lost."""
        self._speaks("announcements")
        self.renew(now)

    def polled(self) -> None:
        """Note that a poll succeeded; it has told of all that changed since the one before."""
        self._speaks("poll")

    def _speaks(self, source: Source) -> None:
        self._silent.pop(source, None)
        self.silent_since = min(self._silent.values(), default=None)

    def renew(self, now: float) -> None:
        """Make all that was known suspect."""
        self.changes += 1
        self.epoch += 1
        self.epoch_began_at = now

    def stood_since(self, basis: Basis, since: float) -> bool:
        """Whether none of these tables is known or feared to have moved at or after `since`."""
        return (
            self.silent_since is None
            and self.epoch_began_at < since
            and all(counter.last_rose_at < since for counter, _ in basis.seen)
        )


class FreshnessPolicy(Struct, frozen=True, kw_only=True):
    """Under which an answer was made: when its run began, and how long it may be served, in seconds.

    `fresh_until` bounds what depends on the clock (inf: only its tables bound it). `stale_for_s` counts from
    the end of freshness, `stale_if_error_s` from the loss of the database. `max_age` is how long a caller may
    go without asking: 0 where only an announcement ends freshness.
    """

    basis: Basis
    made_at: float
    fresh_until: float
    stale_for_s: float
    stale_if_error_s: float
    max_age: int


def combine(parts: Sequence[FreshnessPolicy], now: float, generations: Generations) -> FreshnessPolicy:
    """Terms of an answer made of others: it is no fresher than any of them, and of none is as of now."""
    seen: dict[Counter, int] = {}
    for part in parts:
        for counter, generation in part.basis.seen:
            seen[counter] = min(generation, seen.get(counter, generation))
    return FreshnessPolicy(
        basis=Basis(
            min((part.basis.epoch for part in parts), default=generations.epoch), tuple(seen.items())
        ),
        made_at=min((part.made_at for part in parts), default=now),
        fresh_until=min((part.fresh_until for part in parts), default=inf),
        stale_for_s=min((part.stale_for_s for part in parts), default=0.0),
        stale_if_error_s=min((part.stale_if_error_s for part in parts), default=0.0),
        max_age=min((part.max_age for part in parts), default=0),
    )


class State(Enum):
    FRESH = auto()
    """Serve it."""
    STALE = auto()
    """Serve it marked stale, refresh it behind."""
    MOVED = auto()
    """As STALE, because its data changed: a new run that ends within a moment is better."""
    SUSPECT = auto()
    """Run again and wait; serve it marked stale only when that fails."""
    GONE = auto()
    """Run again and wait; never serve it."""


class Evaluation(NamedTuple):
    state: State
    stale_s: int
    """Whole seconds past fresh, at least 1 when it is not fresh."""


_FRESH: Final = Evaluation(State.FRESH, 0)


def evaluate_freshness(
    terms: FreshnessPolicy, now: float, generations: Generations, lost_at: float | None
) -> Evaluation:
    """Decide over a held answer; `lost_at` is when the database went away, None while it is there."""
    certain = generations.silent_since is None and terms.basis.epoch == generations.epoch
    if certain and now < terms.fresh_until and terms.basis.stands():
        return _FRESH
    moved_at = terms.basis.left_at()
    ended_at = min(terms.fresh_until, moved_at, now)
    stale_s = max(1, ceil(min(now - ended_at, 1e9)))
    if lost_at is not None:
        # Whatever was held when the database went away goes on being served.
        state = State.STALE if now - lost_at <= terms.stale_if_error_s else State.GONE
        return Evaluation(state, stale_s if ended_at < now else max(1, ceil(now - lost_at)))
    if not certain or now - ended_at >= terms.stale_for_s:
        return Evaluation(State.SUSPECT, stale_s)
    return Evaluation(State.MOVED if moved_at <= terms.fresh_until else State.STALE, stale_s)
