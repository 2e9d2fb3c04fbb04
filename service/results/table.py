"""Results in memory, limited in bytes.

Eviction is S3-FIFO (Yang et al., SOSP 2023). New entries start in a small queue, and only entries that are
read again enter the main queue. So a scan of one-time results does not evict results that dashboards poll.
"""

from collections import OrderedDict
from collections.abc import Hashable
from math import inf
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct

from service.http.asgi import Headers, Message
from service.http.fields import has_tag
from service.http.representation import CODINGS, SMALLEST, Coding, strong_tag, tag_of_coding
from service.observe.events import Served
from service.results.freshness import FreshnessPolicy
from service.results.stored import Proof

Messages = tuple[Message, Message]
MissReason = Literal["miss", "stale", "request"]
Queue = OrderedDict[Hashable, "Entry"]

SMALL_SHARE: Final = 10
LARGEST_SHARE: Final = 8
MOST_ASKED: Final = 3
OVERHEAD: Final = 2048  # bytes of an entry without its bodies: key, policy, index entries, headers
GHOSTS: Final = 16_384


class Representation(NamedTuple):
    """A body as sent, with its own strong ETag, quotes included."""

    body: bytes
    etag: str


def plain(body: bytes) -> dict[Coding, Representation]:
    """The first representations of an entry. A small body is never compressed: all codings share it."""
    representation = Representation(body, strong_tag(body))
    return dict.fromkeys(("identity", *CODINGS) if len(body) <= SMALLEST else ("identity",), representation)


class Reply(NamedTuple):
    """A response: its ETag, the lines of its head, of which a 304 omits the first `omitted`, and its body."""

    etag: bytes
    lines: Headers
    omitted: int
    content: Message

    def messages(self, method: str, condition: bytes, extra: Headers) -> Messages:
        """The messages of the response to a GET or HEAD: 304 if `condition`, an If-None-Match, holds."""
        if condition and (condition == self.etag or _holds(condition, self.etag)):
            headers = [*self.lines[self.omitted :], *extra]
            return {"type": "http.response.start", "status": 304, "headers": headers}, _NO_BODY
        return (
            {"type": "http.response.start", "status": 200, "headers": [*self.lines, *extra]},
            _NO_BODY if method == "HEAD" else self.content,
        )

    @property
    def body(self) -> bytes:
        return self.content["body"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.lines}


def _holds(condition: bytes, etag: bytes) -> bool:
    return has_tag(condition.decode("latin-1"), etag.decode(), weak=True)


_NO_BODY: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


class Entry(Struct, eq=False, kw_only=True, gc=False):
    """A cached result in one format, with the content codings that were requested so far.

    - `owner`: the metric or dashboard with which the entry is dropped.
    - `representations`: by the coding that a client prefers.
    - `disposition`: its `Content-Disposition`, empty if there is none.
    - `truncated`: whether its statement has more rows, which every format tells by a header.
    - `run`: a name in its policy's basis, which ends the freshness of this entry alone; empty if composed.
    - `comparable_bytes`: two results are equal if their first bytes, this many, are equal.
    - `timings`: the `Server-Timing` of its run.
    - `shared`: whether everybody who may read metrics may get it.
    - `evaluated_at`: the value of `Generations.changes` at which it was last found fresh.
    - `request`: how it was computed; None if composed.
    - `asked_at`, `requests`: when it was last served, and how often.
    - `proof`: what its run saw, for other nodes; None if it is not shared.
    - `adopted`: whether no run of this node was made for it.
    - `hits`: by coding, the reply to a hit and until when the age is right that it states.
    """

    key: Hashable
    owner: Hashable
    policy: FreshnessPolicy
    media_type: str
    representations: dict[Coding, Representation]
    disposition: str = ""
    truncated: bool = False
    run: str = ""
    comparable_bytes: int = 0
    timings: str = ""
    shared: bool = True
    request: Any = None
    asked: int = 0
    asked_at: float = -inf
    requests: int = 0
    evaluated_at: int = -1
    proof: Proof | None = None
    adopted: bool = False
    hits: dict[Coding, tuple[float, Reply]] = {}
    weight: int = OVERHEAD

    def __post_init__(self) -> None:
        identity = self.representations["identity"]
        self.weight += len(identity.body)
        for representation in self.representations.values():
            if representation is not identity:  # all codings share a small body
                self.weight += len(representation.body)

    @property
    def body(self) -> bytes:
        """The uncompressed body."""
        return self.representations["identity"].body

    @property
    def etag(self) -> str:
        """The ETag of the uncompressed body."""
        return self.representations["identity"].etag


class CacheOutcome(Struct, frozen=True, gc=False):
    """A result to serve now. `stale_s` is 0 if fresh. `forward` is the reason of a run, None for a hit."""

    entry: Entry
    stale_s: int = 0
    forward: MissReason | None = None
    collapsed: bool = False

    @property
    def kind(self) -> Served:
        if self.forward is not None:
            return "joined" if self.collapsed else "miss"
        return "stale" if self.stale_s else "hit"


class ResultTable:
    """Entries by key. An entry larger than an eighth of `room` is not stored."""

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
        """Bytes in use."""
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

    def peek(self, key: Hashable) -> Entry | None:
        """The same without counting it as asked for."""
        return self._main.get(key) or self._small.get(key)

    def put(self, entry: Entry) -> None:
        """Store an entry. It replaces an entry of the same key and takes its place in the queue."""
        if entry.weight > self._room // LARGEST_SHARE:
            self._remove(entry.key)
            return
        queue = self._small if entry.key in self._small else self._main
        if previous := queue.get(entry.key):
            entry.asked, entry.requests = previous.asked, previous.requests
            entry.asked_at = max(entry.asked_at, previous.asked_at)
            self._weigh(queue, -previous.weight)
            queue[entry.key] = entry
            self._weigh(queue, entry.weight)
            self._owned[previous.owner].discard(entry.key)
        else:
            was_evicted = self._ghosts.pop(entry.key, entry) is None
            self._append(self._main if was_evicted else self._small, entry)
        self._owned.setdefault(entry.owner, set()).add(entry.key)
        self._shrink()

    def add(self, entry: Entry, coding: Coding, body: bytes) -> Representation:
        """Add a coded representation to an entry."""
        representation = Representation(body, tag_of_coding(entry.representations["identity"].etag, coding))
        entry.representations[coding] = representation
        entry.weight += len(body)
        for queue in (self._small, self._main):
            if queue.get(entry.key) is entry:
                self._weigh(queue, len(body))
        self._shrink()
        return representation

    def holds(self, owner: Hashable) -> bool:
        """Whether there is an entry of this owner."""
        return bool(self._owned.get(owner))

    def drop(self, owner: Hashable) -> None:
        """Drop every entry of an owner."""
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
