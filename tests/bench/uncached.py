"""A metric that is run for every request, against others that do the same SQL on the same server.

Raw ASGI + asyncpg is the least that could answer; PostGraphile runs the SQL as a function of the database.

`.venv/bin/python -m tests.bench.uncached`
"""

from uuid import uuid4

import psycopg

from tests.bench.load import (
    TALLY,
    Case,
    asked,
    best_rates,
    database,
    get,
    postgraphile,
    raw,
    served,
    show,
)

# Each request has a `turn` of its own, so that none can join another's run.
SQL = "SELECT n, 'row ' || n AS label FROM generate_series(1, :rows::int) AS n WHERE :turn::int > 0"
TURNS = 5000


def main() -> None:
    metric = uuid4()
    with database() as server:
        with psycopg.connect(server.owner_url) as connection:
            connection.execute("INSERT INTO catalog.query (id, sql) VALUES ('bench', %s)", [SQL])
            connection.execute(
                "INSERT INTO catalog.metric (id, query_id, fresh_for_s, stale_for_s)"
                " VALUES (%s, 'bench', 0, 0)",
                [metric],
            )
            connection.execute("CREATE SCHEMA peer")
            connection.execute(
                'CREATE FUNCTION peer.numbers("rows" integer, turn integer)'
                " RETURNS TABLE (n integer, label text) LANGUAGE sql STABLE"
                f" AS $$ {SQL.replace(':rows', '$1').replace(':turn', '$2')} $$"
            )
        with (
            served(server, TALLY, AUTH="off") as tally,
            served(server, raw("raw_asyncpg:app")) as peer,
            served(server, postgraphile(server)) as graphile,
        ):
            for rows in (1, 100):
                turns = range(1, TURNS)
                fresh = [get(f"/metrics/{metric}?rows={rows}&turn={turn}", port=tally) for turn in turns]
                same = [get(f"/{rows}/{turn}") for turn in turns]
                field = f"numbersList(rows: {rows}, turn: %d) {{ n label }}"
                cases = {
                    f"raw ASGI + asyncpg, {rows} rows": Case(peer, same),
                    f"PostGraphile, {rows} rows": Case(
                        graphile, [asked(field % turn, port=graphile) for turn in turns]
                    ),
                    f"Tally uncached, {rows} rows": Case(tally, fresh),
                }
                show(best_rates(cases), f"raw ASGI + asyncpg, {rows} rows")


if __name__ == "__main__":
    main()
