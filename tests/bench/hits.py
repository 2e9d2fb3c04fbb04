"""Answers from the result table, against raw ASGI that sends as many constant bytes on the same server.

`.venv/bin/python -m tests.bench.hits`: one worker, bearer tokens, 64 connections; and the same with 10,000
metrics in the catalogue and in rotation.
"""

import os
import tempfile
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from uuid import uuid4

import psycopg

from service.auth.issuer import Issuer, KeyFile
from service.database.embedded import Server
from service.environment import load
from tests.bench.load import TALLY, Case, best, database, get, raw, served, show_figures

SQL = "SELECT n, 'row ' || n AS label FROM generate_series(1, 25) AS n"
MANY = 10_000


def main() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(database())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ.update({"DATA_DIR": folder, "AUTH": "on"})
        settings = load(os.environ)
        issuer = Issuer(settings.public_url, KeyFile(Path(folder)))
        bearer = {"Authorization": f"Bearer {issuer.sign('bench', ['metrics:read'], 3600)}"}
        peer = stack.enter_context(served(server, raw("raw_constant:app")))
        few = store_metrics(server, SQL, 5)
        with served(server, TALLY) as tally:
            first = ask(tally, few[0], bearer)
            size, tag = len(first[0]), first[1]
            path = f"/api/v1/metrics/{few[0]}"
            _compare(
                "raw ASGI, constant bytes",
                {
                    "raw ASGI, constant bytes": Case(peer, [get(f"/?{size}", **bearer)]),
                    "the same with Tally's headers": Case(peer, [get(f"/headers?{size}", **bearer)]),
                    "Tally, a hit": Case(tally, [get(path, **bearer)]),
                },
            )
            _compare(
                "raw ASGI, no bytes",
                {
                    "raw ASGI, no bytes": Case(peer, [get("/?0", **bearer)]),
                    "the same with Tally's headers": Case(peer, [get("/headers?0", **bearer)]),
                    "Tally, 304": Case(tally, [get(path, **bearer, **{"If-None-Match": tag})]),
                },
            )
        _many(server, few, bearer)


def _many(server: Server, few: list[str], bearer: dict[str, str]) -> None:
    many = store_metrics(server, SQL, MANY)
    started = time.perf_counter()
    with served(server, TALLY) as tally:
        ask(tally, few[0], bearer)
        print(f"{MANY} metrics: first answer {time.perf_counter() - started:.1f} s after the start")  # noqa: T201 (a script)
        for metric in (*few, *many):
            ask(tally, metric, bearer)
        cases = {
            f"Tally, {len(found)} metrics in rotation": Case(
                tally, [get(f"/api/v1/metrics/{metric}", **bearer) for metric in found]
            )
            for found in (few, many)
        }
        _compare(next(iter(cases)), cases)


def _compare(baseline: str, cases: dict[str, Case]) -> None:
    show_figures(best(cases), baseline)


def store_metrics(server: Server, sql: str, number: int) -> list[str]:
    ids = [str(uuid4()) for _ in range(number)]
    with psycopg.connect(server.owner_url) as connection:
        connection.cursor().executemany(
            "INSERT INTO catalog.query (id, sql) VALUES (%s, %s)", [(each, sql) for each in ids]
        )
        connection.cursor().executemany(
            "INSERT INTO catalog.metric (id, query_id) VALUES (%s, %s)", [(each, each) for each in ids]
        )
    return ids


def ask(port: int, metric: str, bearer: dict[str, str]) -> tuple[bytes, str]:
    """Ask in the words of the load: `urllib` would name a coding, and other words go by the endpoint once."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.putrequest("GET", f"/api/v1/metrics/{metric}", skip_accept_encoding=True)
    for name, value in bearer.items():
        connection.putheader(name, value)
    connection.endheaders()
    with closing(connection), connection.getresponse() as answer:
        return answer.read(), answer.headers["etag"]


if __name__ == "__main__":
    main()
