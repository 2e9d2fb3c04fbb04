"""Lookups of results that any function computes."""

from collections.abc import Awaitable, Callable

from service.results.requests import CacheRequest, Computed


class Lookup(CacheRequest, frozen=True, kw_only=True):
    compute: Callable[[], Awaitable[Computed]]

    def run(self, *, afresh):
        return self.compute()
