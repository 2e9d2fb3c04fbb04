"""The catalogue in memory: what a finished load holds is no older than its call."""

import asyncio

from service.alerts.store import ALERTS_TABLE, DELIVERIES_TABLE, RULES_TABLE
from service.auth import sessions
from service.auth.live import TABLE as CLIENTS
from service.dashboard import links
from service.database.gateway import Database
from service.database.queries import Command, Statement
from service.metrics.catalog import CHANNEL, TABLES, Catalog, Named


class Slow:
    """A database whose first reading of the metrics ends only when it is let go."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.began, self.go = asyncio.Event(), asyncio.Event()

    async def read(self, statement, *args):
        rows = await self._database.read(statement, *args)
        if statement.name == "list_metrics" and not self.began.is_set():
            self.began.set()
            await self.go.wait()
        return rows


async def test_a_slow_reading_never_replaces_a_newer_one(clone: Database):
    await clone.write(Command("q", "INSERT INTO catalog.query (id, sql) VALUES ('q', 'SELECT 1')"))
    slow = Slow(clone)
    catalog = Catalog(slow, ("data",), lambda _version, _owners: None)
    first = asyncio.create_task(catalog.load())
    await slow.began.wait()
    await clone.write(Command("m", "INSERT INTO catalog.metric (query_id, title) VALUES ('q', 'new')"))
    second = asyncio.create_task(catalog.load())
    slow.go.set()
    await asyncio.gather(first, second)
    assert [metric.title for metric in catalog.page(None, 10)] == ["new"]


WATCHED = Statement(
    "watched",
    "SELECT DISTINCT tgrelid::regclass::text AS name FROM pg_trigger"
    " WHERE tgargs = convert_to($1, 'UTF8') || '\\x00' ORDER BY 1",
    Named,
)


async def test_every_table_that_announces_on_its_channel_is_followed(shared_database: Database):
    alerts = {ALERTS_TABLE, DELIVERIES_TABLE, RULES_TABLE}
    followed = {CLIENTS, *TABLES, *sessions.TABLES, *links.TABLES} | alerts
    assert {row.name for row in await shared_database.read(WATCHED, CHANNEL)} == followed
