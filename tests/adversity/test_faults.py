"""The database stops, hangs, fails over, fills its disk: what callers see, as docs/operations.md says."""

import asyncio
import os
import re
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.database import listen
from service.database.gateway import open_database
from service.observe.events import BreakerClosed, BreakerOpened
from service.settings import Auth, Settings
from service.settings import Database as DatabaseSettings
from tests.adversity.faults import Wire, postgres
from tests.conftest import held, serving, store_metric, visible
from tests.waiting import until

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
COLUMNS = ["fault", "cached result", "other result", "change", "`/health/ready`", "afterwards"]


def rows_of_the_page():
    """What the table of the page says, by fault."""
    text = PAGE.read_text()
    table = re.search(r"\n\| fault \|.*?\n\n", text, re.DOTALL)
    assert table, "the table of faults"
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].split("\n") if line]
    assert lines[0] == COLUMNS
    return {line[0]: line[1:] for line in lines[2:]}


@pytest.fixture(scope="module")
def server():
    with postgres() as found:
        found.execute(
            "CREATE TABLE data.counted (k int); SELECT app.watch('data.counted')",
            "CREATE FUNCTION data.full() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE 'could not write to file: No space left on device' USING ERRCODE = 'disk_full'; END $$",
        )
        yield found


class Service:
    """A service behind a wire, and what its callers see."""

    def __init__(self, client, wire, events, kept):
        self.client, self.wire, self.events, self.kept = client, wire, events, kept
        self.numbers = iter(range(1, 10**9))

    @property
    def _state(self):
        app = self.client._transport.app
        while not hasattr(app, "state"):
            app = app._app
        return app.state

    @property
    def breaker(self):
        return self._state.base.primary

    @property
    def parts(self):
        return self._state.services

    async def held(self):
        return seen(await self.client.get(f"/metrics/{self.kept}?n=0"))

    async def other(self):
        """A result that nobody has asked for."""
        return seen(await self.client.get(f"/metrics/{self.kept}?n={next(self.numbers)}"))

    async def change(self):
        return seen(await self.client.post("/api/v1/items", json={"title": "Buy milk"}))

    async def ready(self):
        return seen(await self.client.get("/health/ready"))

    async def looks(self):
        return [await self.held(), await self.other(), await self.change(), await self.ready()]

    async def noticed(self):
        await until(lambda: self.breaker.error)

    async def recovered(self):
        looks = []

        async def all_well():
            looks[:] = await self.looks()
            return looks == WELL

        try:
            await until(all_well)
        except TimeoutError:
            return f"never all well, at last {looks}"
        return "all is well"


WELL = ["200", "200", "201", "200"]


def seen(answer):
    """An answer in the words of the page."""
    if answer.status_code == 503 and "code" in answer.json():
        assert int(answer.headers["retry-after"]) > 0
        return f"503 {answer.json()['code']}"
    stale = answer.headers.get("cache-status", "").endswith("detail=stale")
    return f"{answer.status_code}, marked stale" if stale else str(answer.status_code)


@asynccontextmanager
async def behind(wire, server, tmp_path):
    events = []
    database = DatabaseSettings(
        url=wire.address(server.server.owner_url),
        reader_url=wire.address(server.server.reader_url),
        data_dir=tmp_path,
    )
    async with serving(Settings(database=database, auth=Auth(mode="off")), events.append) as client:
        async with open_database(server.server.owner_url, size=1) as direct:
            kept = await store_metric(direct, "SELECT :n::int AS n, count(*) AS rows FROM data.counted")
        await visible(client, kept)
        found = Service(client, wire, events, kept)
        await found.recovered()
        yield found


@pytest.fixture
async def service(server, tmp_path):
    wire = Wire(server.port)
    await wire.start()
    try:
        async with held(behind(wire, server, tmp_path)) as found:
            yield found
    finally:
        await wire.stop()


async def crash(service, server):
    server.crash()
    await service.noticed()
    during = await service.looks()
    server.start()
    return during


async def hang(service, server):
    with server.stopped():
        await service.noticed()
        return await service.looks()


async def swallow(service, server):
    service.wire.swallow()
    await service.noticed()
    during = await service.looks()
    service.wire.pass_all()
    return during


async def half_open(service, server):
    """Only what is connected now is lost, as behind a firewall that forgot it."""
    service.wire.swallow(new=False)
    await until(lambda: any(isinstance(event, BreakerClosed) for event in service.events))
    return await service.looks()


async def kill(service, server):
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    await service.recovered()
    return await service.looks()


async def fill(service, server):
    """The file of a table is one that takes no byte: Postgres cannot extend it."""
    server.execute("TRUNCATE app.item", "CHECKPOINT")
    ((path,),) = server.execute("SELECT pg_relation_filepath('app.item')")
    file = server.cluster / path
    file.unlink()
    file.symlink_to("/dev/full")
    try:
        server.execute(FORGET_FILES)
        return await until(lambda: settled(service))
    finally:
        file.unlink()
        file.touch(mode=0o600)
        owner = server.cluster.stat()
        os.chown(file, owner.st_uid, owner.st_gid)
        server.execute(FORGET_FILES)


FORGET_FILES = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tally'"


async def settled(service):
    """What callers see, once the connections that were killed to forget the file are replaced."""
    looks = await service.looks()
    return looks if looks[3] == "200" else None


async def jump(service, server):
    """The wall clock of the machine jumps by a day, ahead and back."""
    found = []
    for days in (1, -1):
        with pytest.MonkeyPatch.context() as patch:
            now = time.time() + days * 86_400
            patch.setattr(time, "time", lambda now=now: now)
            patch.setattr("service.metrics.execute.datetime", shifted(days))
            found.append(await service.looks())
    assert found[0] == found[1]
    return found[0]


