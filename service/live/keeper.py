"""Look after open connections: heartbeats, and credentials that no longer hold."""

import asyncio
from typing import Final

from service.auth.live import TABLE, LiveRights
from service.database.gateway import Database
from service.errors import DatabaseUnavailable
from service.live.hub import Hub
from service.results.feed import Subscription

LOOK_S: Final = 1.0
AT_ONCE: Final = 200
"""Connections after which the event loop serves others."""


class Keeper:
    """Looks at all connections each second. An idle look asks the database nothing."""

    def __init__(self, hub: Hub, rights: LiveRights, database: Database, heartbeat_s: float) -> None:
        self._hub = hub
        self._rights = rights
        self._database = database
        self._heartbeat_s = heartbeat_s

    async def keep(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(min(LOOK_S, self._heartbeat_s / 2))
            await self.look()

    async def look(self) -> None:
        loop = asyncio.get_running_loop()
        await self._deny()
        for number, connection in enumerate(tuple(self._hub.connections)):
            if loop.time() - connection.written_at >= self._heartbeat_s:
                connection.beat()
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)

    async def keep_clients(self, changes: Subscription) -> None:
        """Read the revoked clients now, and again after each change."""
        await self._read_clients()
        async for _ in changes:
            await self._read_clients()

    async def _read_clients(self) -> None:
        while True:
            try:
                await self._rights.load(self._database)
            except DatabaseUnavailable:
                await asyncio.sleep(LOOK_S)
            else:
                return await self._deny()

    async def _deny(self) -> None:
        """End the connections whose credential does not hold."""
        shown = {each.credential for each in self._hub.connections if each.credential is not None}
        for credential, problem in (await self._rights.problems(shown)).items():
            for connection in tuple(self._hub.connections):
                if connection.credential is credential:
                    connection.deny(problem)


CLIENT_TABLES: Final = (TABLE,)
