"""From release 0.1.0, with data, to this one; and every migration there and back."""

import asyncio
import re
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import psycopg
import pytest
import yoyo

from service.database.embedded import binaries
from service.database.gateway import open_database
from service.database.migrate import MIGRATIONS, migrate, names, open_backend, pending, roll_back
from service.settings import Database as DatabaseSettings
from tests.conftest import MAJOR, RUN, WORKER, Server, _admin, everybody, serving

RELEASE = Path(__file__).with_name("release_0.1.0.sql")
"""What `pg_dump --inserts --no-owner --no-privileges` of Postgres 16 wrote of a database of that release."""
LAST = "0050.ask"


@pytest.fixture
async def empty(server: Server) -> AsyncGenerator[str]:
    name = f"tally_empty_{uuid4().hex[:12]}"
    await _admin(server, f'CREATE DATABASE "{name}"')
    yield server.url(name)
    await _admin(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def released(empty: str) -> str:
    """Address of a database of release 0.1.0."""
    connection = await asyncpg.connect(empty)
    try:
        await connection.execute(RELEASE.read_text())
    finally:
        await connection.close()
    return empty


async def _content(url: str, columns: dict[str, list[str]] | None = None) -> dict[str, list[Any]]:
    """The rows of each table of Tally, of these columns or of all."""
    connection = await asyncpg.connect(url)
    try:
        columns = columns or await _columns(connection)
        found: dict[str, list[Any]] = {}
        for table, wanted in columns.items():
            listed = ", ".join(f't."{name}"' for name in wanted)
            sql = f"SELECT ROW({listed})::text FROM {table} AS t ORDER BY 1"
            found[table] = [row[0] for row in await connection.fetch(sql)]
        return found
    finally:
        await connection.close()


async def _columns(connection: Any) -> dict[str, list[str]]:
    rows = await connection.fetch("""
        SELECT format('%I.%I', n.nspname, c.relname) AS name,
            array_agg(a.attname::text ORDER BY a.attnum) AS columns
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE n.nspname IN ('app', 'catalog', 'data', 'imports', 'quarantine') AND c.relkind IN ('r', 'p')
            AND NOT c.relispartition AND c.relname NOT LIKE '%yoyo%'
        GROUP BY 1
    """)
    return {row["name"]: row["columns"] for row in rows}


async def _columns_of(url: str) -> dict[str, list[str]]:
    connection = await asyncpg.connect(url)
    try:
        return await _columns(connection)
    finally:
        await connection.close()


async def _schema(url: str) -> str:
    """Tally's schemas as pg_dump writes them, without the rows."""
    options = ["--schema-only", "--restrict-key=same", "--exclude-table=app.*yoyo*"]
    command = [binaries(MAJOR) / "pg_dump", *options, url]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _apply(url: str, name: str) -> None:
    backend = open_backend(url)
    try:
        for migration in backend.to_apply(
            yoyo.read_migrations(str(MIGRATIONS)).filter(lambda each: each.id == name)
        ):
            backend.apply_one(migration)
    finally:
        backend.connection.close()


async def test_each_migration_can_be_taken_back_alone(empty: str):
    await asyncio.to_thread(_begin, empty)
    states = [await _schema(empty)]
    for name in names():
        await asyncio.to_thread(_apply, empty, name)
        states.append(await _schema(empty))
    assert len(set(states)) == len(states), "each changes something"
    expected = list(states)
    before = ["", *names()]
    for position in range(len(names()), 0, -1):
        done = await asyncio.to_thread(roll_back, empty, before[position - 1])
        assert done == [before[position]]
        assert await _schema(empty) == expected[position - 1], f"after taking {done} back"
    await asyncio.to_thread(migrate, empty, None, ("data",))
    assert await _schema(empty) == expected[-1]


def _begin(url: str) -> None:
    """Make the schema of yoyo's own tables, which stays."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE SCHEMA app")


async def test_the_release_is_what_it_was(released: str):
    """The dump has the migrations of that release, and a row in every table."""
    async with open_database(released) as database:
        assert await pending(database) == [name for name in names() if name > LAST]
    assert [table for table, rows in (await _content(released)).items() if not rows] == []


async def test_nothing_is_lost_by_the_upgrade(released: str):
    columns = await _columns_of(released)
    before = await _content(released, columns)
    done = await asyncio.to_thread(migrate, released, None, ("data",))
    assert done.applied == [name for name in names() if name > LAST]
    after = await _content(released, columns)
    assert {table: len(rows) for table, rows in after.items() if table != "data.vocabulary"} == {
        table: len(rows) for table, rows in before.items() if table != "data.vocabulary"
    }
    changed = {table for table in before if before[table] != after[table]}
    assert changed == {"data.vocabulary", "data.external_interactions"}, (
        "words with unseen characters are one"
    )
    assert not re.search("\u200b", str(after["data.vocabulary"] + after["data.external_interactions"]))


async def test_the_way_back_keeps_what_was_there(released: str):
    columns = await _columns_of(released)
    await asyncio.to_thread(migrate, released, None, ("data",))
    upgraded = await _content(released, columns)
    await asyncio.to_thread(roll_back, released, LAST)
    assert await _columns_of(released) == columns
    assert await _content(released, columns) == upgraded
    await asyncio.to_thread(migrate, released, None, ("data",))
    assert await _content(released, columns) == upgraded


async def test_the_service_serves_what_was_upgraded(server: Server, released: str, tmp_path: Path):
    reader = server.url(released.rsplit("/", 1)[-1], f"tally_reader_{RUN}_{WORKER}", "reader")
    await asyncio.to_thread(migrate, released, reader, ("data",))
    settings = everybody(DatabaseSettings(url=released, reader_url=reader), tmp_path)
    async with serving(settings) as client:
        metrics = (await client.get("/api/v1/metrics")).json()["items"]
        assert len(metrics) > 2
        for metric in metrics:
            assert (await client.get(f"/api/v1/metrics/{metric['id']}")).status_code == 200
        tiles = (await client.get("/api/v1/dashboards/default/data")).json()["results"]
        assert {tile["status"] for tile in tiles} == {200}
        (changed,) = (each["id"] for each in metrics if each["title"] == "Since a day")
        versions = (await client.get(f"/api/v1/metrics/{changed}/versions")).json()["items"]
        assert [each["version"] for each in versions] == [3, 2, 1]
        (waiting,) = (await client.get("/api/v1/quarantine?dataset=customers")).json()["items"]
        mended = await client.patch(f"/api/v1/quarantine/{waiting['id']}", json={"raw": {"customer_id": "9"}})
        assert mended.json()["status"] == "loaded"
        channels = (await client.get("/api/v1/interactions/1")).json()["data"]["interactions"]
        assert channels.keys() == {"Email", "Call"}
        assert (await client.get("/api/v1/items")).json()["items"][0]["title"]
        assert (await client.get("/api/v1/audit")).json()["items"]
