"""How an answer is had: held and fresh, held and stale while a run goes on behind, or from a shared run."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from math import inf
from typing import Final

from msgspec import Struct

from service.errors import Busy, DatabaseUnavailable, Problem, QueryTimeout
from service.http.representation import WORK_HERE, Coding, compress, compressed
from service.results.freshness import (
    Counter,
    FreshnessPolicy,
    Generations,
    State,
    combine,
    evaluate_freshness,
)
from service.results.headers import ANY, Directives
from service.results.single_flight import Run, SingleFlight
from service.results.table import CacheOutcome, Entry, MissReason, Representation, ResultTable, plain

PATIENCE_S: Final = 0.05
"""How long a caller waits for the new run before it takes an answer whose data changed, marked stale."""

TURNS: Final = 10
"""Turns of the event loop within which an announcement that has arrived is heard."""

SERVER_FAULTS: Final = 500

_FORWARDS: Final[tuple[MissReason, ...]] = ("request", "miss", "stale")


class Computed(Struct, frozen=True):
    """What a run gives. Two runs had the same content when their first `comparable_bytes` bytes are the same.

    `fresh_for_s` is how long it holds if no table moves, `max_age` how long a caller may go without asking;
    both count from the beginning of the run.
    """

    body: bytes
    media_type: str
    comparable_bytes: int
    timings: str = ""
    fresh_for_s: float = inf
    max_age: int = 0


class CacheRequest(Struct, frozen=True):
    """An answer that a caller wants, and how it would be made; `shared` with every other who may read it."""

    key: Hashable
    owner: Hashable
    tables: tuple[str, ...]
    stale_for_s: float
    run: Callable[[], Awaitable[Computed]]
    shared: bool = True


class Composition(Struct, frozen=True):
    """An answer made of others: `question` is all that it depends on but the caller, told by `claims`."""

    question: tuple[Hashable, ...]
    owner: Hashable
    claims: str | None

    @property
    def shared_key(self) -> Hashable:
        return (*self.question, None)

    @property
    def own_key(self) -> Hashable:
        return (*self.question, ("own", self.claims))


class Results:
    """Every finished answer goes through here. `clock` is monotonic; `wait_s` bounds a caller's waiting."""

    def __init__(
        self,
        generations: Generations,
        table: ResultTable,
        clock: Callable[[], float],
        *,
        wait_s: float,
        stale_if_error_s: float,
    ) -> None:
        self.generations = generations
        self.table = table
        self.clock = clock
        self._flights: SingleFlight[Entry] = SingleFlight(clock)
        self._wait_s = wait_s
        self._stale_if_error_s = stale_if_error_s
        self._encoding = asyncio.Lock()
        self.unread: Callable[[], bool] = _nothing
        """Whether announcements wait to be heard; until they are, nothing held is known to be fresh."""
        self._down_at: float | None = None

    async def get(self, wanted: CacheRequest, directives: Directives) -> CacheOutcome:
        """Raise what the run raises, and `QueryTimeout` when waiting took too long."""
        for _ in range(TURNS):
            if not self.unread():
                break
            await asyncio.sleep(0)
        now = self.clock()
        entry = self.table.get(wanted.key)
        if entry is None:
            return await self._run(wanted, "miss", now, afresh=directives.no_cache)
        if directives.no_cache or _too_old(entry, directives, now):
            return await self._run(wanted, "request", now, afresh=True)
        return await self._held(wanted, entry, now) or await self._run(wanted, "stale", now, afresh=False)

    async def held(self, wanted: CacheRequest, directives: Directives) -> CacheOutcome | None:
        """Serve what is held, stale too, to a caller who cannot wait for a run."""
        now = self.clock()
        entry = self.table.get(wanted.key)
        if entry is None or directives.no_cache or _too_old(entry, directives, now):
            return None
        return await self._held(wanted, entry, now)

    def fresh(self, key: Hashable, directives: Directives = ANY) -> CacheOutcome | None:
        """Serve what is held if it is fresh, without a run."""
        entry = self.table.get(key)
        now = self.clock()
        if entry is None or self.unread():
            return None
        if directives is not ANY and (directives.no_cache or _too_old(entry, directives, now)):
            return None
        if entry.evaluated_at != self.generations.changes or now >= entry.terms.fresh_until:
            if evaluate_freshness(entry.terms, now, self.generations, None).state is not State.FRESH:
                return None
            entry.evaluated_at = self.generations.changes
        return CacheOutcome(entry)

    def composed(self, asked: Composition, directives: Directives = ANY) -> CacheOutcome | None:
        """Serve a composed answer that is held and fresh: the one for everybody, else the caller's own."""
        return self.fresh(asked.shared_key, directives) or self.fresh(asked.own_key, directives)

    def compose(
        self, asked: Composition, body: bytes, parts: Sequence[CacheOutcome], *, whole: bool
    ) -> CacheOutcome:
        """Make one JSON answer of many; it holds as long as all of them, and is kept only if it is whole.

        Everybody may have it only if everybody may have each part, as the parts themselves say.
        """
        shared = all(part.entry.shared for part in parts)
        entry = Entry(
            key=asked.shared_key if shared else asked.own_key,
            owner=asked.owner,
            terms=combine([part.entry.terms for part in parts], self.clock(), self.generations),
            media_type="application/json",
            representations=plain(body),
            timings="compose",
            shared=shared,
        )
        stale_s = max((part.stale_s for part in parts), default=0)
        if whole and not stale_s:
            self.table.put(entry)
        forwards = {part.forward for part in parts}
        forward: MissReason | None = next((each for each in _FORWARDS if each in forwards), None)
        return CacheOutcome(entry, stale_s, forward, any(part.collapsed for part in parts))

    async def encode(self, entry: Entry, coding: Coding) -> None:
        """Make the coding's bytes, once."""
        body = entry.representations["identity"].body
        if coding in entry.representations:
            return
        if len(body) < WORK_HERE:
            self.table.add(entry, coding, compress(body, coding))
            return
        async with self._encoding:
            if coding not in entry.representations:
                self.table.add(entry, coding, await compressed(body, coding))

    def heard(self) -> None:
        """Note that announcements arrive again, so the database is there."""
        self._down_at = None
        self._flights.forgive()
        self.generations.heard(self.clock())

    async def close(self) -> None:
        await self._flights.close()

    async def _held(self, wanted: CacheRequest, entry: Entry, now: float) -> CacheOutcome | None:
        """Serve what is held, if it may be served before a new run has ended."""
        state, stale_s = evaluate_freshness(entry.terms, now, self.generations, self._lost_at())
        if state is State.FRESH:
            return CacheOutcome(entry)
        if state is not State.STALE and state is not State.MOVED:
            return None
        accepts = self._newer_than(wanted, now, afresh=False)
        self._flights.refresh(wanted.key, self._making(wanted, afresh=False), accepts)
        if state is State.MOVED:
            try:
                return await self._fly(wanted, "stale", accepts, afresh=False, wait_s=PATIENCE_S)
            except (TimeoutError, Problem):
                pass
        return CacheOutcome(entry, stale_s)

    async def _run(
        self, wanted: CacheRequest, forward: MissReason, now: float, *, afresh: bool
    ) -> CacheOutcome:
        accepts = self._newer_than(wanted, now, afresh=afresh)
        try:
            return await self._fly(wanted, forward, accepts, afresh=afresh, wait_s=self._wait_s)
        except TimeoutError:
            problem = self._as_seen(QueryTimeout("The result was waited for too long."))
        except Problem as error:
            problem = error
        if afresh and not isinstance(problem, Busy):  # a full queue says nothing of the data
            self._end(wanted.key, now)
        lost_at = self._lost_at()
        if lost_at is None and isinstance(problem, DatabaseUnavailable):  # remembered of a moment ago
            lost_at = now
        fault = problem.status >= SERVER_FAULTS
        served = self._instead(wanted, lost_at, afresh=afresh) if fault else None
        if served is None:
            raise problem
        return served

    def _end(self, key: Hashable, asked_at: float) -> None:
        """End the freshness of what is held, and of what was composed of it: the run for it has failed."""
        entry = self.table.get(key)
        if entry is not None and entry.terms.made_at <= asked_at:
            self.generations.end(entry.own, self.clock())

    def _instead(self, wanted: CacheRequest, lost_at: float | None, *, afresh: bool) -> CacheOutcome | None:
        """What may be served although no new run could be had."""
        entry = self.table.get(wanted.key)
        if entry is None or (afresh and lost_at is None):
            return None
        state, stale_s = evaluate_freshness(entry.terms, self.clock(), self.generations, lost_at)
        return CacheOutcome(entry, stale_s) if state in {State.FRESH, State.STALE, State.MOVED} else None

    async def _fly(
        self,
        wanted: CacheRequest,
        forward: MissReason,
        accepts: Callable[[float], bool],
        *,
        afresh: bool,
        wait_s: float,
    ) -> CacheOutcome:
        making = self._making(wanted, afresh=afresh)
        until = asyncio.get_running_loop().time() + wait_s
        entry, joined = await self._flights.take(wanted.key, making, accepts, afresh=afresh, until=until)
        return CacheOutcome(entry, forward=forward, collapsed=joined)

    def _newer_than(self, wanted: CacheRequest, now: float, *, afresh: bool) -> Callable[[float], bool]:
        """Whether a run that departed then has seen all that was announced before `now`."""
        basis = self.generations.of(wanted.tables)

        def accepts(departed: float) -> bool:
            return departed > now or (not afresh and self.generations.stood_since(basis, departed))

        return accepts

    def _making(self, wanted: CacheRequest, *, afresh: bool) -> Run[Entry]:
        async def make() -> Entry:
            began = self.clock()
            own = Counter()
            basis = self.generations.of(wanted.tables, own)
            try:
                made = await wanted.run()
            except Problem as problem:
                raise self._as_seen(problem) from problem.__cause__
            self._down_at = None
            terms = FreshnessPolicy(
                basis=basis,
                made_at=began,
                fresh_until=began + made.fresh_for_s,
                stale_for_s=wanted.stale_for_s,
                stale_if_error_s=self._stale_if_error_s,
                max_age=made.max_age,
            )
            if len(made.body) < WORK_HERE:
                written = plain(made.body)
            else:
                written = await asyncio.to_thread(plain, made.body)
            return self._keep(wanted, made, terms, own, written, afresh=afresh)

        return make

    def _keep(
        self,
        wanted: CacheRequest,
        made: Computed,
        terms: FreshnessPolicy,
        own: Counter,
        written: dict[Coding, Representation],
        *,
        afresh: bool,
    ) -> Entry:
        """Hold the new answer; the same content keeps its bytes and tags, so that pollers get 304."""
        held = self.table.get(wanted.key)
        same = held is not None and not afresh and _same_content(held, made)
        entry = Entry(
            key=wanted.key,
            owner=wanted.owner,
            terms=terms,
            own=own,
            media_type=made.media_type,
            representations=dict(held.representations) if held and same else written,
            comparable_bytes=made.comparable_bytes,
            timings=made.timings,
            shared=wanted.shared,
        )
        self.table.put(entry)
        return entry

    def _as_seen(self, problem: Problem) -> Problem:
        """Note the loss of a database; of one that hangs only silence, timeouts and full queues show."""
        if isinstance(problem, Busy | QueryTimeout) and self.generations.silent_since is not None:
            problem = DatabaseUnavailable(headers={"Retry-After": "2"})
        if isinstance(problem, DatabaseUnavailable):
            self._down_at = self._down_at or self.clock()
        return problem

    def _lost_at(self) -> float | None:
        """When the database went away, once a run has failed for that; None while it is there."""
        if self._down_at is None:
            return None
        silent = self.generations.silent_since
        return self._down_at if silent is None or silent == -inf else min(silent, self._down_at)


def _nothing() -> bool:
    return False


def _same_content(held: Entry, made: Computed) -> bool:
    body = held.representations["identity"].body
    return held.comparable_bytes == made.comparable_bytes and body.startswith(
        made.body[: made.comparable_bytes]
    )


def _too_old(entry: Entry, directives: Directives, now: float) -> bool:
    return directives.max_age is not None and now - entry.terms.made_at > directives.max_age
