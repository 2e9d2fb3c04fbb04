"""`tally doctor`: each harm is found, and what it prints mends it."""

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest

from service.database.watch import watch
from service.errors import Stop
from service.settings import Database as DatabaseSettings
from service.settings import Settings
from service.setup.connect import Options, connect
from service.setup.doctor import examine
from service.setup.findings import Finding, exit_status
from service.setup.poolers import pooler_at
from tests.adversity.test_reader import _bouncing, _pgbouncer
from tests.conftest import Server
from tests.migrations.shops import Shop, open_shop, run


@pytest.fixture(scope="module")
async def shop(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shop]:
    async with open_shop(server, tmp_path_factory.mktemp("doctor")) as opened:
        settings, environ = opened.settings()
        options = Options(opened.admin_url, watch="all")
        assert await asyncio.to_thread(connect, settings, options, environ) == 0
        yield opened


async def _examine(shop: Shop, *, quick: bool = False, **variables: str) -> list[Finding]:
    settings, environ = shop.settings(**variables)
    return await asyncio.to_thread(lambda: examine(settings, environ, quick=quick))


def _acts(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status != "ok"]


async def _mend(shop: Shop, finding: Finding) -> None:
    if found := re.fullmatch("tally watch '(.*)'", finding.mend):
        await asyncio.to_thread(watch, shop.admin_url, found[1])
    elif finding.mend:
        await run(shop.admin_url, finding.mend)


HARMS = {
    "insert": ("GRANT INSERT ON sales.orders TO {reader}", "write to sales.orders"),
    "update of a column by all": ("GRANT UPDATE (amount) ON sales.orders TO PUBLIC", "write to sales.orders"),
    "truncate": ("GRANT TRUNCATE ON sales.codes TO {reader}", "write to sales.codes"),
    "delete through a view": ("GRANT DELETE ON sales.large TO {reader}", "write to sales.large"),
    "look outside": (
        'CREATE TABLE public."Gehälter" (n integer); GRANT SELECT ON public."Gehälter" TO PUBLIC',
        'look outside DATA_SCHEMAS: read public."Gehälter"',
    ),
    "create in a schema": ('GRANT CREATE ON SCHEMA "Größe" TO {reader}', "make tables in Größe"),
    "create schemas": ('GRANT CREATE ON DATABASE "{database}" TO {reader}', "make schemas"),
    "superuser": ("ALTER ROLE {reader} SUPERUSER", "superuser"),
    "bypass": ("ALTER ROLE {reader} BYPASSRLS", "BYPASSRLS"),
    "createrole": ("ALTER ROLE {reader} CREATEROLE", "CREATEROLE"),
    "createdb": ("ALTER ROLE {reader} CREATEDB", "CREATEDB"),
    "read all": ("GRANT pg_read_all_data TO {reader}", "member of pg_read_all_data"),
    "write all": ("GRANT pg_write_all_data TO {reader}", "member of pg_write_all_data"),
    "files": ("GRANT pg_read_server_files TO {reader}", "member of pg_read_server_files"),
    "file functions": ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {reader}", "read files"),
    "programs": ("GRANT pg_execute_server_program TO {reader}", "member of pg_execute_server_program"),
    "a table is closed": ("REVOKE SELECT ON sales.codes FROM {reader}", "lacks 1 rights"),
    "new tables will be closed": (
        "ALTER DEFAULT PRIVILEGES FOR ROLE {app} IN SCHEMA sales REVOKE SELECT ON TABLES FROM {reader}",
        "lacks 1 rights",
    ),
    "writable by default": (
        'ALTER ROLE {reader} IN DATABASE "{database}" RESET default_transaction_read_only',
        "lacks 1 rights",
    ),
    "Tally's own tables": (
        "GRANT USAGE ON SCHEMA data TO {reader}; GRANT SELECT ON data.customers TO {reader}",
        "has 2 rights too many",
    ),
    "a disabled trigger": ("ALTER TABLE sales.orders DISABLE TRIGGER tally_update", "disabled triggers"),
    "a missing trigger": ("DROP TRIGGER tally_insert ON sales.orders", "misses 1 of its 4"),
    "a new partition": (
        """CREATE TABLE "Größe".neu PARTITION OF "Größe"."Ma""ße" FOR VALUES IN ('2031-01-01')""".replace(
            "IN ('2031-01-01')", "FROM ('2031-01-01') TO ('2032-01-01')"
        ),
        "misses 4 of its 4",
    ),
}


