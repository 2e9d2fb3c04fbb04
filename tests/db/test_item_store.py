"""Items in the database: search by any part of a title, changes with their audit."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct

from service.audit import Actor
from service.database.gateway import Database, Transaction
from service.database.queries import Command, Statement
from service.errors import NotFound, PreconditionFailed, UpstreamFailed
from service.http.ids import MAX_ID
from service.http.preconditions import Precondition
from service.items import store
from service.items.models import Item, ItemPatch, NewItem
from service.items.store import tag, version
from tests.waiting import until

ACTOR = Actor("robin", "request-1")


class RecordedEvent(Struct):
    actor: str
    action: str
    target: str
    request_id: str
    before_hash: str | None
    after_hash: str | None


class Line(Struct):
    text: str


EVENTS = Statement(
    "events",
    "SELECT actor, action, target, request_id, before_hash, after_hash FROM app.audit ORDER BY id",
    RecordedEvent,
)
FILL = Command(
    "fill",
    "INSERT INTO app.item (title) SELECT 'Order ' || n || ' of part ' || md5(n::text)"
    " FROM generate_series(1, 3000) AS n",
)


async def titles(tx: Transaction, part: str) -> list[str]:
    return [item.title for item in (await store.page(tx, 500, part=part))[0]]


async def add(tx: Transaction, *names: str) -> list[Item]:
    return [await store.create(tx, NewItem(name), ACTOR) for name in names]


@pytest.mark.parametrize(
    ("part", "found"),
    [
        pytest.param("milk", ["Oat MILK", "Buy milk"], id="a word in any case"),
        pytest.param("uy mi", ["Buy milk"], id="a part across words"),
        pytest.param("k", ["Oat MILK", "Buy milk"], id="one letter"),
        pytest.param("ga", ["Garden"], id="two letters"),
        pytest.param("%", ["100 % done_"], id="a percent sign is itself"),
        pytest.param("_", ["100 % done_"], id="an underscore is itself"),
        pytest.param("ÄRGER", ["Ärger"], id="letters beyond ASCII"),
        pytest.param("mil ", [], id="not there"),
        pytest.param("buy milk and more", [], id="longer than the title"),
    ],
)
async def test_a_title_is_found_by_any_part_newest_first(tx: Transaction, part: str, found: list[str]):
    await add(tx, "Buy milk", "Garden", "100 % done_", "Ärger", "Oat MILK")
    assert await titles(tx, part) == found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text("abAB '\\%", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=6),
    part=st.text("abAB '\\%", min_size=1, max_size=5),
)
async def test_search_agrees_with_pythons(tx: Transaction, names: list[str], part: str):
    async with tx.transaction() as savepoint:
        made = {item.id for item in await add(savepoint, *names)}
        items, _ = await store.page(savepoint, 500, part=part)
        found = [item.title for item in items if item.id in made]
    assert found == [name for name in reversed(names) if part.lower() in name.lower()]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_search_uses_the_index_of_titles(tx: Transaction, mode: str):
    await tx.write(FILL)
    await tx.write(Command("analyze", "ANALYZE app.item"))
    await tx.write(Command("mode", f"SET LOCAL plan_cache_mode = {mode}"))
    name = f"search_{mode}"  # prepared statements outlive the transaction
    await tx.write(Command("prepare", f"PREPARE {name} AS {store._PICK_BY_TITLE.sql}"))
    explain = Statement(
        "explain", f"EXPLAIN EXECUTE {name}({MAX_ID}, 50, {store.PAGE_BYTES}, 'c4ca4238')", Line
    )
    plan = "\n".join(line.text for line in await tx.read(explain))
    assert "item_title_grams_idx" in plan
    assert "Seq Scan" not in plan


async def test_pages_follow_each_other(tx: Transaction):
    made = await add(tx, *(f"Task {number}" for number in range(5)))
    seen: list[list[str]] = []
    before: int | None = MAX_ID
    while before is not None:
        items, before = await store.page(tx, 2, before=before)
        seen.append([item.title for item in items])
        assert before is None or before == items[-1].id
    assert seen == [["Task 4", "Task 3"], ["Task 2", "Task 1"], ["Task 0"]]
    assert await store.page(tx, 5) == (made[::-1], None)
    assert await store.page(tx, 5, before=made[0].id) == ([], None)


@pytest.mark.parametrize("part", [None, "large"])
async def test_a_page_of_large_documents_ends_early_and_the_next_goes_on(tx: Transaction, part: str | None):
    document = {"body": Raw(b'"' + b"x" * 1_000_000 + b'"')}
    made = await add(tx, *(f"large {number}" for number in range(20)))
    for item in made:
        await store.store_external_data(tx, item.id, document, ACTOR)
    sizes: list[int] = []
    before: int | None = MAX_ID
    while before is not None:
        items, before = await store.page(tx, 500, before=before, part=part)
        sizes.append(len(items))
    assert sizes == [9, 9, 2]


async def test_every_change_is_audited_with_the_hashes_of_the_item(tx: Transaction):
    made = await store.create(tx, NewItem("Buy milk"), ACTOR)
    replaced = await store.replace(tx, made.id, NewItem("Buy oats", "two bags"), ACTOR)
    patched = await store.patch(tx, made.id, ItemPatch(description=None), ACTOR)
    enriched = await store.store_external_data(tx, made.id, {"id": Raw(b"1")}, ACTOR)
    summarised = await store.store_summary(tx, made.id, "Oats.", "extractive", ACTOR)
    await store.delete(tx, made.id, ACTOR)
    states = [None, made, replaced, patched, enriched, summarised, None]
    hashes = [state and version(state) for state in states]
    actions = ["create", "replace", "patch", "enrich", "summarise", "delete"]
    assert await tx.read(EVENTS) == [
        RecordedEvent("robin", f"items.{action}", str(made.id), "request-1", before, after)
        for action, before, after in zip(actions, hashes[:-1], hashes[1:], strict=True)
    ]


async def test_a_refused_change_leaves_no_entry(tx: Transaction):
    item = await store.create(tx, NewItem("Buy milk"), ACTOR)
    events = await tx.read(EVENTS)
    with pytest.raises(PreconditionFailed):
        await store.replace(tx, item.id, NewItem("x"), ACTOR, Precondition('"other"'))
    with pytest.raises(UpstreamFailed):
        await store.store_external_data(tx, item.id, {"a": Raw(rb'"\u0000"')}, ACTOR)
    assert await tx.read(EVENTS) == events
    assert await store.get(tx, item.id) == item


async def test_a_change_waits_for_the_one_before_it_and_then_sees_its_version(clone: Database):
    waiting = Statement(
        "waiting",
        "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        Line,
    )
    made = await store.create(clone, NewItem("Buy milk"), ACTOR)
    state = Precondition(tag(made))
    async with asyncio.timeout(30), clone.transaction() as first:
        await store.replace(first, made.id, NewItem("first"), ACTOR, state)
        second = asyncio.create_task(store.replace(clone, made.id, NewItem("second"), ACTOR, state))
        await until(lambda: clone.read(waiting))
    with pytest.raises(PreconditionFailed):
        await second
    assert (await store.get(clone, made.id)).title == "first"


CHANGES: dict[str, Callable[[Transaction, int], Awaitable[object]]] = {
    "get": store.get,
    "replace": lambda tx, item_id: store.replace(tx, item_id, NewItem("x"), ACTOR),
    "patch": lambda tx, item_id: store.patch(tx, item_id, ItemPatch(), ACTOR),
    "delete": lambda tx, item_id: store.delete(tx, item_id, ACTOR),
    "store external data": lambda tx, item_id: store.store_external_data(tx, item_id, {}, ACTOR),
    "store summary": lambda tx, item_id: store.store_summary(tx, item_id, "x", "extractive", ACTOR),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_an_unknown_item_is_not_found(
    tx: Transaction, change: Callable[[Transaction, int], Awaitable[object]]
):
    with pytest.raises(NotFound):
        await change(tx, 1_000_000)


async def test_a_patch_changes_what_it_names_and_nothing_else(tx: Transaction):
    made = await store.create(tx, NewItem("Buy milk", "two litres"), ACTOR)
    enriched = await store.store_external_data(tx, made.id, {"title": Raw(b'"theirs"')}, ACTOR)
    patched = await store.patch(tx, made.id, ItemPatch(title="Buy oats"), ACTOR)
    assert patched.updated_at > enriched.updated_at
    expected = msgspec.structs.replace(enriched, title="Buy oats", updated_at=patched.updated_at)
    assert version(patched) == version(expected)
    assert version(await store.patch(tx, made.id, ItemPatch(), ACTOR)) == version(patched)


@pytest.mark.parametrize(
    ("document", "stored"),
    [
        pytest.param(b'{"a": 0.1000000000000000055511151231257827}', True, id="digits beyond a float"),
        pytest.param(b'{"a": 1e400, "b": 123456789012345678901234567890}', True, id="numbers beyond a float"),
        pytest.param(b'{"a": {"b": [null, true, "\\u00e9\\ud83d\\ude00"]}}', True, id="nested"),
        pytest.param(b'{"a": ' + b"[" * 190 + b"]" * 190 + b"}", True, id="nested deep"),
        pytest.param(b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", False, id="nested too deep"),
        pytest.param(b'{"a": 1e999999}', False, id="a number beyond numeric"),
        pytest.param(b'{"a": "\\u0000"}', False, id="a NUL"),
        pytest.param(b'{"\\u0000": 1}', False, id="a NUL in a name"),
    ],
)
async def test_the_outside_document_is_kept_exactly_or_not_at_all(
    tx: Transaction, document: bytes, stored: bool
):
    item = await store.create(tx, NewItem("x"), ACTOR)
    fields = msgspec.json.decode(document, type=dict[str, Raw])
    if not stored:
        with pytest.raises(UpstreamFailed):
            await store.store_external_data(tx, item.id, fields, ACTOR)
        return
    kept = await store.store_external_data(tx, item.id, fields, ACTOR)
    same = Statement("same", "SELECT ($1::text::jsonb = $2::text::jsonb)::text", Line)
    assert kept.external_data
    compared = await tx.read_one(same, document.decode(), msgspec.json.encode(kept.external_data).decode())
    assert compared == Line("true")
