"""Counts as held answers: each under its question, fresh until a table that it is counted from changes."""

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.errors import Problem
from service.results.cache import CacheRequest, Computed, Results
from service.results.headers import Directives
from service.results.table import CacheOutcome

COUNTED: Final = (
    "data.customers", "data.external_interactions", "data.products_of_discussion", "data.vocabulary",
)  # fmt: skip
EVERYTHING: Final = (
    *COUNTED, "data.metrics", "catalog.query", "catalog.metric", "catalog.layout_item", 'quarantine."row"',
)  # fmt: skip
READ_TABLES: Final = (*COUNTED, "data.metrics")
"""Of these a change of definition counts too; our own tables change with a migration only."""
OWNER: Final = "interactions"
SERVER_FAULTS: Final = 500


class Counts:
    """Asks the functions of `store`, or the result table when it knows."""

    def __init__(self, database: Database, results: Results, stale_for_s: float) -> None:
        self._database = database
        self._results = results
        self._stale_for_s = stale_for_s

    async def get(
        self,
        ask: Callable[..., Awaitable[Struct]],
        *args: Hashable,
        directives: Directives,
        tables: tuple[str, ...] = COUNTED,
    ) -> CacheOutcome:
        """What `ask(database, *args)` gives, as JSON; raises what it raises."""

        async def run() -> Computed:
            started = time.perf_counter()
            body = msgspec.json.encode(await ask(self._database, *args))
            ran_ms = (time.perf_counter() - started) * 1000
            return Computed(body, "application/json", len(body), timings=f"run;dur={ran_ms:.2f}")

        key = (OWNER, ask.__name__, *args)
        wanted = CacheRequest(key, OWNER, tables, self._stale_for_s, run)
        try:
            return await self._results.get(wanted, directives)
        except Problem as problem:
            if problem.status >= SERVER_FAULTS:
                raise
        # A refusal may be a remembered one of a moment ago, and the customer or the channel be known by now.
        return await self._results.get(wanted, Directives(no_cache=True))
