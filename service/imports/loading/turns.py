"""Imports queue in this process before they take a connection, so that nothing else waits behind them.

The advisory lock in the database keeps imports of several processes apart; it is waited for on a
connection. What waits here takes none, and what runs leaves most of the owner's pool to others.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from service.errors import Busy
from service.imports.datasets import DATASETS, Dataset
from service.imports.loading import loads
from service.imports.readers.workbooks import READERS

AT_ONCE: Final = 3
"""Imports that hold a connection, of `gateway.OWNER_POOL_SIZE`."""
WAITING: Final = 64


def taken_with(dataset: Dataset) -> list[str]:
    """The datasets that an import locks: its own and those whose waiting rows it may free, in one order."""
    concerned = {dataset.name, *(child.name for child in loads.children(dataset))}
    return [other.name for other in DATASETS if other.name in concerned]


class Turns:
    """Who imports now, and who waits."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self.readers = asyncio.Semaphore(READERS)
        """How many workbooks are read side by side, before their imports take a turn."""

    @asynccontextmanager
    async def take(self, dataset: Dataset) -> AsyncGenerator[None]:
        """Wait for a turn and keep it for the block. Raises `Busy` where too many wait already."""
        if self._waiting >= WAITING:
            raise Busy(
                f"{WAITING} imports are waiting already: try again later.", headers={"Retry-After": "10"}
            )
        async with AsyncExitStack() as held:
            self._waiting += 1
            try:
                for name in taken_with(dataset):
                    await held.enter_async_context(self._locks[name])
                await held.enter_async_context(self._places)
            finally:
                self._waiting -= 1
            yield
