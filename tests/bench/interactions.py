"""Counting at 2,000 customers and 1,000,000 interactions, without held results.

`.venv/bin/python -m tests.bench.interactions`
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any

import psycopg

from service.database.gateway import Database, open_database
from service.interactions import store
from service.interactions.models import Filters
from tests.bench.load import database

ROUNDS = 7
FILL = """
    INSERT INTO data.customers (customer_id, type)
    SELECT n, (array['Manufacturer', 'Distributor', 'Repair shop', 'Public sector'])[1 + n % 4]
    FROM generate_series(1, 2000) AS n;
    INSERT INTO data.external_interactions (date_start, interaction, customer_id)
    SELECT timestamp '2020-01-01' + n * interval '3 minutes',
           (array['Email', 'Call', 'Bird', 'Visit', 'Fax'])[1 + (n / 7) % 5],
           1 + (n::bigint * 7919) % 2000
    FROM generate_series(1, 1000000) AS n;
    INSERT INTO data.products_of_discussion (month, product)
    SELECT month, product
    FROM generate_series(timestamp '2020-01-01', '2025-12-01', '1 month') AS month,
         unnest(array['Pumps', 'Valves']) AS product
    WHERE product = 'Pumps' OR extract(month FROM month) IN (3, 5)
"""
ALL = Filters()
SOME = Filters(
    channels=("Email", "Call"), product="Pumps", start_date=date(2021, 1, 1), end_date=date(2024, 6, 30)
)


def main() -> None:
    with database() as server:
        with psycopg.connect(server.owner_url, autocommit=True) as connection:
            connection.execute(FILL)
            connection.execute("VACUUM ANALYZE")
        asyncio.run(measure(server.owner_url))


async def measure(url: str) -> None:
    calls: dict[str, tuple[int, Callable[[Database], Awaitable[Any]]]] = {
        "one customer": (5, lambda db: store.of_customer(db, 1_000, ALL)),
        "one customer, filtered": (5, lambda db: store.of_customer(db, 1_000, SOME)),
        "page of 50": (50, lambda db: store.page(db, None, 50, ALL)),
        "page of 50, filtered": (50, lambda db: store.page(db, None, 50, SOME)),
        "page of 200": (50, lambda db: store.page(db, None, 200, ALL)),
        "totals by channel": (500, lambda db: store.totals(db, ("channel",), ALL)),
        "totals by customer type": (500, lambda db: store.totals(db, ("customer_type",), ALL)),
        "totals by product": (500, lambda db: store.totals(db, ("product",), ALL)),
        "totals by type and product": (500, lambda db: store.totals(db, ("customer_type", "product"), ALL)),
        "totals by all three": (
            500,
            lambda db: store.totals(db, ("channel", "customer_type", "product"), ALL),
        ),
        "totals by product, filtered": (500, lambda db: store.totals(db, ("product",), SOME)),
        "figures of all datasets": (500, store.stats),
    }
    for name, (bound, call) in calls.items():
        async with open_database(url) as opened:  # a connection that has seen nothing yet
            times = [await timed(call(opened)) for _ in range(ROUNDS)]
        print(f"{name:30} first {times[0]:7.1f} ms   best {min(times):7.1f} ms   (at most {bound})")  # noqa: T201 (a script)


async def timed(call: Awaitable[Any]) -> float:
    started = time.perf_counter()
    await call
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
