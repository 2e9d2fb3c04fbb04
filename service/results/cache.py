"""Serve a fresh result, serve a stale one while revalidating, or join one shared run."""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Final

from service.errors import Busy, DatabaseUnavailable, Problem, QueryTimeout
from service.http.fields import ANY, Directives
from service.http.representation import WORK_HERE, Coding, compress, compressed
from service.observe.events import Observe, ResultRefreshed, ResultServed, ignore
from service.observe.trace import UNTRACED, Traces
from service.results.feed import Subscription
from service.results.freshness import (
    Generations,
    State,
    combine,
    evaluate_freshness,
)
from service.results.requests import CacheRequest, Composition
from service.results.runs import Runs
from service.results.sharing import Sharing
from service.results.single_flight import Run, SingleFlight
from service.results.table import CacheOutcome, Entry, MissReason, ResultTable, plain

PATIENCE_S: Final = 0.05
"""How long a caller waits for a new run before it gets the changed result, marked stale."""

TURNS: Final = 10
"""Turns of the event loop that a received announcement needs until it is processed."""

SERVER_FAULTS: Final = 500

_FORWARDS: Final[tuple[MissReason, ...]] = ("request", "miss", "stale")


def _nothing() -> bool:
    return False


class Results:
    """The cache of all results. `clock` is monotonic. A caller waits at most `wait_s` seconds.

    `unread`: whether received announcements wait to be processed. Until then no entry counts as fresh.
    `sharing`: the way to results of other nodes.
    """

    def __init__(
        self,
        generations: Generations,
        table: ResultTable,
        clock: Callable[[], float],
        *,
        wait_s: float,
        stale_if_error_s: float,
        unread: Callable[[], bool] = _nothing,
        observe: Observe = ignore,
        sharing: Sharing | None = None,
        traces: Traces = UNTRACED,
    ) -> None:
        self.generations = generations
        self.table = table
        self.clock = clock
        self._flights: SingleFlight[Entry] = SingleFlight(clock)
        self._runs = Runs(
            generations,
            table,
            clock,
            stale_if_error_s=stale_if_error_s,
            settle=self._read_announcements,
            note_loss=self._note_loss,
            ran=self._note_return,
            stored=self._tell_stored,
            sharing=sharing,
        )
        self._wait_s = wait_s
        self._encoding = asyncio.Lock()
        self.definitions = 0
        """The version of the metrics and dashboards whose results are kept."""
        self._unread = unread
        self._observe = observe
        self._traces = traces
        self.on_stored: list[Callable[[Entry], None]] = []
        """Are told of each entry that a run has made."""
        self._down_at: float | None = None

    async def get(self, request: CacheRequest, directives: Directives) -> CacheOutcome:
        """Raises every error of the run, and `QueryTimeout` when the caller waited too long."""
        outcome = await self._get(request, directives)
        outcome.entry.asked_at = self.clock()
        outcome.entry.requests += 1
        return self._served(outcome)

    async def _get(self, request: CacheRequest, directives: Directives) -> CacheOutcome:
        if self._unread():
            await self._read_announcements()
        now = self.clock()
        entry = self.table.get(request.key)
        if entry is None:
            return await self._run(request, "miss", now, afresh=directives.no_cache)
        if directives.no_cache or _too_old(entry, directives, now):
            return await self._run(request, "request", now, afresh=True)
        return await self._serve_cached(request, entry, now) or await self._run(
            request, "stale", now, afresh=False
        )

    async def refreshed(self, request: CacheRequest) -> CacheOutcome:
        """The result after all announced changes: the held one, or that of a run which pollers share.

        A stale one is given only if the run fails because the database is lost.
        """
        await self._read_announcements()
        now = self.clock()
        entry = self._fresh(request.key, now)
        if entry is not None:
            return CacheOutcome(entry)
        return await self._run(request, "stale", now, afresh=False, refresh=True)

    async def _read_announcements(self) -> bool:
        """Let the event loop process what was received. Returns whether all of it is processed."""
        for _ in range(TURNS):
            if not self._unread():
                return True
            await asyncio.sleep(0)
        return not self._unread()

    async def held(self, request: CacheRequest, directives: Directives) -> CacheOutcome | None:
        """Serve a cached result, fresh or stale, to a caller who cannot wait for a run."""
        now = self.clock()
        entry = self.table.get(request.key)
        if entry is None or directives.no_cache or _too_old(entry, directives, now):
            return None
        outcome = await self._serve_cached(request, entry, now)
        return self._served(outcome) if outcome else None

    def look(self, key: Hashable) -> CacheOutcome | None:
        """The cached result, however stale. Nothing runs for it; a change runs it while it is hot."""
        now = self.clock()
        entry = self.table.get(key)
        if entry is None:
            return None
        state, stale_s = evaluate_freshness(entry.policy, now, self.generations, self._lost_at())
        if state is State.GONE:
            return None
        entry.asked_at = now
        entry.requests += 1
        return CacheOutcome(entry, stale_s)

    def hit(self, key: Hashable, directives: Directives = ANY) -> CacheOutcome | None:
        """Serve a cached result if it is fresh."""
        outcome = self.fresh(key, directives)
        return self._served(outcome) if outcome else None

    def fresh(self, key: Hashable, directives: Directives = ANY) -> CacheOutcome | None:
        """Look for a fresh cached result. Whoever serves it tells `observe`."""
        now = self.clock()
        entry = self.fresh_entry(key, now)
        if entry is None or directives.no_cache or _too_old(entry, directives, now):
            return None
        return CacheOutcome(entry)

    def fresh_entry(self, key: Hashable, now: float) -> Entry | None:
        """A cached result if it is fresh, for a caller who asks for it."""
        entry = self._fresh(key, now)
        if entry is not None:
            entry.asked_at = now
            entry.requests += 1
        return entry

    def _fresh(self, key: Hashable, now: float) -> Entry | None:
        entry = self.table.get(key)
        if entry is None or self._unread():
            return None
        if entry.evaluated_at != self.generations.changes or now >= entry.policy.fresh_until:
            if evaluate_freshness(entry.policy, now, self.generations, None).state is not State.FRESH:
                return None
            entry.evaluated_at = self.generations.changes
        return entry

    def composed(self, composition: Composition, directives: Directives = ANY) -> CacheOutcome | None:
        """Serve a fresh composed result: the shared one, else the caller's own."""
        return self.hit(composition.shared_key, directives) or self.hit(composition.own_key, directives)

    def compose(
        self, composition: Composition, body: bytes, parts: Sequence[CacheOutcome], *, whole: bool
    ) -> CacheOutcome:
        """Compose one JSON result from its parts. It stays fresh while all parts are fresh.

        It is cached only if it is `whole` and no part is stale. It is shared only if each part is shared.
        """
        shared = all(part.entry.shared for part in parts)
        entry = Entry(
            key=composition.shared_key if shared else composition.own_key,
            owner=composition.owner,
            policy=combine([part.entry.policy for part in parts], self.clock(), self.generations),
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
        """Add a content coding to an entry. Each coding is computed once."""
        body = entry.representations["identity"].body
        if coding in entry.representations:
            return
        if len(body) < WORK_HERE:
            self.table.add(entry, coding, compress(body, coding))
            return
        async with self._encoding:
            if coding not in entry.representations:
                self.table.add(entry, coding, await compressed(body, coding))

    def subscribe(self, tables: Iterable[str] | None = None, owners: Iterable[Hashable] = ()) -> Subscription:
        """Subscribe to changes of tables (None: all) and of the definitions of metrics and dashboards.

        When a subscriber hears of a change, no older result counts as fresh any more.
        """
        return self.generations.feed.subscribe(tables, owners)

    def redefined(self, version: int, owners: Sequence[Hashable]) -> None:
        """Drop the results of changed metrics and dashboards. `version` is that of all definitions now."""
        self.definitions = version
        for owner in owners:
            self.table.drop(owner)
        self.generations.feed.redefined(owners)

    def announced(self, payload: str) -> None:
        """Process a received announcement."""
        self.generations.announced(payload, self.clock())

    def silent(self) -> None:
        """Note that no announcements arrive."""
        self.generations.silent(self.clock())

    def heard(self) -> None:
        """Note that announcements arrive again, so the database is available."""
        self._down_at = None
        self._flights.forgive()
        self.generations.heard(self.clock())

    def asking(self) -> int:
        """Number a question for the server's position."""
        return self.generations.proofs.asking(self.clock())

    async def close(self) -> None:
        self.generations.close(self.clock())
        await self._flights.close()

    def _served(self, outcome: CacheOutcome) -> CacheOutcome:
        self._observe(ResultServed(outcome.kind))
        return outcome

    async def _serve_cached(self, request: CacheRequest, entry: Entry, now: float) -> CacheOutcome | None:
        """Serve the entry if its state allows that before a new run ends."""
        state, stale_s = evaluate_freshness(entry.policy, now, self.generations, self._lost_at())
        if state is State.FRESH:
            return CacheOutcome(entry)
        if state is not State.STALE and state is not State.MOVED:
            return None
        accepts = self._newer_than(request, now, afresh=False)
        run = self._make_run(request, afresh=False, refresh=True)
        self._flights.refresh(request.key, run, accepts)
        if state is State.MOVED:
            try:
                return await self._join(
                    request, "stale", accepts, afresh=False, refresh=True, wait_s=PATIENCE_S
                )
            except (TimeoutError, Problem):
                pass
        return CacheOutcome(entry, stale_s)

    async def _run(
        self, request: CacheRequest, forward: MissReason, now: float, *, afresh: bool, refresh: bool = False
    ) -> CacheOutcome:
        accepts = self._newer_than(request, now, afresh=afresh)
        try:
            return await self._join(
                request, forward, accepts, afresh=afresh, refresh=refresh, wait_s=self._wait_s
            )
        except TimeoutError:
            problem = self._note_loss(QueryTimeout("The result was waited for too long."))
        except Problem as error:
            problem = error
        if afresh and not isinstance(problem, Busy):  # a full queue says nothing about the data
            self._end_freshness(request.key, now)
        lost_at = self._lost_at()
        if lost_at is None and isinstance(
            problem, DatabaseUnavailable
        ):  # a remembered error of an earlier run
            lost_at = now
        fault = problem.status >= SERVER_FAULTS
        outcome = self._fallback(request, lost_at, afresh=afresh) if fault else None
        if outcome is None:
            raise problem
        return outcome

    def _end_freshness(self, key: Hashable, asked_at: float) -> None:
        """End the freshness of an entry, and of results composed from it, because its new run failed."""
        entry = self.table.get(key)
        if entry is not None and entry.policy.made_at <= asked_at:
            self.generations.end(entry.run, self.clock())

    def _fallback(self, request: CacheRequest, lost_at: float | None, *, afresh: bool) -> CacheOutcome | None:
        """The cached result that may be served after a new run failed."""
        entry = self.table.get(request.key)
        if entry is None or (afresh and lost_at is None):
            return None
        state, stale_s = evaluate_freshness(entry.policy, self.clock(), self.generations, lost_at)
        if state not in {State.FRESH, State.STALE, State.MOVED}:
            return None
        # A forced run has not confirmed it.
        return CacheOutcome(entry, max(stale_s, 1) if afresh else stale_s)

    async def _join(
        self,
        request: CacheRequest,
        forward: MissReason,
        accepts: Callable[[float], bool],
        *,
        afresh: bool,
        refresh: bool,
        wait_s: float,
    ) -> CacheOutcome:
        if request.share is None and not self._flights.runs(request.key):  # else another node may have it
            try:
                request.refuse()
            except Busy as busy:
                raise self._note_loss(busy) from None
        run = self._make_run(request, afresh=afresh, refresh=refresh)
        until = asyncio.get_running_loop().time() + wait_s
        entry, joined = await self._flights.take(request.key, run, accepts, afresh=afresh, until=until)
        return CacheOutcome(entry, forward=forward, collapsed=joined or entry.adopted)

    def _newer_than(self, request: CacheRequest, now: float, *, afresh: bool) -> Callable[[float], bool]:
        """Return a check: did a run that started at a given time see every change announced before `now`?"""

        def accepts(started_at: float) -> bool:
            if started_at > now:
                return True
            return not afresh and self.generations.stood_since(request.tables, started_at)

        return accepts

    def _make_run(self, request: CacheRequest, *, afresh: bool, refresh: bool) -> Run[Entry]:
        run = partial(self._runs.run, request, afresh=afresh)
        if not refresh:
            return run

        async def refreshed() -> Entry:
            self._observe(ResultRefreshed())
            with self._traces.apart("refresh") as span:
                try:
                    return await run()
                except Problem as problem:
                    span.fail(problem.code)
                    raise

        return refreshed

    def _note_loss(self, problem: Problem) -> Problem:
        """Note the loss of the database and return the problem that the caller gets.

        A hanging database raises no error of its own. It shows as silence, timeouts and full queues.
        """
        if isinstance(problem, Busy | QueryTimeout) and self.generations.silent_since is not None:
            problem = DatabaseUnavailable(headers={"Retry-After": "2"})
        if isinstance(problem, DatabaseUnavailable):
            self._down_at = self._down_at or self.clock()
        return problem

    def _tell_stored(self, entry: Entry) -> None:
        for tell in self.on_stored:
            tell(entry)

    def _note_return(self) -> None:
        self._down_at = None

    def _lost_at(self) -> float | None:
        """When the database was lost. None until a run has failed because of the loss."""
        if self._down_at is None:
            return None
        silent = self.generations.silent_since
        return self._down_at if silent is None or silent == -inf else min(silent, self._down_at)


def _too_old(entry: Entry, directives: Directives, now: float) -> bool:
    return directives.max_age is not None and now - entry.policy.made_at > directives.max_age
