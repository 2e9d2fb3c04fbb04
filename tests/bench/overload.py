"""Three hundred callers at once of a slow metric: how soon are the refused told, and who else notices.

`.venv/bin/python -m tests.bench.overload`
"""

import asyncio
import time
from uuid import uuid4

import psycopg
import uvloop

from tests.bench.load import TALLY, database, get, served

AT_ONCE = 300
SLOW = "SELECT count(*) AS n FROM generate_series(1, 3000000 + :n::int) AS g"
QUICK = "SELECT :n::int AS n"
ROUNDS = 5


def main() -> None:
    slow, quick = uuid4(), uuid4()
    with database() as server:
        with psycopg.connect(server.owner_url) as connection:
            for metric, sql in ((slow, SLOW), (quick, QUICK)):
                connection.execute("INSERT INTO catalog.query (id, sql) VALUES (%s, %s)", [str(metric), sql])
                connection.execute(
                    "INSERT INTO catalog.metric (id, query_id) VALUES (%s, %s)", [metric, str(metric)]
                )
        with served(server, TALLY, AUTH="off") as port:
            uvloop.run(_measure(port, str(slow), str(quick)))


async def _measure(port: int, slow: str, quick: str) -> None:
    numbers = iter(range(1, 1_000_000))
    for metric in (slow, quick):
        await _ask(port, f"/metrics/{metric}?n=0")
    plain = await asyncio.gather(*(_ask(port, "/health/live") for _ in range(AT_ONCE)))
    took = max(took for _, took in plain)
    print(f"for comparison, {AT_ONCE} at once of /health/live: {took * 1000:.0f} ms")  # noqa: T201 (a script)
    for turn in range(ROUNDS):
        asked = [f"/metrics/{slow}?n={next(numbers)}" for _ in range(AT_ONCE)]
        crowd = [asyncio.create_task(_ask(port, path)) for path in asked]
        hits, others, health = [], [], []
        while not all(task.done() for task in crowd):
            hits.append(await _ask(port, f"/metrics/{quick}?n=0"))
            others.append(await _ask(port, f"/metrics/{quick}?n={next(numbers)}"))
            health.append(await _ask(port, "/health/live"))
        answers = [task.result() for task in crowd]
        refused = sorted(took for status, took in answers if status == 503)
        served_in = sorted(took for status, took in answers if status == 200)
        at_once = refused[: AT_ONCE - 128 - 4]
        print(  # noqa: T201 (a script)
            f"round {turn + 1}: {len(served_in)} served, the last after {served_in[-1]:.2f} s; "
            f"{len(refused)} refused, the first {len(at_once)} within {at_once[-1] * 1000:.0f} ms, "
            f"the last after {refused[-1]:.2f} s"
        )
        for name, found in (("hits", hits), ("misses of another metric", others), ("health", health)):
            took = sorted(each for _, each in found)
            statuses = {status for status, _ in found}
            print(  # noqa: T201 (a script)
                f"  {name:26} {len(took):5} asked, {statuses}, median {took[len(took) // 2] * 1000:.1f} ms, "
                f"longest {took[-1] * 1000:.0f} ms"
            )


async def _ask(port: int, path: str) -> tuple[int, float]:
    """One request on a connection of its own: its status and seconds, from the moment of connecting."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(get(path, port=port, Connection="close"))
    answer = await reader.read()
    writer.close()
    return int(answer[9:12]), time.perf_counter() - began


if __name__ == "__main__":
    main()
