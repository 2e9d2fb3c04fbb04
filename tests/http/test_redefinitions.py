"""Changes that nobody announces: columns, types, views, functions, rights. A service notices each within 5 s.

One service for all cases, its reader a role of its own that inherits from the usual one. It looks for changes
more often than usual; `test_redefinitions_in_time.py` has a service that does not.
"""

from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from service.database.gateway import open_database
from service.database.stored_sql import login
from service.results import changes
from service.settings import Auth, Settings
from tests.conftest import _admin, _cloned, held, serving, store_metric, visible
from tests.http.redefinitions import CASES
from tests.waiting import until

NOTICED_WITHIN_S = 5

# The change, and how it is undone: the reader's way in, which every metric depends on.
LOCKS = {
    "a role that may not log in": ("ALTER ROLE {reader} NOLOGIN", "ALTER ROLE {reader} LOGIN"),
    "a role that has run out": (
        "ALTER ROLE {reader} VALID UNTIL '2000-01-01'",
        "ALTER ROLE {reader} VALID UNTIL 'infinity'",
    ),
    "another password": ("ALTER ROLE {reader} PASSWORD 'other'", "ALTER ROLE {reader} PASSWORD 'reader'"),
    "no right to connect": (
        "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, {parent}",
        "GRANT CONNECT ON DATABASE {database} TO PUBLIC",
    ),
    "no connections": (
        "ALTER ROLE {reader} CONNECTION LIMIT 0",
        "ALTER ROLE {reader} CONNECTION LIMIT -1",
    ),
    "no right to the schema": (
        "REVOKE USAGE ON SCHEMA data FROM PUBLIC, {parent}",
        "GRANT USAGE ON SCHEMA data TO {parent}",
    ),
    "no inheritance": ("REVOKE {parent} FROM {reader}", "GRANT {parent} TO {reader}"),
}


@pytest.fixture(scope="module")
async def service(server, template):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "POLL_S", 0.05)
        patch.setattr(changes, "POLL_SHARE", 1)
        patch.setattr(login, "PROBE_S", 0.05)
        async with held(opened(server, template)) as found:
            yield found


@asynccontextmanager
async def opened(server, template):
    reader = f"reader_{uuid4().hex[:12]}"
    async with _cloned(server, template) as addresses:
        parts = urlsplit(addresses.reader_url)
        await _admin(server, f"CREATE ROLE {reader} LOGIN PASSWORD 'reader' IN ROLE {parts.username}")
        netloc = f"{reader}:reader@{parts.netloc.rsplit('@', 1)[1]}"
        own = msgspec.structs.replace(
            addresses, reader_url=urlunsplit(parts._replace(netloc=netloc)), data_schemas=("early", "data")
        )
        names = {"reader": reader, "parent": parts.username, "database": parts.path[1:]}
        async with open_database(addresses.url) as database:
            owner = await asyncpg.connect(addresses.url)
            await owner.execute("CREATE SCHEMA early; GRANT USAGE ON SCHEMA early TO PUBLIC")
            async with serving(Settings(database=own, auth=Auth(mode="off"))) as client:
                yield SimpleNamespace(
                    app=client.service, client=client, database=database, owner=owner, names=names
                )
            await owner.close()
    await _admin(server, f"DROP ROLE {reader}")


async def known(service, sql):
    """The address of a new metric, when its answer is a hit and no poll will have anything to tell."""
    metric = await store_metric(service.database, sql, trusted=True)
    await visible(service.client, metric)
    address = f"/api/v1/metrics/{metric}"

    async def settled():
        first, second = [await service.client.get(address) for _ in range(2)]
        assert first.status_code == 200, first.text
        redefined = await service.app.state.services.changes.poll()
        return is_hit(second) and not redefined and is_hit(await service.client.get(address))

    await until(settled)
    return address


def is_hit(answer):
    return answer.headers.get("cache-status", "").startswith("tally; hit") and not is_stale(answer)


def is_stale(answer):
    return "detail=stale" in answer.headers.get("cache-status", "")


@pytest.mark.parametrize(("setup", "sql", "change", "expected"), CASES.values(), ids=CASES)
async def test_a_change_that_nobody_announces_is_noticed(service, setup, sql, change, expected):
    await notices(service, setup, sql, change, expected)


async def notices(service, setup, sql, change, expected):
    names = {**service.names, "t": f"t{uuid4().hex[:8]}"}
    setup = f"{setup}; GRANT SELECT ON ALL TABLES IN SCHEMA data TO PUBLIC" if "GRANT" not in setup else setup
    await service.owner.execute(setup.format(**names))
    address = await known(service, sql.format(**names))
    before = await service.client.get(address)
    await service.owner.execute(change.format(**names))

    async def noticed():
        answer = await service.client.get(address)
        if answer.status_code == 200:
            return answer.json()["records"] == expected
        return answer.json().get("sqlstate") == expected or answer.json()

    assert is_hit(before)
    assert before.json()["records"] != expected
    assert await until(noticed, NOTICED_WITHIN_S) is True


@pytest.mark.parametrize(("change", "undo"), LOCKS.values(), ids=LOCKS)
async def test_a_reader_that_is_locked_out_gives_nothing_fresh(service, change, undo):
    await locks_out(service, change, undo)


async def locks_out(service, change, undo):
    address = await known(service, f"SELECT count(*) AS n, '{uuid4()}' AS own FROM metrics")
    other = await known(service, f"SELECT count(*) AS n, '{uuid4()}' AS own FROM customers")
    await service.owner.execute(change.format(**service.names))
    try:

        async def noticed():
            answer = await service.client.get(address)
            return answer.status_code in {422, 503} or is_stale(answer)

        await until(noticed, NOTICED_WITHIN_S)
        for each in (address, other):  # and it stays so
            answer = await service.client.get(each)
            assert answer.status_code in {422, 503} or is_stale(answer)
    finally:
        await service.owner.execute(undo.format(**service.names))

    async def recovered():
        return is_hit(await service.client.get(address))

    await until(recovered)


async def test_what_no_statement_depends_on_ends_no_freshness(service):
    """Temporary tables and those of others come and go all day."""
    address = await known(service, f"SELECT count(*) AS n, '{uuid4()}' AS own FROM metrics")
    epoch = service.app.state.base.results.generations.epoch
    for number in range(3):
        await service.owner.execute(
            f"CREATE TEMP TABLE noise_{number} (x int); CREATE TEMP VIEW seen_{number} AS SELECT 1;"
            f"CREATE FUNCTION pg_temp.f_{number}() RETURNS int LANGUAGE sql AS 'SELECT 1';"
            f"CREATE TABLE data.staging_{number} (x int); DROP TABLE data.staging_{number};"
            "CREATE INDEX noise ON data.metrics (date); DROP INDEX data.noise"
        )
        await service.owner.execute("VACUUM ANALYZE data.metrics")
        assert await service.app.state.services.changes.poll() == frozenset()
        assert is_hit(await service.client.get(address))
    assert service.app.state.base.results.generations.epoch == epoch
