"""Items in the database. Each change and its audit row are one transaction."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct

from service import audit
from service.audit import Actor
from service.database.gateway import Database, Transaction
from service.database.queries import SqlFile, Statement
from service.errors import NotFound, PreconditionFailed, UpstreamFailed
from service.http.ids import MAX_ID
from service.http.preconditions import ANY_STATE, Precondition
from service.items.models import Item, ItemPatch, NewItem

PAGE_BYTES: Final = 8_388_608  # of external documents; a page with more ends early


class Picked(Struct, frozen=True):
    """An item of a page. `more` tells whether another item follows."""

    id: int
    more: bool


class Storable(Struct, frozen=True):
    storable: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_CREATE: Final = _SQL.rows("create_item", Item)
_READ: Final = _SQL.rows("read_item", Item)
_LOCK: Final = _SQL.rows("lock_item", Item)
_PICK_NEWEST: Final = _SQL.rows("pick_newest", Picked)
_PICK_BY_TITLE: Final = _SQL.rows("pick_by_title", Picked)
_READ_ITEMS: Final = _SQL.rows("read_items", Item)
_WRITE: Final = _SQL.rows("write_item", Item)
_STORE_EXTERNAL_DATA: Final = _SQL.rows("store_external_data", Item)
_STORE_SUMMARY: Final = _SQL.rows("store_summary", Item)
_DELETE: Final = _SQL.command("delete_item")
_IS_STORABLE: Final = _SQL.rows("is_storable", Storable)


def version(item: Item) -> str:
    """SHA-256 of the item's JSON. It changes with every field of the item."""
    return audit.digest(item)


def tag(item: Item) -> str:
    """The strong ETag of an item."""
    return f'"{version(item)}"'


async def get(db: Database | Transaction, item_id: int) -> Item:
    """Raises `NotFound`, like all functions here that take an id."""
    return await _item(db, _READ, item_id)


async def page(
    db: Database | Transaction, limit: int, *, before: int = MAX_ID, part: str | None = None
) -> tuple[list[Item], int | None]:
    """Up to `limit` items with ids below `before`, newest first, and the `before` of the next page if any.

    With `part`, only items whose title contains it.
    """
    if part is None:
        picked = await db.read(_PICK_NEWEST, before, limit, PAGE_BYTES)
    else:
        picked = await db.read(_PICK_BY_TITLE, before, limit, PAGE_BYTES, part)
    items = await db.read(_READ_ITEMS, [item.id for item in picked])
    return items, picked[-1].id if picked and picked[-1].more else None


async def create(db: Database | Transaction, new: NewItem, actor: Actor) -> Item:
    async with db.transaction() as transaction:
        item = await _item(transaction, _CREATE, new.title, new.description)
        await _record(transaction, "items.create", actor, before=None, after=item)
        return item


async def replace(
    db: Database | Transaction, item_id: int, new: NewItem, actor: Actor, if_match: Precondition = ANY_STATE
) -> Item:
    async with _locked(db, item_id, if_match) as (transaction, before):
        item = await _item(transaction, _WRITE, item_id, new.title, new.description)
        await _record(transaction, "items.replace", actor, before=before, after=item)
        return item


async def patch(
    db: Database | Transaction,
    item_id: int,
    changes: ItemPatch,
    actor: Actor,
    if_match: Precondition = ANY_STATE,
) -> Item:
    async with _locked(db, item_id, if_match) as (transaction, before):
        if changes == ItemPatch():
            return before
        title = before.title if changes.title is UNSET else changes.title
        description = before.description if changes.description is UNSET else changes.description
        item = await _item(transaction, _WRITE, item_id, title, description)
        await _record(transaction, "items.patch", actor, before=before, after=item)
        return item


async def delete(
    db: Database | Transaction, item_id: int, actor: Actor, if_match: Precondition = ANY_STATE
) -> None:
    async with _locked(db, item_id, if_match) as (transaction, before):
        await transaction.write(_DELETE, item_id)
        await _record(transaction, "items.delete", actor, before=before, after=None)


async def store_external_data(
    db: Database | Transaction, item_id: int, document: dict[str, Raw], actor: Actor
) -> Item:
    """Raises `UpstreamFailed` for JSON that Postgres cannot store: a NUL, a huge number, deep nesting."""
    async with _locked(db, item_id) as (transaction, before):
        text = msgspec.json.encode(document).decode()
        check = await transaction.read_one(_IS_STORABLE, text)
        if not (check and check.storable):
            raise UpstreamFailed("its document cannot be kept: a NUL, a number too large, or nested too deep")
        item = await _item(transaction, _STORE_EXTERNAL_DATA, item_id, document)
        await _record(transaction, "items.enrich", actor, before=before, after=item)
        return item


async def store_summary(
    db: Database | Transaction, item_id: int, summary: str, generator: str, actor: Actor
) -> Item:
    async with _locked(db, item_id) as (transaction, before):
        item = await _item(transaction, _STORE_SUMMARY, item_id, summary, generator)
        await _record(transaction, "items.summarise", actor, before=before, after=item)
        return item


@asynccontextmanager
async def _locked(
    db: Database | Transaction, item_id: int, if_match: Precondition = ANY_STATE
) -> AsyncGenerator[tuple[Transaction, Item]]:
    """Lock the item's row until the transaction ends: of two changes of one version the second fails."""
    async with db.transaction() as transaction:
        before = await _item(transaction, _LOCK, item_id)
        if not if_match.allows(tag(before)):
            raise PreconditionFailed
        yield transaction, before


async def _item(db: Database | Transaction, statement: Statement[Item], *args: Any) -> Item:
    item = await db.read_one(statement, *args)
    if item is None:
        raise NotFound("There is no item with this id.")
    return item


async def _record(
    transaction: Transaction, action: str, actor: Actor, *, before: Item | None, after: Item | None
) -> None:
    item = after or before
    await audit.record(
        transaction,
        actor,
        action,
        str(item.id) if item else "",
        before=version(before) if before else None,
        after=version(after) if after else None,
    )
