"""An app of one's own, with the shortcut for cache hits and without it, and how the tests ask it."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import msgspec

from service.app import layered
from service.results.cache_hits import CacheHitMiddleware
from tests.conftest import opened_app
from tests.waiting import until

COUNT = "SELECT count(*) AS n FROM metrics"
FACT = "INSERT INTO data.metrics (id, date) VALUES ('a', '2025-06-01')"


def status(answer):
    return answer.headers["cache-status"]


def count(answer):
    return answer.json()["records"][0]["n"]


@asynccontextmanager
async def running(settings):
    async with opened_app(settings) as app:
        middleware = layered(app)
        async with calls(middleware) as fast, calls(middleware._app) as slow:
            yield Service(app, middleware, fast, slow)


def calls(app):
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


class Service(msgspec.Struct):
    app: object
    middleware: CacheHitMiddleware
    fast: httpx.AsyncClient
    slow: httpx.AsyncClient

    @property
    def hits(self):
        """How many requests the cache-hit layer has answered."""
        return self.middleware._answered().total()

    def moved(self):
        """Fulfilled when the next change has been heard."""
        return asyncio.ensure_future(self._moved(self.generations()))

    def generations(self):
        counters = self.app.state.base.results.generations._counters
        return {table: counter.generation for table, counter in counters.items()}

    async def _moved(self, before):
        await until(lambda: self.generations() != before)


async def ask(client, metric, **headers):
    answer = await client.get(f"/api/v1/metrics/{metric}", headers=headers)
    assert answer.status_code in {200, 304}, answer.text
    return answer


async def fresh(service, metric):
    """The first answer that is not marked stale."""

    async def once():
        answer = await ask(service.fast, metric)
        return None if "detail=stale" in status(answer) else answer

    return await until(once)
