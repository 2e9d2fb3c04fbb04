"""The audit only grows, and holds exactly what was committed."""

import pytest

from service import audit
from service.audit import Actor
from service.auth import clients
from service.database.gateway import Database, Transaction
from service.database.queries import Command
from service.errors import Conflict, DatabaseUnavailable, NotFound, Stop

CHANGE = Actor("ann", "r-1"), "items.create", "7"


async def test_a_change_is_recorded_with_its_transaction(tx: Transaction):
    await audit.record(tx, *CHANGE)
    (entry, *_) = await audit.page(tx, 1)
    assert (entry.actor, entry.action, entry.target, entry.request_id) == ("ann", "items.create", "7", "r-1")
    assert entry.at.tzinfo is not None


class Undone(Exception):
    pass


async def test_a_change_that_is_rolled_back_leaves_no_row(clone: Database):
    async def act():
        async with clone.transaction() as tx:
            await audit.record(tx, *CHANGE)
            raise Undone

    with pytest.raises(Undone):
        await act()
    assert await audit.page(clone, 10) == []


@pytest.mark.parametrize(
    "sql", ["UPDATE app.audit SET actor = 'eve'", "DELETE FROM app.audit", "TRUNCATE app.audit"]
)
async def test_not_even_the_owner_can_change_what_was_recorded(clone: Database, sql):
    async with clone.transaction() as tx:
        await audit.record(tx, *CHANGE)
    with pytest.raises(DatabaseUnavailable, match="only grows"):
        await clone.write(Command("tamper", sql))
    assert [entry.actor for entry in await audit.page(clone, 10)] == ["ann"]


@pytest.mark.parametrize("thing", [None, {"a": 1}, "text", [1, 2]])
def test_a_digest_tells_things_apart(thing):
    assert len(audit.digest(thing)) == 64
    assert audit.digest(thing) == audit.digest(thing)
    assert audit.digest(thing) != audit.digest({"a": 2})


async def test_a_client_is_registered_found_listed_and_revoked(tx: Transaction):
    secret = await clients.add(tx, "poller", ("metrics:read",), chosen=None, actor="ann")
    assert len(secret) >= 43
    found = await clients.find(tx, "poller")
    assert found is not None
    assert secret not in found.secret_hash
    await clients.add(tx, "person", ("admin",), chosen="correct horse battery", actor="ann")
    await clients.revoke(tx, "poller", actor="bob")
    assert await clients.find(tx, "poller") is None
    listed = {client.id: client for client in await clients.list_all(tx)}
    assert (listed["poller"].revoked_at is None, listed["poller"].chosen) == (False, False)
    assert (listed["person"].revoked_at is None, listed["person"].chosen) == (True, True)
    deeds = [(entry.actor, entry.action, entry.target) for entry in await audit.page(tx, 3)]
    assert deeds == [
        ("bob", "client.revoke", "poller"),
        ("ann", "client.add", "person"),
        ("ann", "client.add", "poller"),
    ]


async def test_an_id_is_used_once(clone: Database):
    await clients.add(clone, "poller", ("metrics:read",), chosen=None, actor="ann")
    await clients.revoke(clone, "poller", actor="ann")
    with pytest.raises(Conflict):
        await clients.add(clone, "poller", ("admin",), chosen=None, actor="ann")
    with pytest.raises(NotFound):
        await clients.revoke(clone, "poller", actor="ann")
    assert [entry.action for entry in await audit.page(clone, 10)] == ["client.revoke", "client.add"]


@pytest.mark.parametrize("client_id", ["", "a b", "a:b", "a,b", "ä", "a\x00", "x" * 129])
async def test_an_odd_id_is_refused_before_the_database(tx: Transaction, client_id):
    with pytest.raises(Stop):
        await clients.add(tx, client_id, ("admin",), chosen=None, actor="ann")
