"""A metric that is run for every request, against raw ASGI + asyncpg doing the same SQL on the same server.

`.venv/bin/python -m tests.bench.uncached`
"""

from uuid import uuid4

import psycopg

from tests.bench.load import TALLY, Case, best_rates, database, get, raw, served, show

SQL = "SELECT n, 'row ' || n AS label FROM generate_series(1, :rows::int) AS n"


def main() -> None:
    metric = uuid4()
    with database() as server:
        with psycopg.connect(server.owner_url) as connection:
            connection.execute("INSERT INTO catalog.query (id, sql) VALUES ('bench', %s)", [SQL])
            connection.execute("INSERT INTO catalog.metric (id, query_id) VALUES (%s, 'bench')", [metric])
        with served(server, TALLY) as tally, served(server, raw("raw_asyncpg:app")) as peer:
            for rows in (1, 100):
                fresh = get(f"/metrics/{metric}?rows={rows}", **{"Cache-Control": "no-cache"})
                cases = {
                    f"raw ASGI + asyncpg, {rows} rows": Case(peer, [get(f"/{rows}")]),
                    f"Tally uncached, {rows} rows": Case(tally, [fresh]),
                }
                show(best_rates(cases), f"raw ASGI + asyncpg, {rows} rows")


if __name__ == "__main__":
    main()
