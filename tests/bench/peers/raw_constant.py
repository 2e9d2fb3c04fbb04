"""Raw ASGI that sends constant bytes, as many as the query string says: what the server can do at most."""

from functools import cache
from typing import Any


@cache
def answer(length: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
    return headers, b"x" * length


async def app(scope: Any, _receive: Any, send: Any) -> None:
    headers, body = answer(int(scope["query_string"] or 0))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
