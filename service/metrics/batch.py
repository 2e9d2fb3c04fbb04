"""Several metrics in one answer: each tile succeeds or fails alone, equal tiles are computed once."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from service.errors import FieldError, InvalidInput, Problem, QueryTimeout
from service.metrics.catalog import Catalog, Dashboard
from service.metrics.execute import Answer, Executor
from service.metrics.models import BatchEntry

# Tiles of one request that run side by side; the rest of the reader's pool stays for other callers.
SIDE_BY_SIDE: Final = 4


class Tile(Struct, frozen=True, omit_defaults=True):
    """A metric's part of the answer: `result` with status 200, else `problem`."""

    id: str
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


class Batcher:
    """Runs tiles under one deadline, which is what a single metric has, and what the queue allows on top."""

    def __init__(self, catalog: Catalog, executor: Executor, deadline_s: float) -> None:
        self._catalog = catalog
        self._executor = executor
        self._deadline_s = deadline_s

    async def batch(self, entries: Sequence[BatchEntry], claims: str | None = None) -> list[Tile]:
        """Tiles in the order of the entries."""
        return await self._run([(entry.id, entry.parameters, ()) for entry in entries], claims)

    async def dashboard(
        self, dashboard: Dashboard, given: Mapping[str, str], claims: str | None = None
    ) -> list[Tile]:
        """Every tile of a dashboard; each takes of `given` what it knows and says what it ignored."""
        wanted: list[tuple[str, Mapping[str, Any], tuple[str, ...]]] = []
        for metric in dashboard.metrics:
            try:
                accepted = (await self._executor.prepare(metric)).template.accepted
            except Problem:  # the tile itself will say so
                accepted = ()
            taken = {name: value for name, value in given.items() if name in accepted}
            wanted.append((str(metric.id), taken, tuple(name for name in given if name not in taken)))
        return await self._run(wanted, claims)

    async def _run(
        self, wanted: Sequence[tuple[str, Mapping[str, Any], tuple[str, ...]]], claims: str | None
    ) -> list[Tile]:
        side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)
        once: dict[bytes, asyncio.Task[Answer | Problem]] = {}
        async with asyncio.TaskGroup() as tasks:
            deadline = asyncio.get_running_loop().time() + self._deadline_s
            started: list[tuple[str, asyncio.Task[Answer | Problem], tuple[str, ...]]] = []
            for metric_id, given, ignored in wanted:
                key = msgspec.json.encode((metric_id.lower(), given), order="deterministic")
                if key not in once:
                    answer = self._answer(metric_id, given, claims, side_by_side, deadline)
                    once[key] = tasks.create_task(answer)
                started.append((metric_id, once[key], ignored))
        return [_tile(metric_id, task.result(), ignored) for metric_id, task, ignored in started]

    async def _answer(
        self,
        metric_id: str,
        given: Mapping[str, Any],
        claims: str | None,
        side_by_side: asyncio.Semaphore,
        deadline: float,
    ) -> Answer | Problem:
        try:
            async with asyncio.timeout_at(deadline), side_by_side:
                metric = self._catalog.get(parse_id(metric_id))
                return await self._executor.answer(metric, given, claims=claims)
        except TimeoutError:
            return QueryTimeout(f"Not reached within the {self._deadline_s:g} s that one request may take.")
        except Problem as problem:
            return problem


def parse_id(text: str) -> UUID:
    """Raises `InvalidInput` for what is not a UUID."""
    try:
        return msgspec.convert(text, UUID, strict=False)
    except msgspec.ValidationError:
        raise InvalidInput(errors=(FieldError("id", f"{text[:60]!r} is not a UUID"),)) from None


def _tile(metric_id: str, answer: Answer | Problem, ignored: tuple[str, ...]) -> Tile:
    told = ignored or UNSET
    if isinstance(answer, Answer):
        return Tile(metric_id, 200, etag=answer.etag, result=Raw(answer.body), ignored_parameters=told)
    return Tile(metric_id, answer.status, problem=answer.document(), ignored_parameters=told)
