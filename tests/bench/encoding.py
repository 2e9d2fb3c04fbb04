"""What encoding a result costs: `render` on the reader's records, against msgspec on dicts made beforehand.

The dicts hold what the driver gives by itself. Run by hand: `.venv/bin/python -m tests.bench.encoding`. It
starts an embedded Postgres, takes the best of several rounds of each in turns, and fails above 1.5.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec

from service.database.embedded import running
from service.database.stored_sql.reader import open_reader
from service.metrics.formats import Outcome, record_maker, render
from service.metrics.models import Metric
from service.settings import Database

ROWS = 10_000
ROUNDS = 40
LIMIT = 1.5
SQL = f"""
SELECT i::bigint AS id, 'name ' || i AS name, i / 7.0::float8 AS share, i % 2 = 0 AS even, i * 3 AS total
FROM generate_series(1, {ROWS}) AS i"""
EXACT = f"""
SELECT i::bigint AS id, DATE '2025-01-01' + i % 365 AS day, now() AS at, i / 8.0 AS share, 'n' || i AS name
FROM generate_series(1, {ROWS}) AS i"""


def best(*work: Callable[[], object]) -> list[float]:
    """Least seconds of each, measured in turns so that a busy moment hits all."""
    found = [float("inf")] * len(work)
    for _ in range(ROUNDS):
        for number, each in enumerate(work):
            began = time.perf_counter()
            each()
            found[number] = min(found[number], time.perf_counter() - began)
    return found


async def measure(url: str, sql: str) -> tuple[float, float]:
    settings = Database(reader_url=url)
    async with open_reader(url, settings) as reader:
        description = await reader.describe(sql)
        rows = await reader.run(description.runnable(sql))
    now = datetime.now(UTC)
    metric = Metric(UUID(int=1), "q", sql, False, "t", True, None, None, {}, "auto", 1, now)
    outcome = Outcome(
        metric=metric,
        parameters={},
        columns=description.columns,
        record=record_maker(description.columns),
        rows=rows.records,
        truncated=rows.truncated,
        as_of=now,
    )
    plain_driver = await asyncpg.connect(url)
    dicts = [dict(record) for record in await plain_driver.fetch(sql)]
    await plain_driver.close()
    encode = msgspec.json.Encoder().encode
    ours, plain = best(lambda: render(outcome, "json"), lambda: encode(dicts))
    return ours, plain


def main() -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server runs as another user than root
        with running(Path(folder) / "data", durable=False) as server:
            for name, sql in (("plain types", SQL), ("dates, times and numeric", EXACT)):
                ours, plain = asyncio.run(measure(server.owner_url, sql))
                worst = max(worst, ours / plain)
                print(f"{name}: {ours * 1e3:.2f} ms, dicts {plain * 1e3:.2f} ms, ratio {ours / plain:.2f}")  # noqa: T201
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
