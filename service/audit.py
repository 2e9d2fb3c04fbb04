"""Who did what to which thing, written in the transaction of the deed."""

from typing import Final

from msgspec import Struct

from service.database.gateway import Transaction
from service.database.queries import Command


class Actor(Struct, frozen=True):
    """Who does something, and in which request."""

    name: str
    request_id: str | None


class Deed(Struct, frozen=True, kw_only=True):
    """`action` reads `<thing>.<verb>`, such as `metrics.create`; `target` is the thing's id.

    `before` and `after` are SHA-256 of its JSON, null where there was none.
    """

    actor: str
    action: str
    target: str
    request_id: str | None = None
    before_hash: str | None = None
    after_hash: str | None = None


_RECORD: Final = Command(
    "record_deed",
    "INSERT INTO app.audit (actor, action, target, request_id, before_hash, after_hash)"
    " VALUES ($1, $2, $3, $4, $5, $6)",
)


async def record(transaction: Transaction, deed: Deed) -> None:
    await transaction.write(
        _RECORD,
        deed.actor,
        deed.action,
        deed.target,
        deed.request_id,
        deed.before_hash,
        deed.after_hash,
    )
