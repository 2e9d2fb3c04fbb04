"""The least that could answer a metric: raw ASGI, asyncpg's pool as it comes, msgspec."""

import os
from typing import Any

import asyncpg
import msgspec

SQL = "SELECT n, 'row ' || n AS label FROM generate_series(1, $1::int) AS n WHERE $2::int > 0"
encoder = msgspec.json.Encoder()
pools: list[Any] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                pools.append(
                    await asyncpg.create_pool(os.environ["READER_DATABASE_URL"], min_size=8, max_size=8)
                )
                await send({"type": "lifespan.startup.complete"})
            else:
                await pools.pop().close()
                await send({"type": "lifespan.shutdown.complete"})
                return
    _, count, turn = scope["path"].split("/")
    rows = await pools[0].fetch(SQL, int(count), int(turn))
    body = encoder.encode({"records": [dict(row) for row in rows]})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
