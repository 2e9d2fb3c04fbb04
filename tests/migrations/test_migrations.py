"""Migrations apply once, roll back, and give the reader its rights and no more."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import yoyo

from service.audit import Actor
from service.database.gateway import open_database
from service.database.migrate import MIGRATIONS, migrate, open_backend, pending
from service.errors import Stop
from service.imports.datasets import find
from service.imports.readers import Upload
from service.imports.run.imports import Options, import_file
from tests.conftest import Server, _admin

READER = "postgresql://tally_test_reader:reader@127.0.0.1:1/x"

_SCHEMA = """
    SELECT c.oid::regclass::text || ' ' || c.relkind::text || ' ' || coalesce(
        (SELECT string_agg(a.attname || ':' || format_type(a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
         FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '')
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('catalog', 'data', 'imports', 'quarantine', 'app') AND c.relname NOT LIKE '%yoyo%'
    UNION ALL
    SELECT conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace::regnamespace::text IN
        ('catalog', 'data', 'imports', 'quarantine', 'app')
      AND conrelid::regclass::text NOT LIKE '%yoyo%'
    UNION ALL
    SELECT tgrelid::regclass::text || ' ' || tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT oid::regprocedure::text FROM pg_proc
    WHERE pronamespace::regnamespace::text IN ('catalog', 'app', 'data', 'imports', 'quarantine')
    ORDER BY 1
"""


@pytest.fixture
async def empty(server: Server) -> AsyncGenerator[str]:
    """Address of an empty database."""
    name = f"tally_empty_{uuid4().hex[:12]}"
    await _admin(server, f'CREATE DATABASE "{name}"')
    yield server.url(name)
    await _admin(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _schema(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row[0] for row in await connection.fetch(_SCHEMA)]
    finally:
        await connection.close()


def _roll_back_words(url: str) -> None:
    backend = open_backend(url)
    last = yoyo.read_migrations(str(MIGRATIONS)).filter(lambda each: each.id >= "0072")
    backend.rollback_migrations(backend.to_rollback(last))
    backend.connection.close()


def test_every_migration_has_a_rollback_and_a_number_of_its_own():
    names = [path.name.removesuffix(".sql") for path in sorted(MIGRATIONS.glob("*.sql"))]
    forward = [name for name in names if not name.endswith(".rollback")]
    assert [f"{name}.rollback" for name in forward] == [name for name in names if name.endswith(".rollback")]
    assert len({name.split(".")[0] for name in forward}) == len(forward)


async def test_migrations_apply_once_roll_back_and_apply_again(empty: str):
    first = await asyncio.to_thread(migrate, empty, None, ("data",))
    assert "0001.schemas" in first.applied
    built = await _schema(empty)
    assert (await asyncio.to_thread(migrate, empty, None, ("data",))).applied == []

    def roll_back() -> None:
        backend = open_backend(empty)
        backend.rollback_migrations(backend.to_rollback(yoyo.read_migrations(str(MIGRATIONS))))
        backend.connection.close()

    await asyncio.to_thread(roll_back)
    assert await _schema(empty) == []
    await asyncio.to_thread(migrate, empty, None, ("data",))
    assert await _schema(empty) == built


async def test_words_learned_with_unseen_characters_become_one_word(empty: str):
    await asyncio.to_thread(migrate, empty, None, ("data",))

    await asyncio.to_thread(_roll_back_words, empty)
    connection = await asyncpg.connect(empty)
    await connection.execute("""
        INSERT INTO data.customers (customer_id, type, occupation) VALUES
            (1, U&'B2B\\200b', U&'Co\\00adok'), (2, 'B2C', NULL), (3, NULL, 'Baker');
        INSERT INTO data.vocabulary VALUES ('customer_type', U&'b2b\\200b', U&'B2B\\200b', 1),
            ('customer_type', 'b2c', 'B2C', 2), ('product', U&'\\200bpump', U&'\\200bPump', 1),
            ('occupation', U&'co\\00adok', U&'Co\\00adok', 1),
            ('product', U&'pu\\00admp', U&'Pu\\00admp', 2);
        INSERT INTO data.external_interactions (date_start, interaction, customer_id, gone_at) VALUES
            ('2025-01-01', U&'Email\\200b', 1, NULL), ('2025-01-01', 'Email', 1, NULL),
            ('2025-01-02', U&'\\200eEmail', 1, NULL), ('2025-01-02', U&'Email\\200b', 1, NULL),
            ('2025-01-03', U&'Email\\200b', 1, NULL), ('2025-01-03', 'Email', 1, '2025-02-01'),
            ('2025-01-04', 'Call', 1, NULL), ('2025-01-05', U&'Email\\200b', 1, '2025-02-01');
        INSERT INTO data.products_of_discussion VALUES ('2025-01-01', U&'\\200bPump', NULL),
            ('2025-01-01', U&'Pu\\00admp', NULL), ('2025-02-01', U&'Pu\\00admp', NULL)
    """)
    await asyncio.to_thread(migrate, empty, None, ("data",))
    words = await connection.fetch("SELECT list, folded, spelling FROM data.vocabulary ORDER BY 1, 2")
    assert [tuple(word) for word in words] == [
        ("channel", "call", "Call"),
        ("channel", "email", "Email"),
        ("customer_type", "b2b", "B2B"),
        ("customer_type", "b2c", "B2C"),
        ("occupation", "cook", "Cook"),
        ("product", "pump", "Pump"),
    ]
    types = await connection.fetch("SELECT type, occupation FROM data.customers ORDER BY customer_id")
    assert [tuple(row) for row in types] == [("B2B", "Cook"), ("B2C", None), (None, "Baker")]
    present = await connection.fetch("""
        SELECT date_start::date::text, interaction FROM data.external_interactions
        WHERE gone_at IS NULL ORDER BY 1
    """)
    assert [tuple(row) for row in present] == [
        ("2025-01-01", "Email"),
        ("2025-01-02", "Email"),
        ("2025-01-03", "Email"),
        ("2025-01-04", "Call"),
    ]
    assert await connection.fetchval("SELECT count(*) FROM data.external_interactions") == 8
    products = await connection.fetch("""
        SELECT month::text, product FROM data.products_of_discussion WHERE gone_at IS NULL ORDER BY 1
    """)
    assert [tuple(row) for row in products] == [("2025-01-01", "Pump"), ("2025-02-01", "Pump")]
    await connection.close()


async def test_facts_whose_words_become_clean_are_found_again(empty: str, tmp_path: Path):
    """A file that was imported before words were cleaned, and is again in another form, adds nothing."""
    await asyncio.to_thread(migrate, empty, None, ("data",))
    connection = await asyncpg.connect(empty)
    dataset, path = find("metric_records"), tmp_path / "facts.csv"
    assert dataset
    rows = "a,2025-01-01,1.50,W,C,2\n" * 2 + "a,2025-01-02,,W,,\na,2025-01-01,1.5,W,C,2\n"
    path.write_text(f"id,date,obsolescence,alert_type,alert_category,parts_flagged\n{rows}")
    options = Options(validate_sql=lambda sql: sql, bytes_limit=1 << 20, actor=Actor("test", None))
    async with open_database(empty) as database:
        first = await import_file(database, Upload(path, "facts.csv"), dataset, options)
        await asyncio.to_thread(_roll_back_words, empty)
        await connection.execute("""
            INSERT INTO data.vocabulary VALUES ('alert_type', U&'w\\200b', U&'W\\200b', 8);
            UPDATE data.metrics SET alert_type = U&'W\\200b', content_hash = gen_random_uuid(), occurrence = 1
            WHERE occurrence > 1 OR date = '2025-01-02'
        """)
        await asyncio.to_thread(migrate, empty, None, ("data",))
        path.write_text(path.read_text() + "\n")
        again = await import_file(database, Upload(path, "facts.csv"), dataset, options)
    await connection.close()
    assert (first.inserted, again.inserted, again.unchanged) == (4, 0, 4)


async def test_instances_that_start_together_migrate_once(empty: str):
    done = await asyncio.gather(*(asyncio.to_thread(migrate, empty, None, ("data",)) for _ in range(4)))
    assert sorted(len(each.applied) > 0 for each in done) == [False, False, False, True]


async def test_a_lock_row_left_by_a_killed_process_blocks_nobody(empty: str):
    await asyncio.to_thread(migrate, empty, None, ("data",))
    connection = await asyncpg.connect(empty)
    await connection.execute("INSERT INTO app.yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    await connection.execute("DELETE FROM app._yoyo_migration WHERE migration_id = '0004.audit'")
    await connection.execute("DROP TABLE app.audit CASCADE")
    await connection.close()
    assert (await asyncio.to_thread(migrate, empty, None, ("data",))).applied == ["0004.audit"]


async def test_what_is_missing_is_named(empty: str):
    async with open_database(empty) as database:
        assert "0001.schemas" in await pending(database)
        await asyncio.to_thread(migrate, empty, None, ("data",))
        assert await pending(database) == []


async def test_an_owner_who_may_not_make_roles_is_told_the_grants(server: Server, empty: str):
    owner = f"plain_{uuid4().hex[:8]}"
    name = empty.rsplit("/", 1)[-1]
    await _admin(server, f"CREATE ROLE {owner} LOGIN PASSWORD 'owner'")
    await _admin(server, f'GRANT CREATE ON DATABASE "{name}" TO {owner}')
    done = await asyncio.to_thread(migrate, server.url(name, owner, "owner"), READER, ("data",))
    assert done.missing_grants[0].startswith('CREATE ROLE "tally_test_reader" LOGIN PASSWORD')
    assert 'GRANT SELECT ON ALL TABLES IN SCHEMA "data" TO "tally_test_reader";' in done.missing_grants
    connection = await asyncpg.connect(empty)  # somebody who may
    await connection.execute(" ".join(done.missing_grants))
    again = await asyncio.to_thread(migrate, empty, READER, ("data",))
    assert again.missing_grants == []
    await connection.execute("DROP OWNED BY tally_test_reader; DROP ROLE tally_test_reader")
    await connection.close()


def test_an_unreachable_database_is_one_sentence_with_host_and_port():
    with pytest.raises(Stop) as stop:
        migrate("postgresql://me:secret@127.0.0.1:1/x", None, ("data",))
    assert "127.0.0.1:1" in str(stop.value)
    assert "secret" not in str(stop.value)
    assert stop.value.exit_code == 1
