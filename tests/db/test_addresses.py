"""Addresses written for libpq lead every driver to the same server, whatever parameters they carry."""

import asyncio
from contextlib import aclosing
from typing import Any

import asyncpg
import pytest
from msgspec import Struct

from service.database import session
from service.database.connect import asyncpg_arguments, left_out
from service.database.gateway import open_database
from service.database.listen import Handlers, Listener
from service.database.migrate import migrate
from service.database.preflight import NoLogin, log_in
from service.database.queries import Statement
from service.database.stored_sql.reader import open_reader
from service.errors import DatabaseUnavailable, Stop
from service.postgres_url import check, where
from service.settings import Database as DatabaseSettings

LIBPQ = (
    "connect_timeout=7&channel_binding=prefer&keepalives=1&keepalives_idle=30&keepalives_interval=5"
    "&keepalives_count=3&tcp_user_timeout=9000&gssencmode=disable&target_session_attrs=read-write"
    "&sslmode=prefer&client_encoding=UTF8&options=-c%20work_mem%3D7MB&application_name=their%20name"
    "&load_balance_hosts=disable&fallback_application_name=none"
)


class Session(Struct, frozen=True):
    application_name: str
    work_mem: str


_WHO = Statement("who", "SELECT current_setting('application_name'), current_setting('work_mem')", Session)


@pytest.fixture
def decorated(addresses: DatabaseSettings) -> DatabaseSettings:
    return DatabaseSettings(
        url=f"{addresses.url}?{LIBPQ}",
        reader_url=f"{addresses.reader_url}?{LIBPQ.replace('read-write', 'any')}",
    )


async def test_the_owners_pool_honours_them(decorated: DatabaseSettings):
    async with open_database(decorated.url or "") as database:
        assert await database.read(_WHO) == [Session("their name", "7MB")]


async def test_the_session_of_polls_honours_them(decorated: DatabaseSettings):
    async with aclosing(session.Session(decorated.url or "", "tally poll", 5)) as polls:
        assert await polls.read(_WHO) == [Session("their name", "7MB")]


async def test_the_readers_pool_honours_them(decorated: DatabaseSettings):
    async with open_reader(decorated.reader_url or "", decorated) as reader:
        description = await reader.describe("SELECT 1 AS n")
    assert [column.name for column in description.columns] == ["n"]


async def test_listening_honours_them(decorated: DatabaseSettings, addresses: DatabaseSettings):
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = Listener(decorated.url or "")
    handlers = Handlers(heard.put_nowait, silent=lambda: None, heard=lambda: None)
    task = asyncio.create_task(listener.run(["news"], handlers))
    try:
        async with asyncio.timeout(30):
            await listener.connected.wait()
            connection = await asyncpg.connect(addresses.url)
            await connection.execute("NOTIFY news, 'it works'")
            await connection.close()
            assert await heard.get() == "it works"
    finally:
        task.cancel()


async def test_migrating_honours_them(decorated: DatabaseSettings):
    done = await asyncio.to_thread(migrate, decorated.url or "", decorated.reader_url, ("data",))
    assert done.applied == []


async def test_the_first_of_several_hosts_that_answers_is_taken(addresses: DatabaseSettings):
    credentials, _, place = (addresses.url or "").removeprefix("postgresql://").rpartition("@")
    host, _, name = place.partition("/")
    several = f"postgresql://{credentials}@127.0.0.1:1,{host}/{name}?connect_timeout=2"
    async with open_database(several) as database:
        assert (await database.read(_WHO))[0].application_name == "tally"
    assert (await asyncio.to_thread(migrate, several, None, ("data",))).applied == []


async def test_a_password_file_is_read(addresses: DatabaseSettings, tmp_path: Any):
    given = asyncpg_arguments(addresses.url or "", None)
    passfile = tmp_path / "pass file"
    passfile.write_text(f"*:*:*:{given['user']}:{given['password']}\n")
    passfile.chmod(0o600)
    place = (addresses.url or "").rpartition("@")[2]
    url = f"postgresql://{given['user']}@{place}?passfile={str(passfile).replace(' ', '%20')}"
    assert (await asyncio.to_thread(log_in, url)).session_user == given["user"]
    assert (await asyncio.to_thread(migrate, url, None, ("data",))).applied == []


