"""`tally export` and `tally restore`: what comes back is what was there, or nothing changes."""

import asyncio
import sys
import tracemalloc
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

import psycopg
import pytest
from msgspec import Struct

from service.backup.export import export
from service.backup.restore import restore
from service.backup.tables import EXPORTED, LEFT_OUT, SECRET
from service.database.gateway import Database, open_database
from service.database.queries import Command, Statement
from service.errors import Busy, Stop
from service.settings import Database as DatabaseSettings
from tests.conftest import Server, _admin, everybody, serving
from tests.migrations.backups import ACTOR, ORDERS, exported, gone, other, restored, rows, run, state, value
from tests.processes import ROOT, environment
from tests.waiting import until

METRIC = "/api/v1/metrics/22222222-2222-2222-2222-222222222222"


class _Text(Struct):
    at: str


async def test_every_table_comes_back_exactly(filled: Database, target: Database):
    before = await state(filled)
    assert all(before.values())
    content = await exported(filled, with_secrets=True)
    done = await restored(target, content)
    assert await state(target) == before
    assert {each.table: each.restored for each in done.tables} == {
        table: len(rows) for table, rows in before.items()
    }
    assert done.notes == []
    again = await exported(target, with_secrets=True)
    assert again.splitlines()[1:-1] == content.splitlines()[1:-1]


async def test_what_comes_after_goes_on_where_it_was(filled: Database, target: Database):
    await restored(target, await exported(filled))
    await run(
        target,
        """
        UPDATE catalog.metric SET title = 'Drei' WHERE query_id = 'q2';
        INSERT INTO app.item (title) VALUES ('next')
        """,
    )
    assert (
        len(await rows(target, "catalog.metric_version"))
        == len(await rows(filled, "catalog.metric_version")) + 1
    )
    assert [row.split(",")[0] for row in await rows(target, "app.item")] == ["(2", "(3"]


async def test_clients_are_left_out_unless_they_are_asked_for(filled: Database, target: Database):
    content = await exported(filled)
    assert b"aaaa" not in content
    assert b"app.api_client" not in content
    await run(target, "INSERT INTO app.api_client VALUES ('own', repeat('b', 64), '{admin}', now(), NULL)")
    await restored(target, content)
    assert [row.split(",")[0] for row in await rows(target, "app.api_client")] == ["(own"]


async def test_every_table_of_tally_has_its_place(clone: Database):
    async with clone._borrow() as connection:
        found = await connection.fetch("""
            SELECT n.nspname || '.' || c.relname
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname IN ('app', 'catalog', 'data', 'imports', 'quarantine') AND c.relkind IN ('r', 'p')
                AND NOT c.relispartition AND c.relname NOT LIKE '%yoyo%'
        """)
    assert {row[0] for row in found} == {*EXPORTED, *SECRET, *LEFT_OUT}


async def test_the_file_shows_one_moment(filled: Database, addresses: DatabaseSettings):
    """A change that commits while the file is written is in no part of it."""
    whole, parts = await exported(filled), list[bytes]()

    def write(part: bytes) -> None:
        if not parts:
            with psycopg.connect(addresses.url or "") as other:
                other.execute("DELETE FROM catalog.layout_item")
                other.execute("UPDATE catalog.query SET sql = 'SELECT 3'")
        parts.append(part)

    await export(filled, write)
    assert parts[1:-1] == whole.splitlines(keepends=True)[1:-1]


async def test_a_database_that_is_not_empty_is_refused_and_stays(filled: Database, target: Database):
    content = await exported(filled)
    await run(target, "INSERT INTO catalog.query VALUES ('mine', 'SELECT 1')")
    before = await state(target)
    with pytest.raises(Stop, match=r"not empty \(rows: 1 in catalog\.query\).*--replace") as stop:
        await restored(target, content)
    assert stop.value.exit_code == 2
    assert await state(target) == before
    done = await restored(target, content, replace=True)
    assert await state(target) == await state(filled) | {"app.api_client": [], "app.alert_secret": []}
    assert {"catalog.query": 1}.items() <= {each.table: each.removed for each in done.tables}.items()


async def test_replacing_the_same_changes_nothing(filled: Database):
    before = await state(filled)
    await restored(filled, await exported(filled), replace=True)
    assert await state(filled) == before


