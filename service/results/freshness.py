"""Decide whether a cached result is fresh, stale or unusable. Every path uses this one decision.

Each table has a generation. Every announced change raises it. A result records the names and generations of
its tables at the start of its run, and stays fresh until one of them rises. All times are seconds of one
monotonic clock.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from math import ceil, inf
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from service.observe.events import ChangeHeard, ConnectionLost, ConnectionRestored, Observe, ignore
from service.results.commits import CommitLog
from service.results.feed import ChangeFeed
from service.results.proof import Proofs

Source = Literal["announcements", "poll"]
"""The sources of changes: tables announce them, and we poll the catalogues of Postgres."""

LOG_LENGTH: Final = 4096
LOG_STEP_S: Final = 1.0
NAMES: Final = 16_384

_TRANSACTION: Final = re.compile(r"[0-9]{1,20}")


class Counter:
    """The current generation of a name, and the time at which each generation began.

    Times are rounded down by up to `LOG_STEP_S`. The oldest ones are forgotten and count as -inf.
    """

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
        """When `generation` ended; inf if it is current."""
        if generation == self.generation:
            return inf
        index = bisect_right(self._reached, generation + 1) - 1
        return self._began[index] if index >= 0 else -inf


class Basis(NamedTuple):
    """The epoch and the generations, by name, at the start of a run."""

    epoch: int
    seen: tuple[tuple[str, int], ...]


class Generations:
    """The changes that this process knows of. After a silence a new epoch makes all older results suspect.

    `silent_since` is the time at which the first of the currently silent sources went silent. At most `names`
    names are kept: everybody who may NOTIFY can invent more. `feed` and `observe` learn of every change.
    `proofs` tell whether results of other nodes and of standbys show all these changes. `commits` are
    the last ones of each table.
    """

    def __init__(self, observe: Observe = ignore, *, names: int = NAMES) -> None:
        self.feed = ChangeFeed()
        self._observe = observe
        self._names = names
        self._counters: dict[str, Counter] = {}
        self.proofs = Proofs()
        self.commits = CommitLog()
        self.changes = 0
        """Raised by every event that may end the freshness of a result. Decisions hold until it rises."""
        self.epoch = 0
        self.epoch_began_at = -inf
        self.silent_since: float | None = -inf
        self._silent: dict[Source, float] = {"announcements": -inf}

    def of(self, names: Iterable[str]) -> Basis:
        """Take the current generations before a run.

        A name is that of a table (`schema.table`, quoted as in SQL) or of a run (see `cache`).
        """
        return Basis(self.epoch, tuple([(name, self._generation(name)) for name in names]))

    def announced(self, payload: str, now: float) -> None:
        """Process `<schema>.<table> <transaction id>`."""
        table, _, word = payload.rpartition(" ")
        transaction = int(word) if _TRANSACTION.fullmatch(word) else None
        self.moved(table, now, transaction)

    def moved(
        self, table: str, now: float, transaction: int | None = None, *, digested: bool = False
    ) -> None:
        """Note that a table changed. `digested`: the digest that shared results carry shows it too."""
        self.end(table, now)
        if transaction is not None:
            self.proofs.announced(table, transaction)
        else:
            self.proofs.moved(table, digested=digested)
        self.feed.moved(table)
        self.commits.note(table, transaction)
        self._observe(ChangeHeard(table, transaction))

    def end(self, name: str, now: float) -> None:
        """Raise the generation of a table, or of a run whose result is no longer right."""
        self.changes += 1
        if name not in self._counters:
            if len(self._counters) >= self._names:
                self._forget(now)
            self._counters[name] = Counter()
        self._counters[name].rise(now)

    def silent(self, now: float, source: Source = "announcements") -> None:
        """Note that a source is silent: changes may go unnoticed from now on."""
        if source not in self._silent:
            self._silent[source] = now
            self._count_silence()
            self._observe(ConnectionLost(source))

    def close(self, now: float) -> None:
        """The service stops: nothing is known to be fresh from now on, and no more events are told."""
        self._observe = ignore
        self.silent(now)

    def heard(self, now: float) -> None:
        """Note that announcements arrive again. Announcements during the silence are lost."""
        self._recovered("announcements")
        self.renew(now)

    def polled(self) -> None:
        """Note that a poll succeeded. It found every change since the last poll."""
        self._recovered("poll")

    def _recovered(self, source: Source) -> None:
        since = self._silent.pop(source, None)
        if since is not None:
            self._count_silence()
        if since is not None and since > -inf:  # else it is the first connection
            self._observe(ConnectionRestored(source))

    def _count_silence(self) -> None:
        self.changes += 1
        self.silent_since = min(self._silent.values(), default=None)
        self.feed.silent(self.silent_since)
        self.commits.silent(is_silent=self.silent_since is not None)

    def renew(self, now: float) -> None:
        """Make all existing results suspect."""
        self.changes += 1
        self.epoch += 1
        self.epoch_began_at = now
        self.proofs.renewed()
        self.feed.renewed()

    def stands(self, basis: Basis) -> bool:
        """Whether none of its generations has ended. The epoch is not compared."""
        counters = self._counters
        for name, generation in basis.seen:
            counter = counters.get(name)
            if (0 if counter is None else counter.generation) != generation:
                return False
        return True

    def ended(self, basis: Basis, name: str) -> bool:
        """Whether the generation of one name of the basis has ended."""
        return self._generation(name) != dict(basis.seen).get(name, 0)

    def left_at(self, basis: Basis) -> float:
        """When the first of its generations ended; -inf if that is forgotten."""
        return min((self._left_at(name, generation) for name, generation in basis.seen), default=inf)

    def stood_since(self, names: Iterable[str], since: float) -> bool:
        """Whether none of these tables can have changed at or after `since`."""
        return (
            self.silent_since is None
            and self.epoch_began_at < since
            and all(self._last_rose_at(name) < since for name in names)
        )

    def _generation(self, name: str) -> int:
        counter = self._counters.get(name)
        return 0 if counter is None else counter.generation

    def _left_at(self, name: str, generation: int) -> float:
        counter = self._counters.get(name)
        if counter is None:
            return -inf if generation else inf
        return counter.left_at(generation)

    def _last_rose_at(self, name: str) -> float:
        counter = self._counters.get(name)
        return -inf if counter is None else counter.last_rose_at

    def _forget(self, now: float) -> None:
        """Begin anew without names. A name begins with generation 0 again, so this needs a new epoch."""
        self._counters.clear()
        self.proofs.forget()
        self.renew(now)


class FreshnessPolicy(Struct, frozen=True, gc=False, kw_only=True):
    """How long one result may be served. `made_at` is the start of its run.

    `fresh_until` limits a result that depends on the clock (inf: only table changes end the freshness).
    `stale_for_s` counts from the end of freshness, `stale_if_error_s` from the loss of the database.
    `max_age` is how many seconds a client may reuse the result without asking. It is 0 if only announcements
    end the freshness.
    """

    basis: Basis
    made_at: float
    fresh_until: float
    stale_for_s: float
    stale_if_error_s: float
    max_age: int


def combine(parts: Sequence[FreshnessPolicy], now: float, generations: Generations) -> FreshnessPolicy:
    """The policy of a composed result: no fresher than any part. Without parts it is made now."""
    seen: dict[str, int] = {}
    for part in parts:
        for name, generation in part.basis.seen:
            seen[name] = min(generation, seen.get(name, generation))
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
    """Serve it marked stale, and revalidate in the background."""
    MOVED = auto()
    """Stale because its data changed. Wait a moment for the new run, then serve it marked stale."""
    SUSPECT = auto()
    """Run again and wait. Serve it marked stale only if the run fails."""
    GONE = auto()
    """Run again and wait. Never serve it."""


class Evaluation(NamedTuple):
    state: State
    stale_s: int
    """Whole seconds since the end of freshness: 0 if fresh, else at least 1."""


_FRESH: Final = Evaluation(State.FRESH, 0)


def evaluate_freshness(
    policy: FreshnessPolicy, now: float, generations: Generations, lost_at: float | None
) -> Evaluation:
    """Evaluate a cached result. `lost_at` is when the database was lost, None while it is available."""
    certain = generations.silent_since is None and policy.basis.epoch == generations.epoch
    if certain and now < policy.fresh_until and generations.stands(policy.basis):
        return _FRESH
    moved_at = generations.left_at(policy.basis)
    ended_at = min(policy.fresh_until, moved_at, now)
    stale_s = max(1, ceil(min(now - ended_at, 1e9)))
    if lost_at is not None:
        # We keep serving every result that was cached when the database was lost.
        state = State.STALE if now - lost_at <= policy.stale_if_error_s else State.GONE
        return Evaluation(state, stale_s if ended_at < now else max(1, ceil(now - lost_at)))
    if not certain or now - ended_at >= policy.stale_for_s:
        return Evaluation(State.SUSPECT, stale_s)
    return Evaluation(State.MOVED if moved_at <= policy.fresh_until else State.STALE, stale_s)