def shifted(days):
    class Shifted(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz or UTC) + timedelta(days=days)

    return Shifted


FAULTS = {
    "Postgres stops or crashes": crash,
    "Postgres hangs (SIGSTOP)": hang,
    "the network swallows everything": swallow,
    "open connections are lost without a word (half-open)": half_open,
    "all backends are killed": kill,
    "the disk of the database is full": fill,
    "the wall clock jumps by a day": jump,
}
FAILS_OVER = "the primary fails over, its address leads to a standby"


@pytest.mark.parametrize("fault", FAULTS)
async def test_callers_see_what_the_page_says(service, server, fault):
    during = await FAULTS[fault](service, server)
    assert [*during, await service.recovered()] == rows_of_the_page()[fault]


def test_the_page_has_a_row_for_each_fault():
    assert list(rows_of_the_page()) == [*FAULTS, FAILS_OVER]


FENCE = ("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")


async def test_a_failover_under_the_same_address_leaves_no_connection_to_the_old_server(service, server):
    """The old primary is fenced: it goes on, and takes no writes."""
    with server.standby() as standby:
        service.wire.target = standby.port
        try:
            async with service.parts.changes._polling:  # a reload counts as a redefinition
                server.execute(*FENCE)
                await service.noticed()
            during = await service.looks()
            standby.promote()
            assert [*during, await service.recovered()] == rows_of_the_page()[FAILS_OVER]
            before = standby.read("SELECT count(*) FROM app.item")
            assert await service.change() == "201"
            assert standby.read("SELECT count(*) FROM app.item") > before
            ours = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'tally%'"
            await until(lambda: server.execute(ours) == [])
        finally:
            server.execute(
                "SET default_transaction_read_only = off",
                "ALTER SYSTEM RESET default_transaction_read_only",
                "SELECT pg_reload_conf()",
            )


async def test_a_refused_write_alone_shows_the_failover(service, server, monkeypatch):
    """Before the heartbeat has noticed anything."""
    monkeypatch.setattr(listen, "HEARTBEAT_S", 3600.0)
    await service.recovered()
    with server.standby() as standby:
        standby.promote()
        service.wire.target = standby.port
        server.execute(*FENCE)
        try:
            answers = []

            async def written():
                answers.append(await service.change())
                return answers[-1] == "503 database-unavailable"

            await until(written)
            await service.recovered()
        finally:
            server.execute(
                "SET default_transaction_read_only = off",
                "ALTER SYSTEM RESET default_transaction_read_only",
                "SELECT pg_reload_conf()",
            )


async def test_stored_sql_that_finds_the_disk_full_is_the_databases_fault(service, server):
    async with open_database(server.server.owner_url, size=1) as direct:
        metric = await store_metric(direct, "SELECT data.full() AS n", trusted=True)
    await visible(service.client, metric)
    answer = await service.client.get(f"/metrics/{metric}")
    assert seen(answer) == "503 database-unavailable"
    assert "disk" in answer.json()["detail"]


async def test_while_everything_is_swallowed_one_probe_is_under_way_and_nobody_else_waits(service, server):
    wire = service.wire
    wire.swallow()
    await service.noticed()
    begun = set(wire.tried)
    for _ in range(5):
        crowd = [service.other() for _ in range(100)] + [service.change() for _ in range(10)]
        assert set(await asyncio.gather(*crowd)) == {"503 database-unavailable"}
        wire.accepted = 0
        await until(lambda: wire.accepted >= 1)
        assert len(wire.tried - begun) <= 2  # a probe, and perhaps the end of what ran before
    wire.pass_all()
    wire.accepted = 0
    await asyncio.gather(*(service.other() for _ in range(100)))
    await service.recovered()
    pools = 8 + 2 + 8
    alone = 1 + 1 + 2 * 3  # listener, poll, logins of the reader
    assert wire.accepted <= pools + alone
    opened, closed = [event for event in service.events if isinstance(event, BreakerOpened | BreakerClosed)]
    assert (opened.hangs, closed.server) == (True, "primary")


async def test_who_runs_when_postgres_hangs_is_told_when_that_is_noticed(service, server):
    async with open_database(server.server.owner_url, size=1) as direct:
        slow = await store_metric(direct, "SELECT pg_sleep(3600), :n::int AS n", trusted=True)
    await visible(service.client, slow)
    running = asyncio.create_task(service.client.get(f"/metrics/{slow}?n=1"))
    active = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    await until(lambda: server.execute(active) == [(1,)])
    with server.stopped():
        assert seen(await running) == "503 database-unavailable"
    await service.recovered()


async def test_a_database_that_is_read_only_for_long_keeps_its_connections(service, server):
    """Refused writes do not throw the connections of readers away again and again."""
    server.execute("ALTER DATABASE tally SET default_transaction_read_only = on")
    try:
        await until(lambda: renewed(service, server))
        thrown_away = []
        service.breaker.watch(lambda: thrown_away.append(1))
        for _ in range(20):
            assert await service.change() == "503 database-unavailable"
        await service.breaker.closed()
        assert await service.other() == "200"
        assert len(thrown_away) <= 1
    finally:
        server.execute(
            "SET default_transaction_read_only = off",
            "ALTER DATABASE tally RESET default_transaction_read_only",
        )
    server.execute(FORGET_FILES)
    await service.recovered()


async def renewed(service, server):
    """New sessions are read-only. The first refused write shows that."""
    server.execute(FORGET_FILES)
    return await service.change() == "503 database-unavailable"
