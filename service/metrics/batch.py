"""Several metrics in one answer. Each tile succeeds or fails alone. Equal tiles are computed once."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from service.auth.guards import TakeMetric
from service.errors import FieldError, InvalidInput, Problem, QueryTimeout, ResultTooLarge, TooManyRequests
from service.http import bodies
from service.http.fields import Directives
from service.http.ids import parse_uuid, read_uuid
from service.metrics.catalog import Catalog, Dashboard
from service.metrics.execute import Executor
from service.metrics.models import BatchEntry
from service.results.cache import Results
from service.results.requests import Composition
from service.results.table import CacheOutcome

# How many tiles of one request query Postgres at once. Other callers use the rest of the reader pool.
SIDE_BY_SIDE: Final = 4
LARGEST_TOGETHER: Final = 4
"""The size limit of a batch answer, as a multiple of RESULT_BYTES_LIMIT."""


class Caller(Struct, frozen=True):
    """The claims that row policies read, the `Cache-Control` directives of the request, and who asks."""

    claims: str
    directives: Directives
    subject: str = ""


class Tile(Struct, frozen=True, omit_defaults=True):
    """One metric in the answer: `result` with status 200, else `problem`. `id` is the id from the request."""

    id: str | None
    status: int
    etag: str | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    problem: dict[str, Any] | UnsetType = UNSET
    ignored_parameters: tuple[str, ...] | UnsetType = UNSET


class Tiles(Struct, frozen=True):
    results: list[Tile]


class DashboardData(Struct, frozen=True):
    id: str
    results: list[Tile]


LARGEST_ENTRY: Final = 512 << 10
"""Bytes an entry may have. After an entry of a tenth of this size, the event loop serves other requests."""


class _Named(Struct):
    id: str


class _Request(Struct):
    """State that the tiles of one request share. `room` is how many bytes the answer may still take."""

    caller: Caller
    side_by_side: asyncio.Semaphore
    deadline: float
    room: int

    def fits(self, outcome: CacheOutcome, copies: int) -> bool:
        """Reserve room for `copies` copies of a tile. Reserve nothing if they do not fit."""
        size = copies * len(outcome.entry.body)
        if size > self.room:
            return False
        self.room -= size
        return True


_ENTRY_IS: Final = 'An entry is an object such as {"id": "<UUID of a metric>", "parameters": {"<name>": 1}}.'

TileRequest = tuple[str, dict[str, Any], tuple[str, ...]]
"""A metric's id, the parameters it takes, and the names of the parameters it ignores."""


