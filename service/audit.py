"""The audit log. Each event is written in the transaction of its change. The table is append-only."""

from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from service.database.gateway import Database, Transaction
from service.database.queries import SqlFile
from service.http import bodies
from service.http.ids import MAX_ID


class Actor(Struct, frozen=True):
    """The caller of a change, and the id of the request."""

    name: str
    request_id: str | None = None


CLI: Final = Actor("cli")
"""Whoever runs a command on the server's machine."""


class Entry(Struct, frozen=True):
    """A recorded event."""

    id: int
    actor: str
    action: str
    target: str
    at: datetime
    request_id: str | None


_SQL: Final = SqlFile(Path(__file__).with_suffix(".sql"))
_PAGE: Final = _SQL.rows("list_events", Entry)
_RECORD: Final = _SQL.command("record_event")


async def record(
    transaction: Transaction,
    actor: Actor,
    action: str,
    target: str,
    *,
    before: str | None = None,
    after: str | None = None,
) -> None:
    """Record a change of a thing, with the digests of its states.

    `action` reads `<thing>.<verb>`, such as `metrics.create`; `target` is the thing's id.
    """
    await transaction.write(_RECORD, actor.name, action, target, actor.request_id, before, after)


def digest(thing: Any) -> str:
    """SHA-256 of a thing's JSON, keys in order: for `before_hash`, `after_hash` and versions."""
    return sha256(bodies.encode_key(thing)).hexdigest()


async def page(
    db: Database | Transaction,
    limit: int,
    *,
    before: int = MAX_ID,
    actor: str | None = None,
    target: str | None = None,
) -> list[Entry]:
    """Up to `limit` + 1 entries with ids below `before`, newest first."""
    return await db.read(_PAGE, before, actor, target, limit + 1)
