"""`tally uninstall`: the database is as it was."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.database.embedded import binaries
from service.database.watch import unwatch
from service.errors import Stop
from service.setup.connect import Options, connect
from service.setup.uninstall import uninstall
from tests.conftest import MAJOR, Server
from tests.migrations.shops import Shop, open_shop, run, value

# The server is shared: other tests make roles meanwhile. What is made for a shop carries its name's letters.
ROLES = """
SELECT string_agg(concat(rolname, rolconfig), ',' ORDER BY rolname) FROM pg_roles
WHERE rolname LIKE '%' || substring(current_database() FROM '[0-9a-f]{8}') || '%'
"""
SETTINGS = """
SELECT string_agg(concat(setdatabase, r.rolname, setconfig), ',' ORDER BY setdatabase, r.rolname)
FROM pg_db_role_setting LEFT JOIN pg_roles AS r ON r.oid = setrole
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    OR r.rolname LIKE '%' || substring(current_database() FROM '[0-9a-f]{8}') || '%'
"""
ACL = """
SELECT string_agg(a::text, ',' ORDER BY a::text)
FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) AS a
WHERE datname = current_database()
"""


async def _snapshot(shop: Shop) -> tuple[Any, ...]:
    """The whole database as pg_dump writes it, its roles, settings and rights."""
    command = [binaries(MAJOR) / "pg_dump", "--restrict-key=same", shop.admin_url]
    dumped = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert dumped.returncode == 0, dumped.stderr
    return dumped.stdout, *[await value(shop.admin_url, sql) for sql in (ROLES, SETTINGS, ACL)]


async def _connect(shop: Shop, url: str | None = None, **variables: str) -> int:
    settings, environ = shop.settings(**variables)
    return await asyncio.to_thread(connect, settings, Options(url, watch="all"), environ)


async def _uninstall(url: str, **options: Any) -> int:
    return await asyncio.to_thread(lambda: uninstall(url, **{"confirmed": True} | options))


async def test_after_an_owner_of_few_rights_all_is_as_it_was(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with open_shop(server, tmp_path) as shop:
        before = await _snapshot(shop)
        assert await _connect(shop, shop.app_url) == 3
        await run(shop.admin_url, capsys.readouterr().out)
        assert await _connect(shop) == 0
        await run(shop.app_url, "CREATE TABLE sales.later (n integer); DROP TABLE sales.later")
        connected = await _snapshot(shop)
        assert all(now != then for now, then in zip(connected[:3], before[:3], strict=True))
        capsys.readouterr()
        assert await _uninstall(shop.app_url) == 3
        await run(shop.admin_url, capsys.readouterr().out)
        assert await _snapshot(shop) == before
        assert await _uninstall(shop.app_url) == 0


async def test_an_owner_who_may_make_roles_leaves_alone(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with open_shop(server, tmp_path) as shop:
        alter = f"format('ALTER DATABASE %I OWNER TO {shop.app}', current_database())"
        await run(shop.admin_url, f"ALTER ROLE {shop.app} CREATEROLE; DO $$ BEGIN EXECUTE {alter}; END $$")
        before = await _snapshot(shop)
        assert await _connect(shop, shop.app_url, DATA_SCHEMAS="sales") == 0
        capsys.readouterr()
        assert await _uninstall(shop.app_url) == 0
        assert capsys.readouterr().out == ""
        assert await _snapshot(shop) == before


async def test_a_running_service_keeps_its_database(server: Server, tmp_path: Path):
    async with open_shop(server, tmp_path) as shop:
        assert await _connect(shop, shop.admin_url) == 0
        listener = await asyncpg.connect(shop.admin_url, server_settings={"application_name": "tally listen"})
        try:
            with pytest.raises(Stop, match="stop it first"):
                await _uninstall(shop.admin_url)
        finally:
            await listener.close()
        assert await value(shop.admin_url, "SELECT to_regclass('catalog.metric') IS NOT NULL")


async def test_a_reader_that_was_there_before_keeps_what_it_had(server: Server, tmp_path: Path):
    async with open_shop(server, tmp_path) as shop:
        await run(
            shop.admin_url,
            f"GRANT USAGE ON SCHEMA sales TO {shop.etl}; GRANT SELECT ON sales.codes TO {shop.etl}",
        )
        before = await _snapshot(shop)
        reader = {"READER_DATABASE_URL": shop.etl_url, "DATA_SCHEMAS": "sales"}
        assert await _connect(shop, shop.admin_url, **reader) == 0
        assert await value(shop.etl_url, "SELECT count(*) FROM sales.orders") == 2000
        assert await _uninstall(shop.admin_url) == 0
        assert await _snapshot(shop) == before


async def test_what_others_built_on_our_tables_is_not_dropped(server: Server, tmp_path: Path):
    async with open_shop(server, tmp_path) as shop:
        assert await _connect(shop, shop.admin_url) == 0
        await run(shop.admin_url, "CREATE VIEW sales.ours AS SELECT id FROM catalog.metric")
        before = await _snapshot(shop)
        with pytest.raises(Stop, match=r"depend on Tally's tables.* view sales\.ours"):
            await _uninstall(shop.admin_url)
        assert await _snapshot(shop) == before


async def test_it_asks_and_refuses_in_a_pipe_without_yes(server: Server, tmp_path: Path):
    async with open_shop(server, tmp_path) as shop:
        assert await _connect(shop, shop.admin_url) == 0
        before = await _snapshot(shop)
        with pytest.raises(Stop, match="--yes") as stop:
            await _uninstall(shop.admin_url, confirmed=False)
        assert stop.value.exit_code == 2
        with pytest.raises(Stop, match="nothing was changed"):
            await _uninstall(shop.admin_url, confirmed=False, ask=lambda _: "y")
        assert await _snapshot(shop) == before


async def test_unwatch_leaves_no_trigger_on_a_table_or_its_partitions(server: Server, tmp_path: Path):
    async with open_shop(server, tmp_path) as shop:
        assert await _connect(shop, shop.admin_url) == 0
        members = await asyncio.to_thread(unwatch, shop.admin_url, '"Größe"."Ma""ße"')
        assert members == ['Größe.Ma"ße', "Größe.alle"]
        left = (
            "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^tally_' AND tgrelid::regclass::text ~ 'Größe'"
        )
        assert await value(shop.admin_url, left) == 0
