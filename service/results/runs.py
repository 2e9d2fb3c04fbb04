"""Make entries: from a run here, from the run of another node, or from an older entry that is still right."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from math import inf

import msgspec

from service.errors import Problem
from service.http.representation import WORK_HERE, Coding
from service.results.freshness import FreshnessPolicy, Generations
from service.results.requests import CacheRequest, Computed
from service.results.sharing import Ran, Sharing
from service.results.stored import SharedResult
from service.results.table import OVERHEAD, Entry, Representation, ResultTable, plain


class Runs:
    """Runs requests and keeps their results in the table.

    `settle` lets received announcements be processed, and returns whether all of them are. `note_loss` sees
    each problem of a run, `ran` each run that ended well, `stored` each new entry.
    """

    def __init__(
        self,
        generations: Generations,
        table: ResultTable,
        clock: Callable[[], float],
        *,
        stale_if_error_s: float,
        settle: Callable[[], Awaitable[bool]],
        note_loss: Callable[[Problem], Problem],
        ran: Callable[[], None],
        stored: Callable[[Entry], None],
        sharing: Sharing | None,
    ) -> None:
        self._generations = generations
        self._table = table
        self._clock = clock
        self._stale_if_error_s = stale_if_error_s
        self._settle = settle
        self._note_loss = note_loss
        self._ran = ran
        self._stored = stored
        self._sharing = sharing
        self._names = count(1)

    async def run(self, request: CacheRequest, *, afresh: bool) -> Entry:
        """A fresh entry. With `afresh` it is made by a run that begins now."""
        if self._sharing is None or request.share is None:
            return (await self._compute(request, afresh=afresh)).entry
        if not afresh and (entry := self._renewed(request, request.share.digest())):
            return entry
        return await self._sharing.run(
            request,
            request.share,
            partial(self._compute, request, afresh=afresh),
            partial(self._adopt, request, request.share.digest),
            afresh=afresh,
        )

    async def _compute(self, request: CacheRequest, *, afresh: bool) -> Ran:
        began = self._clock()
        name = f"run {next(self._names)}"
        basis = self._generations.of((name, *request.tables))
        try:
            computed = await request.run(afresh=afresh)
        except Problem as problem:
            raise self._note_loss(problem) from problem.__cause__
        self._ran()
        policy = FreshnessPolicy(
            basis=basis,
            made_at=began,
            fresh_until=began + computed.fresh_for_s,
            stale_for_s=request.stale_for_s,
            stale_if_error_s=self._stale_if_error_s,
            max_age=computed.max_age,
        )
        representations = await _representations(computed.body)
        return Ran(self._keep(request, computed, policy, name, representations, afresh=afresh), computed.seen)

    async def _adopt(
        self, request: CacheRequest, digest: Callable[[], bytes], result: SharedResult
    ) -> Entry | None:
        """An entry of another node's result, if it shows every change that this node knows of."""
        representations = await _representations(result.body)
        if not await self._settle():
            return None
        now, proofs = self._clock(), self._generations.proofs
        remaining_s = inf if result.fresh_until is None else result.fresh_until - proofs.server_time(now)
        if (
            remaining_s <= 0
            or self._generations.silent_since is not None
            or not proofs.holds(result.proof, digest(), request.tables)
        ):
            return None
        name = f"run {next(self._names)}"
        policy = FreshnessPolicy(
            basis=self._generations.of((name, *request.tables)),
            made_at=min(now, now - proofs.server_time(now) + result.made_at),
            fresh_until=now + remaining_s,
            stale_for_s=request.stale_for_s,
            stale_if_error_s=self._stale_if_error_s,
            max_age=result.max_age,
        )
        computed = Computed(
            result.body,
            result.media_type,
            result.comparable_bytes,
            result.timings,
            disposition=result.disposition,
            truncated=result.truncated,
        )
        entry = self._keep(request, computed, policy, name, representations, afresh=False)
        entry.proof, entry.adopted = result.proof, True
        return entry

    def _renewed(self, request: CacheRequest, digest: bytes) -> Entry | None:
        """The held entry, if it already shows the changes that were announced after its run began."""
        held = self._table.peek(request.key)
        now = self._clock()
        if (
            held is None
            or held.proof is None
            or now >= held.policy.fresh_until
            or self._generations.silent_since is not None
            or self._generations.ended(held.policy.basis, held.run)
            or not self._generations.proofs.holds(held.proof, digest, request.tables)
        ):
            return None
        basis = self._generations.of((held.run, *request.tables))
        policy = msgspec.structs.replace(held.policy, basis=basis)
        entry = msgspec.structs.replace(
            held, policy=policy, evaluated_at=-1, hits={}, adopted=True, weight=OVERHEAD
        )
        self._table.put(entry)
        self._stored(entry)
        return entry

    def _keep(
        self,
        request: CacheRequest,
        computed: Computed,
        policy: FreshnessPolicy,
        run: str,
        representations: dict[Coding, Representation],
        *,
        afresh: bool,
    ) -> Entry:
        """Store the new result. Equal content keeps its bytes and ETags, so that pollers get 304."""
        cached = self._table.get(request.key)
        same = cached is not None and not afresh and _same_content(cached, computed)
        entry = Entry(
            key=request.key,
            owner=request.owner,
            policy=policy,
            run=run,
            media_type=computed.media_type,
            disposition=computed.disposition,
            truncated=computed.truncated,
            representations=dict(cached.representations) if cached and same else representations,
            comparable_bytes=computed.comparable_bytes,
            timings=computed.timings,
            shared=request.shared,
            request=request,
        )
        self._table.put(entry)
        self._stored(entry)
        return entry


async def _representations(body: bytes) -> dict[Coding, Representation]:
    return plain(body) if len(body) < WORK_HERE else await asyncio.to_thread(plain, body)


def _same_content(cached: Entry, computed: Computed) -> bool:
    body = cached.representations["identity"].body
    return cached.comparable_bytes == computed.comparable_bytes and body.startswith(
        computed.body[: computed.comparable_bytes]
    )
