"""Setting up without harm: what is refused changes nothing, what is granted stays in one database."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from msgspec import Struct

from service.database.migrate import migrate
from service.database.preflight import Login, refuse_unfit
from service.errors import Stop
from tests.conftest import Server, _admin


class Shop(Struct, frozen=True):
    """A user's database: role `owner` owns it and may make roles; `bi` and `etl` were there before Tally."""

    name: str
    owner: str
    bi: str
    etl: str
    admin: str
    owner_url: str
    bi_url: str
    etl_url: str


@pytest.fixture
async def shop(server: Server) -> AsyncGenerator[Shop]:
    suffix = uuid4().hex[:8]
    name, owner, bi, etl = (f"{word}_{suffix}" for word in ("shop", "app", "bi", "etl"))
    await _admin(server, f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'p'")
    await _admin(server, f"CREATE ROLE {bi} LOGIN PASSWORD 'p'")
    await _admin(server, f"CREATE ROLE {etl} LOGIN PASSWORD 'p'")
    await _admin(server, f"CREATE DATABASE {name} OWNER {owner}")
    urls = [server.url(name, role, "p") for role in (owner, bi, etl)]
    yield Shop(name, owner, bi, etl, server.url(name), *urls)
    await _admin(server, f"DROP DATABASE {name} WITH (FORCE)")
    await _admin(server, f"DROP ROLE {owner}, {bi}, {etl}")


async def _fetch(url: str, sql: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def _run(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


# Of what the whole server shares only the shop's own: other tests make roles meanwhile.
_STATE = """
SELECT array_agg(t ORDER BY t) FROM (
    SELECT nspname::text AS t FROM pg_namespace
    UNION ALL SELECT concat(setdatabase, rolname, setconfig)
    FROM pg_db_role_setting LEFT JOIN pg_roles AS r ON r.oid = setrole
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        OR rolname LIKE '%' || right(current_database(), 8)
    UNION ALL SELECT concat(rolname, rolconfig) FROM pg_roles
    WHERE rolname LIKE '%' || right(current_database(), 8) || '%'
    UNION ALL SELECT datname || coalesce(datacl::text, '') FROM pg_database WHERE datname = current_database()
) AS state
"""


def _elsewhere(url: str) -> str:
    """The same server and role, spelled otherwise."""
    return url.replace("127.0.0.1", "localhost") + "?application_name=reader"


@pytest.mark.parametrize("spelling", [str, _elsewhere], ids=["the same text", "another spelling"])
async def test_a_reader_who_is_the_owner_is_refused_and_nothing_changes(shop: Shop, spelling: Any):
    before = await _fetch(shop.admin, _STATE)
    with pytest.raises(Stop, match="role of its own") as stop:
        await asyncio.to_thread(migrate, shop.owner_url, spelling(shop.owner_url), ("data",))
    assert stop.value.exit_code == 2
    assert "\n" not in str(stop.value)
    assert await _fetch(shop.admin, _STATE) == before


async def test_a_reader_whom_a_setting_makes_the_owner_is_refused(shop: Shop):
    await _run(shop.admin, f"GRANT {shop.owner} TO {shop.bi}; ALTER ROLE {shop.bi} SET role = '{shop.owner}'")
    before = await _fetch(shop.admin, _STATE)
    with pytest.raises(Stop, match=shop.owner) as stop:
        await asyncio.to_thread(migrate, shop.owner_url, shop.bi_url, ("data",))
    assert stop.value.exit_code == 2
    assert await _fetch(shop.admin, _STATE) == before


@pytest.mark.parametrize(
    "power", ["ALTER ROLE {bi} SUPERUSER", "GRANT {owner} TO {bi}"], ids=["superuser", "member"]
)
async def test_a_reader_who_can_become_the_owner_is_refused(server: Server, shop: Shop, power: str):
    await _admin(server, power.format(bi=shop.bi, owner=shop.owner))
    with pytest.raises(Stop, match="superuser or member") as refused:
        await asyncio.to_thread(migrate, shop.owner_url, shop.bi_url, ("public",))
    assert refused.value.exit_code == 2
    assert await _fetch(shop.owner_url, "SELECT to_regnamespace('app') IS NULL")


async def test_an_owner_with_a_wrong_password_as_reader_is_refused(shop: Shop):
    reader = shop.owner_url.replace(":p@", ":wrong@")
    with pytest.raises(Stop, match="role of its own"):
        await asyncio.to_thread(migrate, shop.owner_url, reader, ("data",))


async def test_settings_of_an_existing_reader_hold_in_this_database_alone(server: Server, shop: Shop):
    await _run(shop.admin, f"GRANT {shop.bi} TO {shop.owner} WITH ADMIN OPTION")
    done = await asyncio.to_thread(migrate, shop.owner_url, shop.bi_url, ("data",))
    assert done.missing_grants == []
    show = "SHOW default_transaction_read_only"
    assert await _fetch(shop.bi_url, show) == "on"
    assert await _fetch(server.url("postgres", shop.bi, "p"), show) == "off"
    assert await _fetch(shop.owner_url, show) == "off"


async def test_temporary_tables_of_others_are_not_taken_away(shop: Shop):
    await asyncio.to_thread(migrate, shop.admin, shop.bi_url, ("data",))
    allowed = f"SELECT has_database_privilege('{shop.etl}', '{shop.name}', 'TEMP')"
    assert await _fetch(shop.admin, allowed) is True
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await _run(shop.bi_url, "CREATE TEMP TABLE t (n integer)")


async def test_missing_grants_are_for_the_makers_of_tables_and_once_made_are_not_told_again(shop: Shop):
    await _run(shop.admin, f"CREATE SCHEMA sales AUTHORIZATION {shop.etl}")
    await _run(shop.etl_url, "CREATE TABLE sales.orders (n integer)")
    schemas = ("data", "sales")
    first = await asyncio.to_thread(migrate, shop.owner_url, shop.bi_url, schemas)
    for_etl = (
        f'ALTER DEFAULT PRIVILEGES FOR ROLE "{shop.etl}" IN SCHEMA "sales"'
        f' GRANT SELECT ON TABLES TO "{shop.bi}";'
    )
    assert for_etl in first.missing_grants
    assert f'GRANT SELECT ON ALL TABLES IN SCHEMA "sales" TO "{shop.bi}";' in first.missing_grants
    assert not any('IN SCHEMA "data"' in grant for grant in first.missing_grants)
    await _run(shop.admin, "\n".join(first.missing_grants))
    again = await asyncio.to_thread(migrate, shop.owner_url, shop.bi_url, schemas)
    assert again.missing_grants == []
    await _run(shop.etl_url, "CREATE TABLE sales.later (n integer)")
    assert await _fetch(shop.bi_url, "SELECT count(*) FROM sales.orders, sales.later") == 0


async def test_a_reader_who_may_read_everything_needs_no_grants_on_tables(shop: Shop):
    await _run(shop.admin, f"GRANT pg_read_all_data TO {shop.bi}")
    await _run(shop.admin, f"CREATE SCHEMA sales AUTHORIZATION {shop.etl}; CREATE TABLE sales.orders ()")
    done = await asyncio.to_thread(migrate, shop.owner_url, shop.bi_url, ("data", "sales"))
    assert not any("sales" in grant for grant in done.missing_grants)


async def test_a_schema_that_is_not_there_is_named_and_nothing_changes(shop: Shop):
    before = await _fetch(shop.admin, _STATE)
    with pytest.raises(Stop, match="no schema nowhere") as stop:
        await asyncio.to_thread(migrate, shop.owner_url, shop.bi_url, ("data", "nowhere"))
    assert stop.value.exit_code == 2
    assert await _fetch(shop.admin, _STATE) == before


async def test_a_database_of_another_encoding_is_refused(server: Server):
    name = f"ascii_{uuid4().hex[:8]}"
    await _admin(server, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(Stop, match="SQL_ASCII") as stop:
            await asyncio.to_thread(migrate, server.url(name), None, ("data",))
        assert stop.value.exit_code == 2
        assert await _fetch(server.url(name), "SELECT to_regnamespace('app')") is None
    finally:
        await _admin(server, f"DROP DATABASE {name}")


def test_a_server_that_is_too_old_is_refused():
    with pytest.raises(Stop, match=r"Postgres 15\.18; Tally needs 16") as stop:
        refuse_unfit(Login("a", "a", "d", 150_018, "15.18", "UTF8"))
    assert stop.value.exit_code == 2
