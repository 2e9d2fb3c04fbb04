"""A polled tile against others that serve the same SQL over the same rows, one process each.

`.venv/bin/python -m tests.bench.others`, once `make bench` has made the environment of the peers.
Datasette reads the rows from SQLite, the only thing it reads. The others run the SQL for every request, so
that the ratio grows with what the SQL takes: measured over the alerts of a year, one a day from each of 6
machines, and one an hour.
"""

import json
import sqlite3
import sys
import tempfile
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg

from service.database.embedded import Server
from tests.bench.load import (
    PEERS,
    TALLY,
    Case,
    asked,
    best,
    database,
    get,
    postgraphile,
    served,
    show_figures,
)

BIN = PEERS / ".venv" / "bin"
SIZES = (365 * 6, 365 * 6 * 24)
SQL = "SELECT alert_type, count(*) AS alerts, sum(parts_flagged) AS parts FROM metrics GROUP BY alert_type"


def main() -> None:
    if not BIN.exists():
        sys.exit(f"make {BIN.parent} first: `make bench` does")
    for size in SIZES:
        print(f"{size} rows")  # noqa: T201 (a script)
        _compare(
            [
                (
                    "a",
                    str(date(2025, 1, 1) + timedelta(days=number % 365)),
                    ("Critical", "Warning", "Info")[number % 3],
                    number % 7,
                )
                for number in range(size)
            ]
        )


Row = tuple[str, str, str, int]


def _compare(rows: list[Row]) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(database())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        metric = _fill(server, rows)
        tally = stack.enter_context(served(server, TALLY, AUTH="off"))
        fastapi = stack.enter_context(
            served(
                server,
                (
                    str(BIN / "granian"),
                    *("--interface", "asgi", "--loop", "uvloop", "--no-log", "--port", "{port}"),
                    *("--working-dir", str(PEERS), "fastapi_sqlalchemy:app"),
                ),
                SQL=SQL,
                PYTHONPATH=str(PEERS),
            )
        )
        datasette = stack.enter_context(served(server, _datasette(folder, rows)))
        graphile = stack.enter_context(served(server, postgraphile(server)))
        cases = {
            "Tally": Case(tally, [get(f"/metrics/{metric}", port=tally)]),
            "FastAPI + SQLAlchemy": Case(fastapi, [get("/", port=fastapi)]),
            "Datasette": Case(datasette, [get("/rows/tile.json", port=datasette)]),
            "PostGraphile": Case(graphile, [asked("tileList { alertType alerts parts }", port=graphile)]),
        }
        figures = best(cases)
        for peer in ("FastAPI + SQLAlchemy", "Datasette", "PostGraphile"):
            show_figures({name: figures[name] for name in ("Tally", peer)}, peer)


def _fill(server: Server, rows: list[Row]) -> str:
    metric = str(uuid4())
    with psycopg.connect(server.owner_url) as connection:
        connection.cursor().executemany(
            "INSERT INTO data.metrics (id, date, alert_type, parts_flagged) VALUES (%s, %s, %s, %s)", rows
        )
        connection.execute("CREATE SCHEMA peer")
        connection.execute(
            "CREATE FUNCTION peer.tile() RETURNS TABLE (alert_type text, alerts bigint, parts numeric)"
            f" LANGUAGE sql STABLE SET search_path = data AS $$ {SQL} $$"
        )
        connection.execute("INSERT INTO catalog.query (id, sql) VALUES ('bench', %s)", [SQL])
        connection.execute("INSERT INTO catalog.metric (id, query_id) VALUES (%s, 'bench')", [metric])
    return metric


def _datasette(folder: Path, rows: list[Row]) -> tuple[str, ...]:
    with sqlite3.connect(folder / "rows.db") as connection:
        connection.execute(
            "CREATE TABLE metrics (id text, date text, alert_type text, parts_flagged integer)"
        )
        connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", rows)
    tile = {"databases": {"rows": {"queries": {"tile": {"sql": SQL}}}}}
    (folder / "metadata.json").write_text(json.dumps(tile))
    stored, metadata = str(folder / "rows.db"), str(folder / "metadata.json")
    return (str(BIN / "datasette"), "serve", stored, "--metadata", metadata, "--port", "{port}")


if __name__ == "__main__":
    main()