class Batcher:
    """Runs all tiles of a request under one deadline: the time of a single metric plus the time in the queue.

    All tiles together take at most `LARGEST_TOGETHER * bytes_limit` bytes; `bytes_limit` is for one result.
    `take` counts each metric that a caller names.
    """

    def __init__(
        self,
        catalog: Catalog,
        executor: Executor,
        results: Results,
        *,
        deadline_s: float,
        bytes_limit: int,
        take: TakeMetric,
    ) -> None:
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self._deadline_s = deadline_s
        self._room = LARGEST_TOGETHER * bytes_limit
        self._take = take

    async def batch(self, entries: Sequence[Raw], caller: Caller) -> list[Tile]:
        """Return the tiles in the order of the entries."""
        read: list[BatchEntry | Tile] = []
        for entry in entries:
            read.append(self._counted(_read(entry), caller))
            await _pause_after(entry)
        requests: list[TileRequest] = [
            (each.id, each.parameters, ()) for each in read if isinstance(each, BatchEntry)
        ]
        answered = iter(_tiles(requests, await self._run(requests, caller)))
        return [each if isinstance(each, Tile) else next(answered) for each in read]

    def _counted(self, entry: BatchEntry | Tile, caller: Caller) -> BatchEntry | Tile:
        """The entry, or the problem of one that is too many for its metric."""
        if isinstance(entry, BatchEntry) and (metric := read_uuid(entry.id)):
            try:
                self._take(caller.subject, metric)
            except TooManyRequests as problem:
                return Tile(entry.id, problem.status, problem=problem.document())
        return entry

    async def dashboard(self, dashboard: Dashboard, given: Mapping[str, str], caller: Caller) -> CacheOutcome:
        """Return all tiles of a dashboard as one answer. Each tile uses the parameters that it knows."""
        version = self._catalog.version
        requests: list[TileRequest] = []
        for metric in dashboard.metrics:
            try:
                accepted = (await self._executor.prepare(metric)).template.accepted
            except Problem:  # the tile reports it, or refuses what it does not know: never other parameters
                accepted = tuple(given)
            taken = {name: value for name, value in given.items() if name in accepted}
            requests.append((str(metric.id), taken, tuple(name for name in given if name not in taken)))
        owner = ("dashboard", dashboard.id)
        asked = Composition((*owner, version, tuple(sorted(given.items()))), owner, caller.claims)
        if cached := self._results.composed(asked, caller.directives):
            return cached
        answers = await self._run(requests, caller)
        body = msgspec.json.encode(DashboardData(dashboard.id, _tiles(requests, answers)))
        parts = [answer for answer in answers if isinstance(answer, CacheOutcome)]
        whole = len(parts) == len(answers)
        return self._results.compose(asked, body, parts, whole=whole)

    async def _run(self, requests: Sequence[TileRequest], caller: Caller) -> list[CacheOutcome | Problem]:
        keys: list[bytes] = []
        for metric_id, given, _ in requests:
            keys.append(bodies.encode_key((metric_id.lower(), given)))
            await _pause_after(keys[-1])
        copies = Counter(keys)
        once: dict[bytes, asyncio.Task[CacheOutcome | Problem]] = {}
        async with asyncio.TaskGroup() as tasks:
            deadline = asyncio.get_running_loop().time() + self._deadline_s
            request = _Request(caller, asyncio.Semaphore(SIDE_BY_SIDE), deadline, self._room)
            for key, (metric_id, given, _) in zip(keys, requests, strict=True):
                if key not in once:
                    once[key] = tasks.create_task(self._fitting(metric_id, given, request, copies[key]))
        return [once[key].result() for key in keys]

    async def _fitting(
        self, metric_id: str, given: dict[str, Any], request: _Request, copies: int
    ) -> CacheOutcome | Problem:
        answer = await self._answer(metric_id, given, request)
        if isinstance(answer, CacheOutcome) and not request.fits(answer, copies):
            return ResultTooLarge(
                f"All results together take more than {self._room} bytes: ask for it alone."
            )
        return answer

    async def _answer(
        self, metric_id: str, given: dict[str, Any], request: _Request
    ) -> CacheOutcome | Problem:
        cache_request = None
        caller, side_by_side = request.caller, request.side_by_side
        try:
            async with asyncio.timeout_at(request.deadline):
                metric = self._catalog.get(parse_uuid(metric_id))
                async with nullcontext() if self._executor.planned(metric) else side_by_side:
                    cache_request = await self._executor.cache_request(metric, given, claims=caller.claims)
                if cached := self._results.hit(cache_request.key, caller.directives):
                    return cached
                async with side_by_side:
                    return await self._results.get(cache_request, caller.directives)
        except TimeoutError:
            stale = await self._results.held(cache_request, caller.directives) if cache_request else None
            late = f"Not reached within the {self._deadline_s:g} s that one request may take."
            return stale or QueryTimeout(late)
        except Problem as problem:
            return problem


async def _pause_after(entry: Raw | bytes) -> None:
    if len(bytes(entry)) > LARGEST_ENTRY // 10:
        await asyncio.sleep(0)


def _refuse_large(entry: Raw) -> None:
    if len(bytes(entry)) > LARGEST_ENTRY:
        raise InvalidInput(errors=(FieldError("entry", f"it takes more than {LARGEST_ENTRY} bytes"),))


def _read(entry: Raw) -> BatchEntry | Tile:
    try:
        _refuse_large(entry)
        return bodies.decode(entry, BatchEntry, within="entry")
    except InvalidInput as wrong:
        problem = InvalidInput(_ENTRY_IS, errors=wrong.errors)
    try:
        named = bodies.decode(entry, _Named).id
    except InvalidInput:
        named = None
    return Tile(named, problem.status, problem=problem.document())


def _tiles(requests: Sequence[TileRequest], answers: Sequence[CacheOutcome | Problem]) -> list[Tile]:
    return [
        _tile(metric_id, answer, ignored)
        for (metric_id, _, ignored), answer in zip(requests, answers, strict=True)
    ]


def _tile(metric_id: str, answer: CacheOutcome | Problem, ignored: tuple[str, ...]) -> Tile:
    names = ignored or UNSET
    if isinstance(answer, CacheOutcome):
        body, etag = Raw(answer.entry.body), answer.entry.etag
        return Tile(metric_id, 200, etag=etag, result=body, ignored_parameters=names)
    return Tile(metric_id, answer.status, problem=answer.document(), ignored_parameters=names)
