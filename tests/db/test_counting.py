"""Every count is what counting one row after the other gives, whatever the filters."""

from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import combinations, permutations, product
from random import Random
from typing import Any

import pytest
from msgspec import Struct, structs

from service.database.gateway import Transaction
from service.http.cursors import read_id_cursor
from service.interactions import store
from service.interactions.models import Dimension, Filters

CHANNELS = ("Email", "Call", "Bird", "Телефон")
TYPES = ("Manufacturer", "Distributor", None)
PRODUCTS = ("Pumps", "Valves", "Gears")
MONTHS = [date(2023, 11, 1), date(2023, 12, 1), date(2024, 1, 1), date(2024, 2, 1), date(2024, 3, 1)]


class Contact(Struct, frozen=True):
    at: datetime
    channel: str
    customer_id: int


class World(Struct, frozen=True):
    """Rows as they are stored; `types` has all customers, also those without contacts."""

    types: dict[int, str | None]
    contacts: list[Contact]
    products: dict[date, list[str]]

    def counted(self, filters: Filters) -> Iterator[tuple[Contact, list[str | None]]]:
        """Contacts that the filters leave, with the products that each counts for."""
        for contact in self.contacts:
            day = contact.at.date()
            topics = self.products.get(day.replace(day=1), [])
            if filters.product is not None:
                topics = [topic for topic in topics if topic == filters.product]
                if not topics:
                    continue
            if (
                (filters.channels is None or contact.channel in filters.channels)
                and (filters.start_date is None or day >= filters.start_date)
                and (filters.end_date is None or day <= filters.end_date)
                and (
                    filters.customer_type is None or self.types[contact.customer_id] == filters.customer_type
                )
            ):
                yield contact, list(topics) or [None]


def world(seed: int) -> World:
    """Contacts crowd at the first and last moments of months and days, where windows go wrong."""
    random = Random(seed)  # noqa: S311 (the same world each time)
    types = {customer_id: random.choice(TYPES) for customer_id in random.sample(range(1, 10**6), 12)}
    contacts = set()
    while len(contacts) < 250:
        start = random.choice(MONTHS)
        some_time = timedelta(days=random.randrange(28), hours=random.randrange(24))
        after = random.choice([timedelta(0), timedelta(microseconds=-1), some_time])
        moment = datetime.combine(start, datetime.min.time()) + after
        contacts.add((moment, random.choice(CHANNELS), random.choice(list(types)[2:])))
    months = {month: random.sample(PRODUCTS, random.choice([0, 1, 1, 2, 3])) for month in MONTHS}
    return World(types, [Contact(*contact) for contact in sorted(contacts)], months)


def all_filters(seed: int) -> Iterator[Filters]:
    """All kinds of filters together, with values taken at random."""
    random = Random(seed)  # noqa: S311 (the same world each time)
    for given in product([False, True], repeat=4):
        start, end = sorted(random.choice(MONTHS) + timedelta(days=random.randrange(-2, 3)) for _ in range(2))
        values = {
            "channels": tuple(random.sample(CHANNELS, 2)),
            "product": random.choice(PRODUCTS),
            "start_date": start,
            "end_date": end,
        }
        yield Filters(**{name: values[name] for name, wanted in zip(values, given, strict=True) if wanted})


@pytest.fixture(params=range(3), ids=lambda seed: f"world-{seed}")
async def stored(request: pytest.FixtureRequest, tx: Transaction) -> World:
    made = world(request.param)
    connection = tx._connection
    await connection.executemany(
        "INSERT INTO data.customers (customer_id, type) VALUES ($1, $2)", made.types.items()
    )
    await connection.executemany(
        "INSERT INTO data.external_interactions (date_start, interaction, customer_id) VALUES ($1, $2, $3)",
        [structs.astuple(contact) for contact in made.contacts],
    )
    await connection.executemany(
        "INSERT INTO data.products_of_discussion (month, product) VALUES ($1, $2)",
        [(month, name) for month, names in made.products.items() for name in names]
        + [(date(1999, 1, 1), name) for name in PRODUCTS],
    )
    return made