async def test_a_killed_restore_leaves_nothing(
    filled: Database, target_addresses: DatabaseSettings, tmp_path: Path
):
    file = tmp_path / "all.jsonl"
    file.write_bytes(await exported(filled))
    async with open_database(target_addresses.url or "") as target:
        await run(
            target,
            ORDERS
            + """;
            CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
            CREATE TRIGGER wait AFTER INSERT ON catalog.layout_item EXECUTE FUNCTION public.wait()
        """,
        )
        before = await state(target)
        async with target.transaction() as tx:
            await tx.read(Statement("lock", "SELECT pg_advisory_xact_lock(4711)::text AS at", _Text))
            variables = {"DATABASE_URL": target_addresses.url, "LOG_LEVEL": "warning"}
            command = [sys.executable, "-m", "service", "restore", str(file)]
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment(**variables))
            waiting = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 4711"
            )
            await until(lambda: value(target, waiting))
            process.kill()
            await process.wait()
        await until(lambda: gone(target))
        assert await state(target) == before


async def test_a_database_in_use_is_told_after_a_while(filled: Database, target: Database, monkeypatch):
    monkeypatch.setattr("service.backup.restore.LOCK_WAIT", "10ms")
    content = await exported(filled)
    async with target.transaction() as tx:
        await tx.write(Command("use", "INSERT INTO app.item (title) VALUES ('x')"))
        with pytest.raises(Busy):
            await restored(target, content)


async def test_a_running_service_shows_what_was_restored(
    filled: Database, target_addresses: DatabaseSettings, tmp_path: Path
):
    content = await exported(filled)
    async with (
        serving(everybody(target_addresses, tmp_path)) as client,
        open_database(target_addresses.url or "") as target,
    ):
        await restored(target, content)

        async def shown() -> bool:
            return (await client.get(METRIC)).status_code == 200

        await until(shown)
        await run(filled, "UPDATE catalog.query SET sql = 'SELECT 5 AS n' WHERE id = 'q2'")
        await restored(target, await exported(filled), replace=True)

        async def replaced() -> bool:
            answer = await client.get(METRIC)
            return answer.json().get("records") == [{"n": 5}]

        await until(replaced)
        assert (await client.get("/api/v1/audit")).json()["items"][0]["action"] == "tally.restore"


async def test_datasets_keep_what_undoes_them_here(filled: Database, server: Server, template: str):
    content = await exported(filled)
    async with other(server, template) as empty:
        done = await restored(empty, content)
        assert done.notes == ["dataset orders: the database has no table public.orders yet"]
    async with other(server, template) as plain:
        await run(plain, "CREATE TABLE public.orders (id bigint PRIMARY KEY, kind text)")
        done = await restored(plain, content)
        assert "not mirrored" in done.notes[0]
        assert await value(plain, "SELECT undo::text FROM imports.dataset") == "{}"
    async with other(server, template) as others:
        await run(others, "INSERT INTO imports.dataset VALUES ('mine', 'public', 'mine')")
        with pytest.raises(Stop, match="`tally dataset remove mine` first"):
            await restored(others, content, replace=True)


async def test_an_unmigrated_database_is_told_to_migrate(server: Server, filled: Database):
    name = f"tally_bare_{uuid4().hex[:8]}"
    await _admin(server, f"CREATE DATABASE {name}")
    try:
        async with open_database(server.url(name)) as bare:
            for work in (exported(bare), restored(bare, await exported(filled))):
                with pytest.raises(Stop, match="tally migrate"):
                    await work
    finally:
        await _admin(server, f"DROP DATABASE {name} WITH (FORCE)")


async def test_many_rows_need_little_memory(filled: Database, target: Database):
    """A row of the quarantine after the other: neither side holds them all."""
    await run(
        filled,
        """
        INSERT INTO quarantine.row
            (id, dataset, source, line, raw, cells, reason, message, import_id, import_number)
        SELECT gen_random_uuid(), 'customers', 'big.csv', n, jsonb_build_object('a', repeat('x', 20000)),
            '{}', 'orphan', '', gen_random_uuid(), 1
        FROM generate_series(1, 3000) AS n
    """,
    )
    with TemporaryFile() as file:
        tracemalloc.start()
        try:
            await export(filled, file.write)
            await restore(target, file, "big.jsonl", actor=ACTOR)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert file.tell() > 50 << 20
    assert peak < 25 << 20
    assert await value(target, "SELECT count(*) FROM quarantine.customers") == 3001
