"""Share results and single flight among nodes.

A miss asks the store for the result and for a lease, in one round trip. Who gets the lease runs and publishes
the result; the others look again until it is there or the lease has run out. Whether a result that was found
is fresh for this node is not decided here: see `proof`.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import Any, Final, NamedTuple

from service.database.snapshots import Seen
from service.http.representation import WORK_HERE
from service.results.freshness import Generations
from service.results.requests import CacheRequest, Share
from service.results.store import LARGEST, LEASE_MS, OPEN, SharedStore, StoreAway
from service.results.stored import (
    Proof,
    SharedResult,
    lease_ends_at,
    lease_of,
    name_of,
    open_sealed,
    seal,
)
from service.results.table import Entry

FIRST_LOOK_S: Final = 0.002
LAST_LOOK_S: Final = 0.05
SLOWER: Final = 1.5
AFTER_S: Final = 0.001
"""How long after a run its result is published: its own callers are answered first."""
BEAT_S: Final = LEASE_MS / 1000 / 4
GRACE_S: Final = 0.25
"""How long after its end the store may still show a lease that it is about to drop."""
MOST_S: Final = 60.0
"""No lease ends later than this from now."""
KEEP_S: Final = 3600.0
OVERHEAD: Final = 4096
"""Bytes of a shared result without its body."""


class Ran(NamedTuple):
    """An entry that a run here has made, and what the run saw."""

    entry: Entry
    seen: Seen | None


Adopt = Callable[[SharedResult], Awaitable[Entry | None]]
Compute = Callable[[], Awaitable[Ran]]


class _Life(NamedTuple):
    """What this node knew before a run."""

    incarnation: bytes
    server: str
    digest: bytes


class Sharing:
    """The way to results of other nodes. `generations` tell what this node knows."""

    def __init__(self, store: SharedStore, generations: Generations, clock: Callable[[], float]) -> None:
        self.store = store
        self._clock = clock
        self._generations = generations
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> str:
        """`ok`, or why nothing is shared."""
        if self._generations.proofs.incarnation is None:
            return "Postgres has not told its snapshot: nothing is shared"
        return self.store.state

    async def connect(self) -> None:
        await self.store.connect()

    async def close(self) -> None:
        """Wait for what is still being published."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.store.aclose()

    async def run(
        self, request: CacheRequest, share: Share, compute: Compute, adopt: Adopt, *, afresh: bool
    ) -> Entry:
        """The entry of another node's run if it is fresh here, else that of a run of our own.

        `adopt` makes an entry of a result, or returns None if that is not proven to be fresh.
        """
        proofs = self._generations.proofs
        if proofs.incarnation is None:
            return (await compute()).entry
        life = _Life(proofs.incarnation, proofs.server, share.digest())
        name = name_of(life.incarnation, share.key)
        lease = None
        if not afresh:
            with suppress(StoreAway):
                found = await self._find(name, share.key, life.incarnation, adopt)
                if isinstance(found, Entry):
                    return found
                lease = found
        entry, seen = await self._led(name, lease, compute)
        if seen is not None and seen.server == life.server and request.shared:
            entry.proof = Proof(life.server, seen.snapshot, life.digest, life.incarnation)
        still_leading = lease is not None and lease.end()
        self.later(self._publish(entry, share.key, name, leading=still_leading))
        return entry

    async def _find(
        self, name: bytes, key: bytes, incarnation: bytes, adopt: Adopt
    ) -> "Entry | _Lease | None":
        """The entry of a result that is fresh here, or a lease if this node leads now, or None."""
        pause, refused, lease = FIRST_LOOK_S, b"", _Lease(self, name, incarnation)
        while True:
            signed = lease.signed()
            sealed, holding = await self.store.begin(name, signed)
            if sealed and sealed != refused:
                refused = sealed
                if len(sealed) < WORK_HERE:
                    result = open_sealed(sealed, key, incarnation)
                else:
                    result = await asyncio.to_thread(open_sealed, sealed, key, incarnation)
                entry = await adopt(result) if result is not None else None
                if entry is not None:
                    if holding == signed:
                        self.later(self.store.release(name))
                    return entry
            if holding == signed:
                lease.hold()
                return lease
            if not self._is_held(name, holding, incarnation):
                return None
            await asyncio.sleep(pause)
            pause = min(pause * SLOWER, LAST_LOOK_S)

    def _is_held(self, name: bytes, holding: bytes, incarnation: bytes) -> bool:
        """Whether a node still runs under this lease. A store that invents leases holds nobody up."""
        now = self.server_time()
        return holding != OPEN and now - GRACE_S < lease_ends_at(holding, name, incarnation) < now + MOST_S

    async def _led(self, name: bytes, lease: "_Lease | None", compute: Compute) -> Ran:
        """Run, and let another node lead if the run fails."""
        try:
            return await compute()
        except BaseException:
            if lease is not None and lease.end():
                self.later(self.store.release(name))
            raise

    async def _publish(self, entry: Entry, key: bytes, name: bytes, *, leading: bool) -> None:
        await asyncio.sleep(AFTER_S)
        policy, proof, body = entry.policy, entry.proof, entry.representations["identity"].body
        timed = policy.fresh_until < inf
        lasts_s = min(KEEP_S, policy.fresh_until - policy.made_at)
        value = None
        if self._generations.silent_since is not None:  # the digest may be outdated: let others try
            if leading:
                await self.store.release(name)
            return
        if proof is not None and lasts_s > 0 and len(body) <= LARGEST - OVERHEAD:
            server_time = self._generations.proofs.server_time
            result = SharedResult(
                key=key,
                proof=proof,
                made_at=server_time(policy.made_at),
                fresh_until=server_time(policy.fresh_until) if timed else None,
                max_age=policy.max_age,
                media_type=entry.media_type,
                comparable_bytes=entry.comparable_bytes,
                timings=entry.timings,
                disposition=entry.disposition,
                truncated=entry.truncated,
                body=body,
            )
            if len(body) < WORK_HERE:
                value = seal(result, proof.incarnation)
            else:
                value = await asyncio.to_thread(seal, result, proof.incarnation)
        await self.store.publish(name, value, int(lasts_s * 1000) + 1, leading=leading)

    def server_time(self) -> float:
        """The database server's time, by which all nodes tell when a lease ends."""
        return self._generations.proofs.server_time(self._clock())

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what no caller waits for."""
        task = asyncio.get_running_loop().create_task(_unless_away(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Lease:
    """A lease that is held while its run goes on. It proves to other nodes that this one is alive."""

    def __init__(self, sharing: Sharing, name: bytes, incarnation: bytes) -> None:
        self._sharing = sharing
        self._name = name
        self._incarnation = incarnation
        self._nonce = secrets.token_bytes(8)
        self._loop = asyncio.get_running_loop()
        self._signed_at = -inf
        self._held_until = -inf
        self._timer: asyncio.TimerHandle | None = None

    def signed(self) -> bytes:
        """The lease as the store shows it, from now on."""
        self._signed_at = self._loop.time()
        ends_at = self._sharing.server_time() + LEASE_MS / 1000
        return lease_of(self._name, ends_at, self._nonce, self._incarnation)

    def hold(self) -> None:
        """The store has taken the lease that was signed last."""
        self._held_until = self._signed_at + LEASE_MS / 1000
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    def end(self) -> bool:
        """Hold it no longer. Returns whether it is still ours, so that it may be released."""
        if self._timer is not None:
            self._timer.cancel()
        return self._loop.time() < self._held_until

    def _beat(self) -> None:
        if self._loop.time() < self._held_until:  # else another node may hold it by now
            self._sharing.later(self._extend())
            self._timer = self._loop.call_later(BEAT_S, self._beat)

    async def _extend(self) -> None:
        signed, signed_at = self.signed(), self._signed_at
        await self._sharing.store.extend(self._name, signed)
        self._held_until = signed_at + LEASE_MS / 1000


async def _unless_away(work: Coroutine[Any, Any, None]) -> None:
    with suppress(StoreAway):
        await work
