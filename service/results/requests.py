"""What callers ask the cache for, and what a run gives."""

from collections.abc import Awaitable, Callable, Hashable
from math import inf
from typing import Final

from msgspec import Struct

from service.database.snapshots import Seen

REFRESH_EVERY_S: Final = 0.25


class Computed(Struct, frozen=True, gc=False):
    """The output of a run. Two outputs are equal when their first `comparable_bytes` bytes are equal.

    `fresh_for_s` is how long the result stays fresh while no table changes. `max_age` is how long a client
    may reuse the result without asking. Both count from the start of the run. `seen` is what the run saw at
    least, None if that is unknown. `disposition` is the `Content-Disposition`, empty if there is none.
    `truncated`: whether there are more rows.
    """

    body: bytes
    media_type: str
    comparable_bytes: int
    timings: str = ""
    fresh_for_s: float = inf
    max_age: int = 0
    seen: Seen | None = None
    disposition: str = ""
    truncated: bool = False


class Share(Struct, frozen=True):
    """How nodes share a result: `key` is the same on all nodes that would compute the same.

    `digest` gives the digest of all definitions that the result depends on, as this node knows them now.
    """

    key: bytes
    digest: Callable[[], bytes]


class CacheRequest(Struct, frozen=True, gc=False):
    """One lookup: its key, and how a missing result is computed. `shared`: every reader may get it.

    `refresh_every_s` is the least pause between two runs that nobody waits for. Without `share` the result
    stays on this node. The entry of the result keeps the request, so it has to be small.
    """

    key: Hashable
    owner: Hashable
    tables: tuple[str, ...]
    stale_for_s: float
    shared: bool = True
    refresh_every_s: float = REFRESH_EVERY_S
    share: Share | None = None

    def run(self, *, afresh: bool) -> Awaitable[Computed]:
        """Compute the result. `afresh`: for a caller who wants the newest data."""
        raise NotImplementedError

    def refuse(self) -> None:
        """Raise `Busy` if `run` would be refused at once."""


class Composition(Struct, frozen=True):
    """The cache keys of a result that is composed of other results.

    `question` holds everything that the result depends on except the caller. `claims` identify the caller.
    """

    question: tuple[Hashable, ...]
    owner: Hashable
    claims: str | None

    @property
    def shared_key(self) -> Hashable:
        return (*self.question, None)

    @property
    def own_key(self) -> Hashable:
        return (*self.question, ("own", self.claims))
