"""Databases that are exported and restored."""

from collections.abc import AsyncGenerator

import pytest

from service.database.gateway import Database, open_database
from service.settings import Database as DatabaseSettings
from tests.conftest import Server, _cloned
from tests.migrations.backups import ORDERS, SAMPLE, run


@pytest.fixture
async def filled(clone: Database) -> Database:
    """A database with a row in each table that is exported, and in the clients."""
    await run(clone, SAMPLE)
    return clone


@pytest.fixture
async def target_addresses(server: Server, template: str) -> AsyncGenerator[DatabaseSettings]:
    async with _cloned(server, template) as settings:
        yield settings


@pytest.fixture
async def target(target_addresses: DatabaseSettings) -> AsyncGenerator[Database]:
    """Another database, migrated and empty but for the user's table."""
    async with open_database(target_addresses.url or "") as database:
        await run(database, ORDERS)
        yield database