def channels_seen(world: World) -> list[str]:
    return list(dict.fromkeys(contact.channel for contact in world.contacts))


async def test_customers_are_counted_exactly(tx: Transaction, stored: World):
    for filters in all_filters(1):
        counts = Counter((contact.customer_id, contact.channel) for contact, _ in stored.counted(filters))
        expected = [
            (customer, {channel: counts[customer, channel] for channel in channels_seen(stored)})
            for customer in sorted(stored.types)
        ]
        page = await store.page(tx, 0, 200, filters)
        assert [(item.customer_id, item.interactions) for item in page.items] == expected
        one = await store.of_customer(tx, expected[-1][0], filters)
        assert (one.data.customer_id, one.data.interactions) == expected[-1]


@pytest.mark.parametrize("customer_type", [None, "Distributor"], ids=["all", "distributors"])
async def test_totals_are_counted_exactly(tx: Transaction, stored: World, customer_type: str | None):
    dimensions: tuple[Dimension, ...] = ("channel", "customer_type", "product")
    for filters in all_filters(2):
        wanted = structs.replace(filters, customer_type=customer_type)
        rows = [
            {"channel": contact.channel, "customer_type": stored.types[contact.customer_id], "product": topic}
            for contact, topics in stored.counted(wanted)
            for topic in topics
        ]
        for size in (1, 2, 3):
            for chosen in combinations(dimensions, size):
                counted = rows
                if "product" not in chosen:  # then a contact counts once, however many products its month has
                    counted = [
                        {"channel": contact.channel, "customer_type": stored.types[contact.customer_id]}
                        for contact, _ in stored.counted(wanted)
                    ]
                for by in permutations(chosen):
                    expected = Counter(tuple(row[name] or "null" for name in by) for row in counted)
                    found = await store.totals(tx, by, wanted)
                    assert dict(leaves(found.data)) == dict(expected)


def leaves(data: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Numbers above zero with the labels that lead to them."""
    for label, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, label))
        elif value:
            yield (*path, label), value


async def test_a_page_shrinks_where_there_are_many_channels(tx: Transaction):
    await tx._connection.execute("""
        INSERT INTO data.customers (customer_id) SELECT n FROM generate_series(1, 10) AS n;
        INSERT INTO data.vocabulary (list, folded, spelling, position)
        SELECT 'channel', 'c' || n, 'C' || n, n FROM generate_series(1, 30000) AS n
    """)
    seen: list[int] = []
    cursor = None
    while True:
        page = await store.page(tx, read_id_cursor(cursor, 0), 200, Filters())
        assert 1 <= len(page.items) <= 4
        assert all(len(item.interactions) == 30_000 for item in page.items)
        seen += [item.customer_id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == list(range(1, 11))


async def test_totals_with_too_many_labels_are_refused(tx: Transaction):
    await tx._connection.execute("""
        INSERT INTO data.customers (customer_id, type) SELECT n, 't' || n FROM generate_series(1, 10001) AS n;
        INSERT INTO data.external_interactions (date_start, interaction, customer_id)
        SELECT '2024-01-01', 'Call ' || n % 20, n FROM generate_series(1, 10001) AS n
    """)
    too_large = store.ResultTooLarge
    with pytest.raises(too_large, match="count by fewer"):
        await store.totals(tx, ("customer_type",), Filters())
    await tx._connection.execute("DELETE FROM data.external_interactions WHERE customer_id > 5001")
    assert len((await store.totals(tx, ("customer_type",), Filters())).data) == 5001
    assert len((await store.totals(tx, ("channel", "customer_type"), Filters())).data) == 20
    with pytest.raises(too_large, match="count by fewer"):
        await store.totals(tx, ("customer_type", "channel"), Filters())
