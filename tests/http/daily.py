"""A table of daily numbers, rules on it, and their alerts."""

import msgspec

from service.alerts import evaluate
from service.database.queries import Command
from tests.waiting import until


class Number(msgspec.Struct):
    n: int


TABLE = Command("t", "CREATE TABLE data.daily (day date, channel text, n bigint, PRIMARY KEY (day, channel))")
READ = Command("r", "GRANT SELECT ON data.daily TO PUBLIC")
WATCH = Command("w", "SELECT app.watch('data.daily')")
PUT = Command(
    "p",
    "INSERT INTO data.daily VALUES ($1::text::date, $2, $3)"
    " ON CONFLICT (day, channel) DO UPDATE SET n = excluded.n",
)
SQL = "SELECT day, channel, n FROM daily ORDER BY day, channel"


async def make_daily(clone, monkeypatch):
    """Make the table, and let rules be evaluated at once. Returns a function that writes rows."""
    monkeypatch.setattr(evaluate, "LEAST_PAUSE_S", 0.05)
    monkeypatch.setattr(evaluate, "SHARE", 1)
    for each in (TABLE, READ, WATCH):
        await clone.write(each)

    async def put(*rows):
        async with clone.transaction() as tx:
            for day, channel, n in rows:
                await tx.write(PUT, day, channel, n)

    return put


async def create(client, metric, **fields):
    body = {"name": "Many", "metric_id": metric, "column": "n", "kind": "threshold", "above": 100} | fields
    answer = await client.post("/api/v1/alerts/rules", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def alerts(client, **query):
    answer = await client.get("/api/v1/alerts", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def in_state(client, state, number=1):
    async def found():
        listed = await alerts(client, state=[state])
        return listed if len(listed) == number else None

    return await until(found)
