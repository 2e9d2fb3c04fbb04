"""Three hundred callers at once: how soon are the refused told, what does it cost, and who else notices.

`.venv/bin/python -m tests.bench.overload`: the load comes from a process of its own (`tests/bench/burst.py`).
The time of a refused caller goes from the sending of its request to the last byte of its answer. "At once"
are those for whom there is no room; others were let into the queue and told when it proved too slow. The
processor time is that of the worker until the last of those at once was told: it does not depend on what
else the machine does. The statements keep four connections, so both cores, busy.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from statistics import median
from uuid import uuid4

import psycopg
import uvloop
from msgspec import Struct

from service.auth.issuer import Issuer, KeyFile
from service.database.embedded import Server
from service.environment import load
from tests.bench.burst import Answer, Burst
from tests.bench.load import TALLY, database, get, served
from tests.bench.metrics import worker_of

AT_ONCE = 300
ROOM = 128 + 4
"""The queue, and the places that one slow metric may hold: the others have to be told at once."""
SLOW = "SELECT count(*) AS n FROM generate_series(1, 3000000 + :n::int) AS g"
QUICK = "SELECT :n::int AS n"
ROUNDS = 3
TOKENS = 30
REFUSED, SERVED = 503, 200
PAUSE_S = 0.02

Bearers = Sequence[dict[str, str]]
_NUMBERS = count(1)


class Round(Struct, frozen=True):
    """The answers of one burst, and what others were told meanwhile: status and seconds."""

    answers: list[Answer]
    hits: list[tuple[int, float]]
    others: list[tuple[int, float]]


def main() -> None:
    with database() as server, tempfile.TemporaryDirectory() as folder:
        os.environ.update({"DATA_DIR": folder, "AUTH": "on"})
        issuer = Issuer(load(os.environ).public_url, KeyFile(Path(folder)))
        subjects = [f"caller {number}" for number in range(TOKENS)]
        bearers = [
            {"Authorization": f"Bearer {issuer.sign(each, ['metrics:read'], 3600)}"} for each in subjects
        ]
        with served(server, TALLY, AUTH="off") as port:
            _measure(port, server, [{}], "without tokens")
        with served(server, TALLY) as port:
            _measure(port, server, bearers, f"{TOKENS} callers with tokens")


def _measure(port: int, server: Server, bearers: Bearers, who: str) -> None:
    quick, one = _stored(server, QUICK, 1)[0], _stored(server, SLOW, 1)[0]
    _show("300 of /health/live", [_round(port, ["/health/live"] * AT_ONCE, quick, bearers, opened=True)])
    for opened in (True, False):
        how = f"{who}, {'open' if opened else 'new'} connections"
        for name, rounds in (
            ("a metric that was slow", [[one] * AT_ONCE] * ROUNDS),
            ("a metric never asked for", [[each] * AT_ONCE for each in _stored(server, SLOW, ROUNDS)]),
            ("300 metrics never asked for", [_stored(server, SLOW, AT_ONCE) for _ in range(ROUNDS)]),
        ):
            found = [
                _round(port, [_path(each) for each in metrics], quick, bearers, opened=opened)
                for metrics in rounds
            ]
            _show(f"{name}; {how}", found)


def _path(metric: str) -> str:
    return f"/api/v1/metrics/{metric}?n={next(_NUMBERS)}"


def _stored(server: Server, sql: str, number: int) -> list[str]:
    ids = [str(uuid4()) for _ in range(number)]
    with psycopg.connect(server.owner_url) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO catalog.query (id, sql) VALUES (%s, %s)", [(e, sql) for e in ids])
        cursor.executemany("INSERT INTO catalog.metric (id, query_id) VALUES (%s, %s)", [(e, e) for e in ids])
    time.sleep(0.5)  # until the service has heard of them
    return ids


def _round(port: int, paths: Sequence[str], quick: str, bearers: Bearers, *, opened: bool) -> Round:
    requests = [get(path, port=port, **bearers[number % len(bearers)]) for number, path in enumerate(paths)]
    return uvloop.run(_burst(port, requests, quick, bearers[0], opened=opened))


async def _burst(
    port: int, requests: list[bytes], quick: str, bearer: dict[str, str], *, opened: bool
) -> Round:
    held = f"/api/v1/metrics/{quick}?n=0"
    await _ask(port, held, bearer)
    crowd = Burst(port, worker_of(port), requests, opened=opened)
    hits, others = [await _ask(port, held, bearer)], [await _ask(port, _path(quick), bearer)]
    while not crowd.is_done:
        hits.append(await _ask(port, held, bearer))
        others.append(await _ask(port, _path(quick), bearer))
        await asyncio.sleep(PAUSE_S)
    return Round(crowd.answers(), hits, others)


def _show(name: str, rounds: Sequence[Round]) -> None:
    print(name)  # noqa: T201 (a script)
    refused = [_refused(each.answers) for each in rounds]
    at_once = [each for told in refused for each in told[: AT_ONCE - ROOM]]
    if at_once:
        took, worked = [each.took_s for each in at_once], [max(_work(told)) for told in refused]
        _line("  refused at once, ms", took, len(rounds))
        _line(
            "  and in the queue, ms",
            [e.took_s for told in refused for e in told[AT_ONCE - ROOM :]],
            len(rounds),
        )
        print(f"  the worker's processor time until then: {median(worked) * 1000:.0f} ms")  # noqa: T201
    _line(
        "  served, ms", [a.took_s for each in rounds for a in each.answers if a.status == SERVED], len(rounds)
    )
    for who in ("hits", "others"):
        found: list[tuple[int, float]] = [each for turn in rounds for each in getattr(turn, who)]
        _line(f"  {who} meanwhile { ({status for status, _ in found}) }, ms", [took for _, took in found], 1)


def _refused(answers: Sequence[Answer]) -> list[Answer]:
    return sorted((each for each in answers if each.status == REFUSED), key=lambda each: each.took_s)


def _work(told: Sequence[Answer]) -> Iterator[float]:
    return (each.worked_s for each in told[: AT_ONCE - ROOM])


def _line(name: str, seconds: Sequence[float], rounds: int) -> None:
    if seconds:
        took = sorted(each * 1000 for each in seconds)
        figures = f"median {median(took):7.1f}  p99 {took[int(len(took) * 0.99)]:7.1f}  max {took[-1]:7.1f}"
        print(f"{name:42} {len(took) // rounds:5}  {figures}")  # noqa: T201 (a script)


async def _ask(port: int, path: str, bearer: dict[str, str]) -> tuple[int, float]:
    """One request on a connection of its own: its status and seconds, from the moment of connecting."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(get(path, port=port, Connection="close", **bearer))
    answer = await reader.read()
    writer.close()
    return int(answer[9:12]), time.perf_counter() - began


if __name__ == "__main__":
    main()