def _reader(settings: Settings) -> str:
    return (settings.database.reader_url or "").split("://")[1].split(":")[0]


@pytest.mark.parametrize(("harm", "message"), HARMS.values(), ids=HARMS)
async def test_each_harm_is_found_and_mended_by_what_is_printed(shop: Shop, harm: str, message: str):
    database = re.sub("%22", '""', shop.admin_url.rsplit("/", 1)[1]).replace("%20", " ")
    database = database.replace("%C3%B6", "ö").replace("%C3%9F", "ß")
    names = {"reader": _reader(shop.settings()[0]), "app": shop.app, "database": database}
    await run(shop.admin_url, harm.format(**names))
    findings = _acts(await _examine(shop))
    assert any(message in finding.message for finding in findings), findings
    assert exit_status(findings) == 3
    for finding in findings:
        await _mend(shop, finding)
    assert _acts(await _examine(shop)) == []


async def test_a_healthy_service_has_nothing_to_mend(shop: Shop):
    findings = await _examine(shop)
    assert exit_status(findings) == 0
    assert {
        "settings",
        "files",
        "disk",
        "roles",
        "rights",
        "watch",
        "clock",
        "poolers",
        "listening",
        "reader",
    } <= {finding.check for finding in findings}
    quick = await _examine(shop, quick=True)
    assert "reader" not in {finding.check for finding in quick}


SETTINGS = {
    "no such setting": ({"READER_DATABSE_URL": "x"}, "READER_DATABSE_URL", 3),
    "our own records": ({"DATA_SCHEMAS": "sales,app"}, "opens Tally's own records", 3),
    "no such schema": ({"DATA_SCHEMAS": "sales,nope"}, "names nope, which", 3),
    "the owner reads": ({}, "owner's role", 3),
    "a wrong password": ({}, "password authentication failed", 1),
    "nobody listens": ({"READER_DATABASE_URL": "postgresql://a:b@127.0.0.1:1/x"}, "127.0.0.1:1", 1),
    "another database": ({}, "another database", 3),
}


@pytest.mark.parametrize("case", SETTINGS)
async def test_wrong_settings_are_named(shop: Shop, server: Server, case: str):
    variables, message, status = SETTINGS[case]
    settings, _ = shop.settings()
    reader_url = settings.database.reader_url or ""
    urls = {
        "the owner reads": shop.admin_url,
        "a wrong password": re.sub(r":[^:@/]+@", ":wrong@", reader_url),
        "another database": f"{reader_url.rsplit('/', 1)[0]}/postgres",
    }
    reader = {"READER_DATABASE_URL": urls[case]} if case in urls else {}
    findings = await _examine(shop, **variables, **reader)
    assert any(message in finding.message for finding in findings), findings
    assert exit_status(findings) == status
    assert not any(":wrong@" in finding.message + finding.mend for finding in findings)
    if case == "the owner reads":
        assert not any(word in finding.mend for word in ("REVOKE", "ALTER ROLE") for finding in findings)


async def test_settings_in_files_of_their_own_are_settings(shop: Shop, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text(shop.settings()[0].database.reader_url or "")
    secret.chmod(0o600)
    findings = await _examine(shop, READER_DATABASE_URL_FILE=str(secret))
    assert not [each for each in findings if "no setting" in each.message]


async def test_open_files_are_found(shop: Shop, tmp_path: Path):
    env_file = tmp_path / ".env"
    env_file.write_bytes(shop.env_file.read_bytes())
    env_file.chmod(0o644)
    (finding,) = [each for each in await _examine(shop, ENV_FILE=str(env_file)) if each.check == "files"]
    assert finding.mend == f"chmod 600 {env_file}"


async def test_a_pooler_in_transaction_mode_is_found_where_pgbouncer_is(
    shop: Shop, server: Server, addresses: DatabaseSettings, tmp_path: Path
):
    assert await asyncio.to_thread(pooler_at, addresses.url or "") == "none"
    if program := _pgbouncer():
        async with _bouncing(program, addresses, tmp_path) as url:
            assert await asyncio.to_thread(pooler_at, url) == "transaction"
            settings, environ = shop.settings()
            with pytest.raises(Stop, match="pooler in transaction mode"):
                await asyncio.to_thread(connect, settings, Options(url), dict.fromkeys(environ, ""))
            behind = msgspec.structs.replace(addresses, reader_url=url)
            found = await asyncio.to_thread(examine, Settings(database=behind), {})
            assert any(each.mend == "READER_POOLER=transaction" for each in found), found
