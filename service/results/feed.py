"""Subscriptions to changes. A slow subscriber gets one merged change, never a growing queue."""

import asyncio
from collections.abc import Hashable, Iterable
from math import inf
from typing import Final, Self

from msgspec import Struct

MERGED_TABLES: Final = 256
"""A subscriber to all tables learns of at most this many by name. After more, any table may have changed."""


class Change(Struct, frozen=True):
    """Everything that a subscriber has not heard of yet.

    - `tables` changed.
    - `redefined`: these metrics (by id) and dashboards (`("dashboard", id)`) changed or were deleted.
    - `renewed`: any table may have changed, after a gap in the announcements or a redefinition.
    - `silent_since`: since when changes may go unnoticed; None while they are noticed.
    """

    tables: frozenset[str] = frozenset()
    redefined: frozenset[Hashable] = frozenset()
    renewed: bool = False
    silent_since: float | None = None


class Subscription:
    """An async iterator of changes, for one consumer. It ends with its `with` block.

    It tells of every change after its creation, so subscribe first and read the data then.
    """

    def __init__(self, feed: "ChangeFeed", tables: Iterable[str] | None, owners: Iterable[Hashable]) -> None:
        self._feed = feed
        self._named = tables is not None
        self.names: frozenset[Hashable] = frozenset((None,) if tables is None else tables).union(owners)
        self._tables: set[str] = set()
        self._owners: set[Hashable] = set()
        self._renewed = False
        self._told_silence: float | None = None
        self._closed = False
        self._wake = asyncio.Event()
        self._wake.set()  # the first look tells of a present silence

    def take(self) -> Change | None:
        """The merged change since the last one; None if nothing changed. Does not wait."""
        self._wake.clear()
        since = self._feed.silent_since
        if not (self._tables or self._owners or self._renewed) and since == self._told_silence:
            return None
        change = Change(frozenset(self._tables), frozenset(self._owners), self._renewed, since)
        self._tables.clear()
        self._owners.clear()
        self._renewed, self._told_silence = False, since
        return change

    async def wait(self) -> None:
        """Wait until `take` may have a change, or until the subscription ends. It takes nothing."""
        await self._wake.wait()

    def moved(self, table: str) -> None:
        if self._named or len(self._tables) < MERGED_TABLES:
            self._tables.add(table)
        else:
            self._renewed = True
        self._wake.set()

    def redefined(self, owner: Hashable) -> None:
        self._owners.add(owner)
        self._wake.set()

    def renewed(self) -> None:
        self._renewed = True
        self._wake.set()

    def wake(self) -> None:
        """Look for a change: the silence began or ended."""
        self._wake.set()

    def close(self) -> None:
        """End the iteration. Changes that were not taken are dropped."""
        self._feed.leave(self)
        self._closed = True
        self._wake.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._closed:
            if (change := self.take()) is not None:
                return change
            await self._wake.wait()
        raise StopAsyncIteration


class ChangeFeed:
    """Hands changes to subscriptions. A change costs only the subscriptions that it concerns."""

    def __init__(self) -> None:
        self.silent_since: float | None = -inf
        # In the order of their subscription: sets of objects have another one in each process.
        self._subscriptions: dict[Subscription, None] = {}
        self._by_name: dict[Hashable, dict[Subscription, None]] = {}

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self, tables: Iterable[str] | None, owners: Iterable[Hashable] = ()) -> Subscription:
        """Subscribe to changes of tables (None: all) and of the definitions of metrics and dashboards."""
        subscription = Subscription(self, tables, owners)
        self._subscriptions[subscription] = None
        for name in subscription.names:
            self._by_name.setdefault(name, {})[subscription] = None
        return subscription

    def leave(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)
        for name in subscription.names:
            others = self._by_name.get(name, {})
            others.pop(subscription, None)
            if not others:
                self._by_name.pop(name, None)

    def moved(self, table: str) -> None:
        for name in (table, None):
            for subscription in self._by_name.get(name, ()):
                subscription.moved(table)

    def redefined(self, owners: Iterable[Hashable]) -> None:
        for owner in owners:
            for subscription in self._by_name.get(owner, ()):
                subscription.redefined(owner)

    def renewed(self) -> None:
        for subscription in self._subscriptions:
            subscription.renewed()

    def silent(self, since: float | None) -> None:
        """Tell that changes may go unnoticed since then; with None, that they are noticed again."""
        self.silent_since = since
        for subscription in self._subscriptions:
            subscription.wake()
