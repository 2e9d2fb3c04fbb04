"""Queue imports in this process before they acquire a connection.

Imports of several processes wait for an advisory lock, and hold a connection while they wait. Imports that
queue here hold none, so most of the owner's pool stays free for other requests.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from service.errors import Busy
from service.imports.contracts import Dataset, concerned
from service.imports.readers.workbooks import READERS

AT_ONCE: Final = 3
"""How many imports may hold a connection. The pool has `gateway.OWNER_POOL_SIZE`."""
WAITING: Final = 64


class Turns:
    """Tracks running and waiting imports."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self.readers = asyncio.Semaphore(READERS)
        """Limits how many workbooks are read at once, before their imports take a turn."""

    @asynccontextmanager
    async def take(self, dataset: Dataset, datasets: tuple[Dataset, ...]) -> AsyncGenerator[None]:
        """Wait for a turn and hold it for the block. Raises `Busy` if too many imports wait."""
        if self._waiting >= WAITING:
            raise Busy(
                f"{WAITING} imports are waiting already: try again later.", headers={"Retry-After": "10"}
            )
        async with AsyncExitStack() as held:
            self._waiting += 1
            try:
                for name in concerned(dataset, datasets):
                    await held.enter_async_context(self._locks[name])
                await held.enter_async_context(self._places)
            finally:
                self._waiting -= 1
            yield
