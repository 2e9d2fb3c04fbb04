"""Make one metric of a database that has none: the rows of a table per day."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import sql

from service.audit import CLI
from service.database.gateway import open_database
from service.database.plain import select
from service.database.session import Session
from service.database.stored_sql.reader import open_reader
from service.errors import Problem
from service.metrics.catalog import DEFAULT_DASHBOARD, Catalog
from service.metrics.execute import Executor
from service.metrics.models import DashboardPlace, NewMetric
from service.metrics.store import Editor, Written
from service.metrics.suspensions import Suspensions
from service.observe.events import ignore
from service.results.changes import Changes
from service.results.freshness import Generations
from service.settings import Settings
from service.setup.inspect import SQL, Table

RECENT_DAYS: Final = 30
DEADLINE_S: Final = 30.0
_TRIED: Final = 5
"""Tables that are tried, the largest first: a very large one may not be counted in time."""


class FirstMetric(Struct, frozen=True):
    id: UUID
    title: str | None


class Counted(Struct, frozen=True):
    """A stored metric with its newest row."""

    metric: FirstMetric
    newest: str


_FIND: Final = SQL.rows("find_first_metric", FirstMetric)


def found(session: psycopg.Connection) -> FirstMetric | None:
    """The oldest metric of the catalogue."""
    return next(iter(select(session, _FIND)), None)


def make(settings: Settings, candidates: Sequence[tuple[Table, str | None]]) -> Counted | None:
    """Store a metric of the first table that the reader can count in time; none if it can count no table.

    Each candidate is a table with its column of days. Raises `Problem` if no statement is accepted.
    """
    problem: Problem | None = None
    for table, day in candidates[:_TRIED]:
        counted = _count(settings, table, day)
        if counted is None:
            continue
        text, newest = counted
        # On the dashboard that a browser opens first, which nobody can delete.
        place = DashboardPlace(DEFAULT_DASHBOARD)
        new = NewMetric(sql=text, title=_title(table, day)[:255], dashboards=(place,))
        try:
            return Counted(asyncio.run(_store(settings, new)), newest)
        except Problem as error:
            problem = error
    if problem is not None:
        raise problem
    return None


def statements(table: Table, day: str | None) -> list[str]:
    """The statements to try: the last days if there are rows of them, else all days; without days a count."""
    name = sql.Identifier(table.schema, table.name).as_string(None)
    if day is None:
        return [f"SELECT count(*) AS rows\nFROM {name}"]
    column = sql.Identifier(day).as_string(None)
    head = f"SELECT CAST({column} AS date) AS day, count(*) AS rows\nFROM {name}\n"
    tail = "GROUP BY 1\nORDER BY 1 DESC"
    return [f"{head}WHERE {column} >= CURRENT_DATE - INTERVAL '{RECENT_DAYS}' DAY\n{tail}", head + tail]


def _title(table: Table, day: str | None) -> str:
    return f"Rows of {table.shown}" + ("" if day is None else " per day")


def _count(settings: Settings, table: Table, day: str | None) -> tuple[str, str] | None:
    """Run the statements as the reader; the one that answers, and its newest row."""
    config = settings.database
    tries = statements(table, day)
    try:
        with psycopg.connect(config.reader_url or "", autocommit=True) as session:
            limit = str(config.statement_timeout_ms)
            session.execute("SELECT set_config('statement_timeout', %s, false)", [limit])
            for text in tries:
                first = f"SELECT counted::text FROM (\n{text}\n) AS counted LIMIT 1"  # noqa: S608 (our own)
                row = session.execute(first.encode()).fetchone()
                if row is not None or text is tries[-1]:
                    newest = row[0].strip("()").replace(",", ": ") if row else "no row yet"
                    return text, newest
    except psycopg.Error:  # too slow, or closed to the reader
        return None
    return None


async def _store(settings: Settings, new: NewMetric) -> FirstMetric:
    async with _opened(settings) as editor:
        metric, _, _ = await editor.create(new, CLI)
    return FirstMetric(metric.id, metric.title)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[Editor]:
    """The editor of the catalogue as the service has it, without the service."""
    config = settings.database
    async with (
        open_database(config.direct_url or "", size=2) as database,
        aclosing(Session(config.url or "", "tally connect", DEADLINE_S)) as session,
        open_reader(config.reader_url or "", config) as reader,
    ):
        catalog = Catalog(database, config.data_schemas)
        await catalog.load()
        followed = Changes(
            database, session, Generations(), time.monotonic, reader=reader.role, schemas=config.data_schemas
        )
        executor = Executor(
            reader,
            catalog,
            settings,
            clock=time.monotonic,
            changes=followed,
            suspensions=Suspensions(database, catalog),
            observe=ignore,
        )
        yield Editor(database, catalog, executor, _write_nothing)
        await executor.close()


async def _write_nothing(*_asked: object) -> Written:
    raise NotImplementedError
