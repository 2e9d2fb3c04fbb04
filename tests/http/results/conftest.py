"""An app for each test of results."""

import asyncpg
import pytest

from tests.http.results.asking import running


@pytest.fixture
async def owner(addresses):
    connection = await asyncpg.connect(addresses.url)
    yield connection
    await connection.close()


@pytest.fixture
async def service(settings):
    """The app as a server runs it: with the shortcut for cache hits, and without it."""
    async with running(settings) as found:
        yield found


@pytest.fixture
def client(service):
    """What `make_metric` waits for."""
    return service.fast
