"""Databases to export and restore, and how they are compared."""

import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.audit import Actor
from service.backup.export import export
from service.backup.restore import Outcome, restore
from service.backup.tables import EXPORTED, SECRET
from service.database.gateway import Database, open_database
from tests.conftest import Server, _cloned

SAMPLE = Path(__file__).with_name("backup_sample.sql").read_text()
ACTOR = Actor("test", None)


ORDERS = "CREATE TABLE public.orders (id bigint PRIMARY KEY, kind text, gone_at timestamptz)"


@asynccontextmanager
async def other(server: Server, template: str) -> AsyncGenerator[Database]:
    async with _cloned(server, template) as settings, open_database(settings.url or "") as database:
        yield database


async def run(database: Database, sql: str) -> None:
    async with database._borrow() as connection:
        await connection.execute(sql)


async def value(database: Database, sql: str) -> Any:
    async with database._borrow() as connection:
        return await connection.fetchval(sql)


async def gone(database: Database) -> bool:
    """Whether the killed command's session has ended."""
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'layout_item'"
    )
    return await value(database, sessions + " AND pid <> pg_backend_pid() AND state <> 'idle'") == 0


async def rows(database: Database, table: str) -> list[str]:
    async with database._borrow() as connection:
        return [row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")]


async def state(database: Database) -> dict[str, list[str]]:
    return {table: await rows(database, table) for table in (*EXPORTED, *SECRET)}


async def exported(database: Database, **options: bool) -> bytes:
    file = io.BytesIO()
    await export(database, file.write, **options)
    return file.getvalue()


async def restored(database: Database, content: bytes, **options: bool) -> Outcome:
    return await restore(database, io.BytesIO(content), "a.jsonl", actor=ACTOR, **options)
