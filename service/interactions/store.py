"""Count interactions per customer and in total, and compute the figures of datasets."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database, Transaction
from service.database.queries import SqlFile, Statement
from service.errors import FieldError, InvalidInput, NotFound, ResultTooLarge
from service.http.cursors import write_cursor
from service.http.ids import MAX_ID
from service.interactions.models import (
    CustomerAnswer,
    CustomerInteractions,
    DatasetStats,
    Dimension,
    Filters,
    InteractionPage,
    Stats,
    Totals,
)

MAX_GROUPS: Final = 10_000
MAX_LABELS: Final = 100_000
NO_LABEL: Final = "null"
WAITING: Final = (
    " {} interactions of this customer are in quarantine and load when the customer arrives: see"
    " /api/v1/quarantine?dataset=external_interactions&reason=orphan&status=open."
)
NAMED: Final = 20  # known words that an error lists


class Word(Struct, frozen=True):
    """A known word: its spelling for callers, and its value for statements."""

    word: str
    key: str


class CustomerCounts(Struct, frozen=True):
    """`counts` belong to `channels`, in the same order. `page_size` is the row limit of the statement."""

    customer_id: int
    channels: list[str]
    counts: list[int]
    page_size: int


class GroupCount(Struct, frozen=True):
    channel: str | None
    customer_type: str | None
    product: str | None
    n: int


class DatasetRow(Struct, frozen=True):
    dataset: str
    rows: int
    first_date: str | None
    last_date: str | None
    distinct_keys: int
    waiting_rows: int


class Waiting(Struct, frozen=True):
    n: int


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_CHANNELS: Final = _SQL.rows("list_channels", Word)
_LIST_CUSTOMER_TYPES: Final = _SQL.rows("list_customer_types", Word)
_LIST_PRODUCTS: Final = _SQL.rows("list_products", Word)
_COUNT_BY_CUSTOMER: Final = _SQL.rows("count_by_customer", CustomerCounts)
_COUNT_TOTALS: Final = _SQL.rows("count_totals", GroupCount)
_COUNT_WAITING: Final = _SQL.rows("count_waiting", Waiting)
_LIST_DATASETS: Final = _SQL.rows("list_datasets", DatasetRow)


async def _resolve(database: Database | Transaction, asked: Filters) -> Filters:
    """Replace the words of filters by the values for statements. Case does not matter.

    Raises `InvalidInput` for reversed dates and for unknown words; it lists some known words.
    """
    wrong: list[FieldError] = []
    if asked.start_date and asked.end_date and asked.start_date > asked.end_date:
        wrong.append(FieldError("end_date", f"{asked.end_date} is before start_date {asked.start_date}"))
    channels = await _known(database, _LIST_CHANNELS, "channel", asked.channels, wrong)
    types = await _known(database, _LIST_CUSTOMER_TYPES, "customer_type", _one(asked.customer_type), wrong)
    products = await _known(database, _LIST_PRODUCTS, "product", _one(asked.product), wrong)
    if wrong:
        raise InvalidInput(errors=tuple(wrong))
    return msgspec.structs.replace(
        asked,
        channels=channels,
        customer_type=types[0] if types else None,
        product=products[0] if products else None,
    )


def _one(word: str | None) -> tuple[str, ...] | None:
    return None if word is None else (word,)


async def _known(
    database: Database | Transaction,
    statement: Statement[Word],
    field: str,
    asked: Sequence[str] | None,
    wrong: list[FieldError],
) -> tuple[str, ...] | None:
    if asked is None:
        return None
    words = await database.read(statement)
    keys = {_fold(known.word): known.key for known in reversed(words)} | {
        known.word: known.key for known in words
    }
    found: list[str] = []
    for word in asked:
        key = keys.get(word) or keys.get(_fold(word))
        if key is None:
            wrong.append(FieldError(field, f"{word[:60]!r} is not known; {_named(words)}"))
        else:
            found.append(key)
    return tuple(found)


def _fold(word: str) -> str:
    return unicodedata.normalize("NFC", word).casefold()


def _named(words: Sequence[Word]) -> str:
    if not words:
        return "none is known yet"
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return f"known are {', '.join(known.word for known in words[:NAMED])}{more}"


async def of_customer(database: Database | Transaction, customer_id: int, asked: Filters) -> CustomerAnswer:
    """Raises `NotFound` for an unknown customer. The message tells how many rows wait for the customer."""
    filters = await _resolve(database, asked)
    found: list[CustomerCounts] = []
    if customer_id <= MAX_ID:
        found = await _count_by_customer(database, customer_id, customer_id, 1, filters)
    if not found:
        waiting = await database.read_one(_COUNT_WAITING, str(customer_id))
        hint = WAITING.format(waiting.n) if waiting and waiting.n else ""
        raise NotFound(f"There is no customer {customer_id}.{hint}")
    return CustomerAnswer(_with_channels(found[0]))


async def page(database: Database | Transaction, after: int, limit: int, asked: Filters) -> InteractionPage:
    """Customers in order of their ids, also customers without interactions.

    A page begins after customer `after`. With very many channels it holds fewer than `limit` customers.
    """
    filters = await _resolve(database, asked)
    found = await _count_by_customer(database, after + 1, MAX_ID, limit + 1, filters)
    more = bool(found) and len(found) == found[0].page_size
    shown = found[:-1] if more else found
    following = write_cursor(shown[-1].customer_id) if more else None
    return InteractionPage([_with_channels(counts) for counts in shown], following)


async def _count_by_customer(
    database: Database | Transaction, first: int, last: int, most: int, filters: Filters
) -> list[CustomerCounts]:
    return await database.read(
        _COUNT_BY_CUSTOMER,
        first,
        last,
        most,
        filters.customer_type,
        filters.channels,
        filters.start_date,
        filters.end_date,
        filters.product,
    )


def _with_channels(row: CustomerCounts) -> CustomerInteractions:
    return CustomerInteractions(row.customer_id, dict(zip(row.channels, row.counts, strict=True)))


async def totals(database: Database | Transaction, by: Sequence[Dimension], asked: Filters) -> Totals:
    """Count by one dimension or several, nested in their order.

    Raises `ResultTooLarge` past `MAX_GROUPS` combinations or `MAX_LABELS` labels.
    """
    filters = await _resolve(database, asked)
    groups = await database.read(
        _COUNT_TOTALS,
        "channel" in by,
        "customer_type" in by,
        "product" in by,
        filters.customer_type,
        filters.channels,
        filters.start_date,
        filters.end_date,
        filters.product,
        MAX_GROUPS + 1,
    )
    channels = [row.word for row in await database.read(_LIST_CHANNELS)] if "channel" in by else []
    if len(groups) > MAX_GROUPS or _labels(groups, by, channels) > MAX_LABELS:
        raise ResultTooLarge("There are too many different labels for one answer: filter, or count by fewer.")
    return Totals(_nest(groups, by, channels))


def _labels(groups: Sequence[GroupCount], by: Sequence[Dimension], channels: Sequence[str]) -> int:
    """Count the labels of the answer, which shows every channel, also channels without interactions."""
    if "channel" not in by:
        return len(groups)
    outer = by[: by.index("channel")]
    return len({tuple(getattr(group, name) for name in outer) for group in groups}) * len(channels)


def _nest(groups: Iterable[GroupCount], by: Sequence[Dimension], channels: Sequence[str]) -> dict[str, Any]:
    """Nest the counts: all channels in their order, other labels by name, missing labels last."""
    name, *inner = by
    parts: dict[str, list[GroupCount]] = {channel: [] for channel in channels} if name == "channel" else {}
    for group in groups:
        label = getattr(group, name)
        parts.setdefault(NO_LABEL if label is None else label, []).append(group)
    order = parts if name == "channel" else sorted(parts, key=lambda label: (label == NO_LABEL, label))
    if inner:
        return {label: _nest(parts[label], inner, channels) for label in order}
    return {label: sum(group.n for group in parts[label]) for label in order}


async def stats(database: Database | Transaction) -> Stats:
    """Compute the figures of all datasets. A dataset without rows has zeros and no dates."""
    return Stats(
        {
            row.dataset: DatasetStats(
                row.rows, row.first_date, row.last_date, row.distinct_keys, row.waiting_rows
            )
            for row in await database.read(_LIST_DATASETS)
        }
    )
