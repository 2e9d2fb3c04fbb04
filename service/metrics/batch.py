"""Several metrics in one answer: each tile succeeds or fails alone, equal tiles are computed once."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from service.errors import FieldError, InvalidInput, Problem, QueryTimeout, ResultTooLarge
from service.http import bodies
from service.http.ids import parse_uuid
from service.metrics.catalog import Catalog, Dashboard
from service.metrics.execute import Executor
from service.metrics.models import BatchEntry
from service.results.cache import Composition, Results
from service.results.headers import Directives
from service.results.table import CacheOutcome
from service.sql.parameters import exact

# Tiles of one request that ask Postgres side by side; the rest of the reader's pool stays for other callers.
SIDE_BY_SIDE: Final = 4
LARGEST_TOGETHER: Final = 4
"""How many of the largest results (RESULT_BYTES_LIMIT) one answer of many may hold."""


class Caller(Struct, frozen=True):
    """Who asks, as the claims that policies read, and how anew."""

    claims: str
    directives: Directives


class Tile(Struct, frozen=True, omit_defaults=True):
    """A metric's part of the answer: `result` with status 200, else `problem`; `id` as it was given."""

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
"""Bytes of an entry that is read at all; between two of a tenth of that others have their turn."""


class _Named(Struct):
    id: str


class _Request(Struct):
    """What the tiles of one request share; `room` is how many bytes its answer may still take."""

    asker: Caller
    side_by_side: asyncio.Semaphore
    deadline: float
    room: int

    def fits(self, served: CacheOutcome, copies: int) -> bool:
        """Take room for a tile that stands so many times in the answer; what does not fit takes none."""
        taken = copies * len(served.entry.representations["identity"].body)
        if taken > self.room:
            return False
        self.room -= taken
        return True


_ENTRY_IS: Final = 'An entry is an object such as {"id": "<UUID of a metric>", "parameters": {"<name>": 1}}.'
_KEY: Final = msgspec.json.Encoder(order="deterministic", decimal_format="number")

TileRequest = tuple[str, dict[str, Any], tuple[str, ...]]
"""A metric's id, the parameters it takes, and the names of those it ignores."""


class Batcher:
    """Runs tiles under one deadline, which is what a single metric has, and what the queue allows on top.

    All of them together take `LARGEST_TOGETHER` times `bytes_limit`, what one result may take, at most.
    """

    def __init__(
        self, catalog: Catalog, executor: Executor, results: Results, *, deadline_s: float, bytes_limit: int
    ) -> None:
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self._deadline_s = deadline_s
        self._room = LARGEST_TOGETHER * bytes_limit

    async def batch(self, entries: Sequence[Raw], asker: Caller) -> list[Tile]:
        """Tiles in the order of the entries."""
        read: list[BatchEntry | Tile] = []
        for entry in entries:
            read.append(_read(entry))
            await _pause_after(entry)
        wishes: list[TileRequest] = [
            (each.id, each.parameters, ()) for each in read if isinstance(each, BatchEntry)
        ]
        answered = iter(_tiles(wishes, await self._run(wishes, asker)))
        return [each if isinstance(each, Tile) else next(answered) for each in read]

    async def dashboard(self, dashboard: Dashboard, given: Mapping[str, str], asker: Caller) -> CacheOutcome:
        """Every tile of a dashboard as one answer; each takes of `given` what it knows."""
        version = self._catalog.version
        wishes: list[TileRequest] = []
        for metric in dashboard.metrics:
            try:
                accepted = (await self._executor.prepare(metric)).template.accepted
            except Problem:  # the tile itself will say so
                accepted = ()
            taken = {name: value for name, value in given.items() if name in accepted}
            wishes.append((str(metric.id), taken, tuple(name for name in given if name not in taken)))
        owner = ("dashboard", dashboard.id)
        asked = Composition((*owner, version, tuple(sorted(given.items()))), owner, asker.claims)
        if held := self._results.composed(asked, asker.directives):
            return held
        answers = await self._run(wishes, asker)
        body = msgspec.json.encode(DashboardData(dashboard.id, _tiles(wishes, answers)))
        parts = [answer for answer in answers if isinstance(answer, CacheOutcome)]
        whole = len(parts) == len(answers)
        return self._results.compose(asked, body, parts, whole=whole)

    async def _run(self, wishes: Sequence[TileRequest], asker: Caller) -> list[CacheOutcome | Problem]:
        keys: list[bytes] = []
        for metric_id, given, _ in wishes:
            keys.append(_KEY.encode((metric_id.lower(), given)))
            await _pause_after(keys[-1])
        copies = Counter(keys)
        once: dict[bytes, asyncio.Task[CacheOutcome | Problem]] = {}
        async with asyncio.TaskGroup() as tasks:
            deadline = asyncio.get_running_loop().time() + self._deadline_s
            request = _Request(asker, asyncio.Semaphore(SIDE_BY_SIDE), deadline, self._room)
            for key, (metric_id, given, _) in zip(keys, wishes, strict=True):
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
        wanted = None
        asker, side_by_side = request.asker, request.side_by_side
        try:
            async with asyncio.timeout_at(request.deadline):
                metric = self._catalog.get(parse_uuid(metric_id))
                async with nullcontext() if self._executor.has_plan(metric) else side_by_side:
                    wanted = await self._executor.wanted(metric, given, claims=asker.claims)
                if held := self._results.fresh(wanted.key, asker.directives):
                    return held
                async with side_by_side:
                    return await self._results.get(wanted, asker.directives)
        except TimeoutError:
            held = await self._results.held(wanted, asker.directives) if wanted else None
            late = f"Not reached within the {self._deadline_s:g} s that one request may take."
            return held or QueryTimeout(late)
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
        return bodies.decode(entry, BatchEntry, within="entry", number=exact)
    except InvalidInput as wrong:
        problem = InvalidInput(_ENTRY_IS, errors=wrong.errors)
    try:
        named = bodies.decode(entry, _Named).id
    except InvalidInput:
        named = None
    return Tile(named, problem.status, problem=problem.document())


def _tiles(wishes: Sequence[TileRequest], answers: Sequence[CacheOutcome | Problem]) -> list[Tile]:
    return [
        _tile(metric_id, answer, ignored)
        for (metric_id, _, ignored), answer in zip(wishes, answers, strict=True)
    ]


def _tile(metric_id: str, answer: CacheOutcome | Problem, ignored: tuple[str, ...]) -> Tile:
    told = ignored or UNSET
    if isinstance(answer, CacheOutcome):
        body, etag = answer.entry.representations["identity"]
        return Tile(metric_id, 200, etag=etag, result=Raw(body), ignored_parameters=told)
    return Tile(metric_id, answer.status, problem=answer.document(), ignored_parameters=told)