async def test_a_service_is_looked_up(
    addresses: DatabaseSettings, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    given = asyncpg_arguments(addresses.url or "", None)
    (tmp_path / "services").write_text(
        f"[shop]\nhost={given['host'][0]}\nport={given['port'][0]}\ndbname={given['database']}\n"
        f"user={given['user']}\npassword={given['password']}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    check("DATABASE_URL", "postgresql:///?service=shop")
    assert (await asyncio.to_thread(log_in, "postgresql:///?service=shop")).database == given["database"]
    assert (await asyncio.to_thread(migrate, "postgresql:///?service=shop", None, ("data",))).applied == []


def test_what_the_services_driver_does_not_know_is_told():
    assert left_out("postgresql://h/d?channel_binding=require&keepalives=1&sslmode=require") == [
        "channel_binding",
        "keepalives",
    ]
    assert left_out("postgresql://h/d?connect_timeout=1&options=-c%20a%3Db&application_name=x") == []


@pytest.mark.parametrize(
    ("given", "timeout"),
    [("", 5), ("connect_timeout=0", 5), ("connect_timeout=1", 2), ("connect_timeout=9", 9)],
)
def test_the_time_to_connect_is_libpqs(given: str, timeout: int):
    assert asyncpg_arguments(f"postgresql://h/d?{given}", None)["timeout"] == timeout


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/x",
        "host=localhost dbname=x",
        "postgresql://",
        "postgresql://h:port/x",
        "postgresql://h:0/x",
        "postgresql://h1:1,h2:99999/x",
        "postgresql://u:s%zzcret@h/x",
        "postgresql://u:s@cret@h/x",
        "postgresql://h/x?nonsense=1",
        "postgresql://h/x?options=-c%20a=b",
        "postgresql://h/x?sslmode=bogus",
        "postgresql://h/x?target_session_attrs=bogus",
        "postgresql://h/x?channel_binding=bogus",
        "postgresql://h/x?connect_timeout=soon",
        "postgresql://h1,h2,h3/x?port=1,2",
        "postgresql:///x?service=there-is-none",
    ],
)
def test_what_libpq_would_refuse_is_one_sentence_without_the_password(url: str):
    with pytest.raises(Stop) as stop:
        check("READER_DATABASE_URL", url)
    assert stop.value.exit_code == 2
    assert str(stop.value).startswith("READER_DATABASE_URL: ")
    assert "cret" not in str(stop.value)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:p@h1:1,[::1]/x", "h1:1, [::1]:5432"),
        ("postgresql:///x?host=/run/pg&port=7", "/run/pg:7"),
        ("postgresql:///x", "localhost:5432"),
    ],
)
def test_messages_name_every_host_and_no_password(url: str, place: str):
    check("DATABASE_URL", url)
    assert where(url) == place


async def test_a_refused_login_is_told_from_a_server_that_is_away(addresses: DatabaseSettings):
    given = asyncpg_arguments(addresses.url or "", None)
    place = f"{given['host'][0]}:{given['port'][0]}"
    user = given["user"]
    refused = {
        f"postgresql://{user}:wrong@{place}/{given['database']}": "password",
        f"postgresql://{user}:{given['password']}@{place}/there_is_none": "there_is_none",
        f"postgresql://nobody_at_all:x@{place}/{given['database']}": "nobody_at_all",
    }
    for url, word in refused.items():
        with pytest.raises(NoLogin, match=word) as said:
            await asyncio.to_thread(log_in, url)
        assert said.value.refused
        async with open_database(url) as database:
            with pytest.raises(DatabaseUnavailable, match="refuses the service's login"):
                await database.read(_WHO)
    with pytest.raises(NoLogin, match=r"127\.0\.0\.1:1") as said:
        await asyncio.to_thread(log_in, "postgresql://u:p@127.0.0.1:1/x")
    assert not said.value.refused
