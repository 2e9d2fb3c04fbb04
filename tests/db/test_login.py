"""The reader's login is probed: each loss and return is told once, and a refusal retires its sessions."""

import asyncio
from contextlib import suppress

import psycopg
import pytest

from service.database.stored_sql import login
from service.database.stored_sql.login import ReaderLogin
from service.observe.events import ConnectionLost, ConnectionRestored
from tests.conftest import Server


@pytest.fixture(params=["as usual", "in words of libpq alone"])
def role(server: Server, request: pytest.FixtureRequest):
    """A login role of this test's own, the owner's connection, and the role's address."""
    with psycopg.connect(server.admin_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE tally_probed LOGIN PASSWORD 'probed'")
        try:
            url = server.url(owner.info.dbname, "tally_probed", "probed")
            if request.param != "as usual":
                port = owner.info.port
                place = f"host=nowhere.invalid&hostaddr=127.0.0.1&port={port}&channel_binding=prefer"
                url = f"postgresql://tally_probed:probed@/{owner.info.dbname}?{place}"
            yield owner, url
        finally:
            owner.execute("DROP ROLE tally_probed")


async def test_each_loss_and_return_of_the_login_is_told_once(role, monkeypatch: pytest.MonkeyPatch):
    owner, url = role
    monkeypatch.setattr(login, "PROBE_S", 0.01)
    told: asyncio.Queue[object] = asyncio.Queue()
    refusals: list[str] = []

    async def refused() -> None:
        refusals.append("refused")

    watching = asyncio.create_task(ReaderLogin(url, ("pg_catalog",), told.put_nowait).watch(refused))
    async with asyncio.timeout(60):
        for _ in range(2):
            owner.execute("ALTER ROLE tally_probed NOLOGIN")
            lost = await told.get()
            assert lost == ConnectionLost("reader", 'role "tally_probed" is not permitted to log in')
            owner.execute("ALTER ROLE tally_probed LOGIN")
            assert await told.get() == ConnectionRestored("reader")
    assert len(refusals) >= 2  # at each probe that finds it refused
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert told.empty()
