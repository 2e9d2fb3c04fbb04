"""Finished answers in memory, bounded in bytes.

Eviction is S3-FIFO (Yang et al., SOSP 2023): new answers pass through a small queue and enter the main one
only when they were asked for again, so a scan of one-time answers leaves what dashboards poll where it is.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from msgspec import Struct, field

from service.http.asgi import Message
from service.http.representation import CODINGS, SMALLEST, Coding, matches, tag_of_coding
from service.results.freshness import Counter, FreshnessPolicy

Headers = list[tuple[bytes, bytes]]
Messages = tuple[Message, Message]
MissReason = Literal["miss", "stale", "request"]
Queue = OrderedDict[Hashable, "Entry"]

SMALL_SHARE: Final = 10
LARGEST_SHARE: Final = 8
MOST_ASKED: Final = 3
OVERHEAD: Final = 2048  # bytes of an entry beside its bodies: key, terms, aliases, headers
GHOSTS: Final = 16_384


class Representation(NamedTuple):
    """Bytes as sent, under a strong entity tag of their own, quotes included."""

    body: bytes
    etag: str


def plain(body: bytes) -> dict[Coding, Representation]:
    """Begin an entry's representations; a small body is sent as it is whatever coding is liked."""
    made = Representation(body, f'"{blake2b(body, digest_size=16).hexdigest()}"')
    return dict.fromkeys(("identity", *CODINGS) if len(body) <= SMALLEST else ("identity",), made)


class Reply(NamedTuple):
    """An answer as it is sent: its body, the headers that a 304 goes without, and all others."""

    body: bytes
    etag: str
    of_the_body: Headers
    others: Headers

    def messages(self, if_none_match: bytes | None, extra: Iterable[tuple[bytes, bytes]]) -> Messages:
        """The reply to a GET, which is 304 to somebody who holds it."""
        if if_none_match is not None and matches(if_none_match.decode("latin-1"), self.etag):
            headers = [*self.others, *extra]
            return {"type": "http.response.start", "status": 304, "headers": headers}, _NO_BODY
        headers = [*self.of_the_body, *self.others, *extra]
        return (
            {"type": "http.response.start", "status": 200, "headers": headers},
            {"type": "http.response.body", "body": self.body, "more_body": False},
        )

    @property
    def headers(self) -> dict[str, str]:
        lines = (*self.of_the_body, *self.others)
        return {name.decode(): value.decode() for name, value in lines}


_NO_BODY: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


class Entry(Struct, eq=False, kw_only=True):
    """An answer in one format, with those codings of it that were asked for.

    `representations` are by the coding that a client likes best, `owner` is what the answer is dropped with
    (a metric, a dashboard), `own` a counter of its terms that ends the freshness of this answer alone,
    `comparable_bytes` how many of its first bytes make two answers the same although they were made at
    different times,
    `timings` what its run took (Server-Timing), `shared` whether everybody who may read metrics may have it,
    `evaluated_at` the changes (`Generations.changes`) up to which its tables are known to stand, `hits` the
    replies
    to hits and the age in seconds that they tell.
    """

    key: Hashable
    owner: Hashable
    terms: FreshnessPolicy
    media_type: str
    representations: dict[Coding, Representation]
    own: Counter = field(default_factory=Counter)
    comparable_bytes: int = 0
    timings: str = ""
    shared: bool = True
    asked: int = 0
    evaluated_at: int = -1
    hits: dict[Coding, tuple[int, Reply]] = {}
    weight: int = OVERHEAD

    def __post_init__(self) -> None:
        identity = self.representations["identity"]
        self.weight += len(identity.body)
        for made in self.representations.values():
            if made is not identity:  # a small body stands under every coding
                self.weight += len(made.body)


class CacheOutcome(Struct, frozen=True):
    """An answer as it may be given now: `stale_s` 0 means fresh; `forward` says why it was run, if it was."""

    entry: Entry
    stale_s: int = 0
    forward: MissReason | None = None
    collapsed: bool = False


class ResultTable:
    """Answers by key; one that weighs more than an eighth of the room is not kept at all."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._small: Queue = OrderedDict()
        self._main: Queue = OrderedDict()
        self._ghosts: OrderedDict[Hashable, None] = OrderedDict()
        self._owned: dict[Hashable, set[Hashable]] = {}
        self._small_weight = 0
        self._main_weight = 0

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    @property
    def weight(self) -> int:
        """Bytes held."""
        return self._small_weight + self._main_weight

    def get(self, key: Hashable) -> Entry | None:
        entry = self._main.get(key)
        if entry is None:
            entry = self._small.get(key)
            if entry is None:
                return None
        if entry.asked < MOST_ASKED:
            entry.asked += 1
        return entry

    def put(self, entry: Entry) -> None:
        """Hold an answer; one under the same key makes way and leaves it its place."""
        if entry.weight > self._room // LARGEST_SHARE:
            self._remove(entry.key)
            return
        queue = self._small if entry.key in self._small else self._main
        if held := queue.get(entry.key):
            entry.asked = held.asked
            self._weigh(queue, -held.weight)
            queue[entry.key] = entry
            self._weigh(queue, entry.weight)
            self._owned[held.owner].discard(entry.key)
        else:
            known = self._ghosts.pop(entry.key, entry) is None
            self._append(self._main if known else self._small, entry)
        self._owned.setdefault(entry.owner, set()).add(entry.key)
        self._shrink()

    def add(self, entry: Entry, coding: Coding, body: bytes) -> Representation:
        """Keep an encoded twin beside its answer."""
        made = Representation(body, tag_of_coding(entry.representations["identity"].etag, coding))
        entry.representations[coding] = made
        entry.weight += len(body)
        for queue in (self._small, self._main):
            if queue.get(entry.key) is entry:
                self._weigh(queue, len(body))
        self._shrink()
        return made

    def drop(self, owner: Hashable) -> None:
        """Forget every answer of an owner."""
        for key in tuple(self._owned.get(owner, ())):
            self._remove(key)

    def _shrink(self) -> None:
        while self.weight > self._room:
            if self._small_weight > self._room // SMALL_SHARE or not self._main:
                self._leave_small()
            else:
                self._leave_main()

    def _leave_small(self) -> None:
        entry = next(iter(self._small.values()))
        if entry.asked:
            self._weigh(self._small, -entry.weight)
            del self._small[entry.key]
            entry.asked = 0
            self._append(self._main, entry)
            return
        self._remove(entry.key)
        self._ghosts[entry.key] = None
        if len(self._ghosts) > GHOSTS:
            self._ghosts.popitem(last=False)

    def _leave_main(self) -> None:
        entry = next(iter(self._main.values()))
        if entry.asked:
            entry.asked -= 1
            self._main.move_to_end(entry.key)
        else:
            self._remove(entry.key)

    def _append(self, queue: Queue, entry: Entry) -> None:
        queue[entry.key] = entry
        self._weigh(queue, entry.weight)

    def _remove(self, key: Hashable) -> None:
        queue = self._small if key in self._small else self._main
        if entry := queue.pop(key, None):
            self._weigh(queue, -entry.weight)
            keys = self._owned[entry.owner]
            keys.discard(key)
            if not keys:
                del self._owned[entry.owner]

    def _weigh(self, queue: Queue, change: int) -> None:
        if queue is self._small:
            self._small_weight += change
        else:
            self._main_weight += change
