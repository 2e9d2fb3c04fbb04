"""`tally connect`, as somebody with a database of their own meets it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from service.errors import Stop
from service.postgres_url import parameters
from service.setup import env_file
from service.setup.connect import Options, connect
from service.setup.doctor import examine
from tests.conftest import Server, serving
from tests.migrations.shops import Shop, open_shop, run, value


@pytest.fixture
async def shop(server: Server, tmp_path: Path) -> AsyncGenerator[Shop]:
    async with open_shop(server, tmp_path) as opened:
        yield opened


async def _connect(shop: Shop, url: str | None = None, ask: Any = None, **options: Any) -> int:
    settings, environ = shop.settings()
    return await asyncio.to_thread(connect, settings, Options(url, **options), environ, ask)


async def test_the_first_hour_of_an_owner_who_may_do_little(shop: Shop, capsys: pytest.CaptureFixture[str]):
    assert await _connect(shop, shop.app_url, watch="all") == 3
    first = capsys.readouterr()
    assert "sales.orders  table" in first.err
    assert ":p@" not in first.err
    assert shop.env_file.stat().st_mode & 0o777 == 0o600
    assert await value(shop.admin_url, "SELECT to_regnamespace('app') IS NULL")

    await run(shop.admin_url, first.out)
    assert await _connect(shop, watch="all") == 0
    second = capsys.readouterr()
    kept = shop.env_file.read_bytes()
    assert await _connect(shop, watch="all") == 0
    third = capsys.readouterr()
    assert third.out == second.out
    assert shop.env_file.read_bytes() == kept

    settings, _ = shop.settings(AUTH="off")
    async with serving(settings) as client:
        answer = await client.get(second.out.strip().removeprefix("http://127.0.0.1:8000"))
        assert answer.status_code == 200, answer.text
        assert answer.json()["records"][0]["rows"] > 0
        assert answer.json()["title"] == "Rows of sales.orders per day"
        shown = (await client.get("/api/v1/dashboards/default")).json()["items"]
        assert [each["id"] for each in shown] == [answer.json()["id"]]
        measured = await client.post("/metrics", json={"sql": 'SELECT sum(n) AS n FROM "Größe"."Ma""ße"'})
        assert measured.status_code == 201, measured.text


async def test_an_owner_who_may_make_roles_needs_nobody(
    server: Server, shop: Shop, capsys: pytest.CaptureFixture[str]
):
    url = shop.admin_url
    assert await _connect(shop, url, schemas=("sales",), watch="sales.orders") == 0
    output = capsys.readouterr()
    assert output.out.startswith("http://127.0.0.1:8000/api/v1/metrics/")
    assert "sales.orders announces its changes" in output.err
    settings, _ = shop.settings()
    assert settings.database.data_schemas == ("sales",)
    reader = settings.database.reader_url or ""
    assert await value(reader, "SELECT count(*) FROM sales.orders") == 2000


async def test_a_terminal_is_asked_what_to_watch_and_a_pipe_is_not(
    shop: Shop, capsys: pytest.CaptureFixture[str]
):
    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return "sales.codes" if len(questions) > 1 else "yes"

    assert await _connect(shop, shop.admin_url, schemas=("sales",), ask=ask) == 0
    assert len(questions) == 2
    told = capsys.readouterr().err
    assert "no table yes; there are sales." in told
    assert "sales.codes announces its changes" in told
    watched = await value(
        shop.admin_url,
        "SELECT string_agg(tgrelid::regclass::text, ' ') FROM pg_trigger"
        " WHERE tgname = 'tally_insert' AND tgrelid::regclass::text ~ '^sales'",
    )
    assert watched == "sales.codes"


async def test_other_lines_of_the_file_stay_and_passwords_are_not_shown(
    shop: Shop, capsys: pytest.CaptureFixture[str]
):
    shop.env_file.write_text("# mine\nPORT=8123\nSECRET='x y'\nDATA_SCHEMAS=sales\n")
    assert await _connect(shop, shop.app_url, watch="none") == 3
    assert shop.env_file.read_text().startswith("# mine\nPORT=8123\nSECRET='x y'\nDATA_SCHEMAS=sales\n")
    output = capsys.readouterr()
    settings, _ = shop.settings()
    password = (settings.database.reader_url or "").split(":")[2].split("@")[0]
    assert password not in output.err + output.out
    assert 'SCHEMA "Größe"' not in output.out


async def test_a_schema_that_does_not_exist_is_refused_before_anything_is_written(shop: Shop):
    with pytest.raises(Stop, match=r"no schema nope; those with tables are .*sales"):
        await _connect(shop, shop.app_url, schemas=("sales", "nope"), watch="none")
    assert shop.env_file.read_bytes() == b""


async def test_print_writes_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]):
    assert await _connect(shop, shop.app_url, watch="none", print_only=True) == 3
    assert shop.env_file.read_bytes() == b""
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("=")[0] for line in lines[:3]] == [
        "DATABASE_URL",
        "READER_DATABASE_URL",
        "DATA_SCHEMAS",
    ]


async def test_an_address_in_the_environment_that_would_win_is_refused(shop: Shop):
    settings, environ = shop.settings(DATABASE_URL=shop.etl_url.replace("127.0.0.1", "localhost"))
    with pytest.raises(Stop, match="would win over") as stop:
        await asyncio.to_thread(connect, settings, Options(shop.app_url), environ)
    assert stop.value.exit_code == 2
    assert shop.env_file.read_bytes() == b""


async def test_an_empty_database_is_connected_and_waits_for_tables(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with open_shop(server, tmp_path, "") as shop:
        assert await _connect(shop, shop.admin_url) == 0
        assert "no table" in capsys.readouterr().err
        await run(shop.admin_url, 'CREATE TABLE public."Later On" (n integer)')
        assert await _connect(shop) == 0
        assert shop.settings()[0].database.data_schemas == ("public",)
        assert "'Rows of public.Later On', newest row 0" in capsys.readouterr().err
        # The first one gave the reader Tally's own schema, which it may not read any more.
        reader = parameters(shop.settings()[0].database.reader_url or "")["user"]
        for question in (
            f"SELECT has_schema_privilege('{reader}', 'data', 'USAGE')",
            f"SELECT has_table_privilege('{reader}', 'data.customers', 'SELECT')",
            f"""SELECT count(*) > 0 FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS a
            WHERE d.defaclnamespace = 'data'::regnamespace AND a.grantee = '{reader}'::regrole""",
        ):
            assert not await value(shop.admin_url, question), question
        findings = await asyncio.to_thread(examine, *shop.settings())
        assert [each for each in findings if each.check in {"reader", "rights"} and each.status != "ok"] == []


async def test_schemas_of_others_with_our_names_are_not_mixed_with_ours(server: Server, tmp_path: Path):
    async with open_shop(server, tmp_path, "CREATE SCHEMA app; CREATE TABLE app.users (n integer);") as shop:
        with pytest.raises(Stop, match="names that Tally needs: app") as stop:
            await _connect(shop, shop.admin_url)
        assert stop.value.exit_code == 2
        assert await value(shop.admin_url, "SELECT to_regnamespace('catalog') IS NULL")


WRONG = {
    "scheme": ("postgress://a:b@127.0.0.1/shop", 2),
    "driver of SQLAlchemy": ("postgresql+psycopg://a:b@127.0.0.1/shop", 2),
    "port": ("postgresql://a:b@127.0.0.1:54x2/shop", 2),
    "parameter": ("postgresql://a:b@127.0.0.1/shop?sslmod=require", 2),
    "nobody listens": ("postgresql://a:b@127.0.0.1:1/shop", 1),
    "no such host": ("postgresql://a:b@nowhere.invalid/shop", 1),
}


@pytest.mark.parametrize(("url", "code"), WRONG.values(), ids=WRONG)
async def test_a_wrong_address_is_one_sentence(url: str, code: int, tmp_path: Path):
    shop = Shop("", "", "", url, "", tmp_path / ".env")
    with pytest.raises(Stop) as stop:
        await _connect(shop, url)
    assert stop.value.exit_code == code
    assert "\n" not in str(stop.value)
    assert ":b@" not in str(stop.value)
    assert not shop.env_file.exists()


async def test_a_wrong_password_is_one_sentence(shop: Shop):
    with pytest.raises(Stop, match="password authentication failed"):
        await _connect(shop, shop.app_url.replace(":p@", ":wrong@"))


@pytest.mark.parametrize(
    "text", ["plain", "a b", "it's", 'say "hi"', "back\\slash", "$HOME", "#hash", "sales,Größe", "a'\"\\"]
)
def test_what_is_written_is_what_is_read(text: str, tmp_path: Path):
    path = tmp_path / ".env"
    env_file.write(path, {"DATA_SCHEMAS": text})
    assert env_file.read_env_file(path) == {"DATA_SCHEMAS": text}
    assert env_file.write(path, {"DATA_SCHEMAS": text}) == []
