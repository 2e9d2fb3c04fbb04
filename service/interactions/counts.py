"""Cached counts. A count stays fresh until a table that it reads changes."""

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.errors import Problem
from service.http.asgi import Scope, header_of
from service.http.fields import Directives, directives
from service.metrics.result_endpoint import ResultService
from service.results.cache import Results
from service.results.requests import CacheRequest, Computed
from service.results.table import CacheOutcome, Reply

COUNTED: Final = (
    "data.customers", "data.external_interactions", "data.products_of_discussion", "data.vocabulary",
)  # fmt: skip
EVERYTHING: Final = (
    *COUNTED, "data.metrics", "catalog.query", "catalog.metric", "catalog.layout_item", 'quarantine."row"',
)  # fmt: skip
READ_TABLES: Final = (*COUNTED, "data.metrics")
"""Tables whose definition is watched too. Our other tables change only with a migration."""
OWNER: Final = "interactions"
SERVER_FAULTS: Final = 500


class _Count(CacheRequest, frozen=True, kw_only=True):
    """A lookup of the result of `ask(database, *args)`."""

    ask: Callable[..., Awaitable[Struct]]
    args: tuple[Hashable, ...]
    database: Database

    async def run(self, *, afresh: bool) -> Computed:  # noqa: ARG002 (each run is on the primary)
        started = time.perf_counter()
        body = msgspec.json.encode(await self.ask(self.database, *self.args))
        ran_ms = (time.perf_counter() - started) * 1000
        return Computed(body, "application/json", len(body), timings=f"run;dur={ran_ms:.2f}")


class Counts:
    """Serves counts from the result table or from the functions of `store`."""

    def __init__(
        self, database: Database, results: Results, result_service: ResultService, stale_for_s: float
    ) -> None:
        self._database = database
        self._results = results
        self._result_service = result_service
        self._stale_for_s = stale_for_s

    async def reply(
        self,
        scope: Scope,
        ask: Callable[..., Awaitable[Struct]],
        *args: Hashable,
        tables: tuple[str, ...] = COUNTED,
    ) -> Reply:
        """Reply with the result of `ask(database, *args)` as JSON. Raises the problems of `ask`."""
        version = self._results.definitions
        wanted = directives(header_of(scope, b"cache-control"))
        outcome = await self._get(ask, args, wanted, tables)
        return await self._result_service.reply(scope, outcome, version)

    async def _get(
        self,
        ask: Callable[..., Awaitable[Struct]],
        args: tuple[Hashable, ...],
        wanted: Directives,
        tables: tuple[str, ...],
    ) -> CacheOutcome:
        key = (OWNER, ask.__name__, *args)
        cache_request = _Count(
            key, OWNER, tables, self._stale_for_s, ask=ask, args=args, database=self._database
        )
        try:
            return await self._results.get(cache_request, wanted)
        except Problem as problem:
            if problem.status >= SERVER_FAULTS:
                raise
        # The refusal may be cached, and the customer or the channel may exist by now.
        return await self._results.get(cache_request, Directives(no_cache=True))
