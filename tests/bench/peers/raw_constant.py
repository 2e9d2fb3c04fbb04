"""Raw ASGI that sends constant bytes, as many as the query string says: what the server can do at most.

At `/headers` the eight headers come along that Tally's contract adds to an answer, as constants too.
"""

from functools import cache
from typing import Any

CONTRACT = [
    (b"etag", b'"%032x"' % 0),
    (b"cache-control", b"private, max-age=0, stale-while-revalidate=300, stale-if-error=86400"),
    (b"vary", b"Accept, Accept-Encoding"),
    (b"age", b"0"),
    (b"cache-status", b"tally; hit"),
    (b"server-timing", b"hit"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-request-id", b"%032x" % 0),
]


@cache
def answer(path: str, length: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
    return headers + CONTRACT * (path == "/headers"), b"x" * length


async def app(scope: Any, _receive: Any, send: Any) -> None:
    headers, body = answer(scope["path"], int(scope["query_string"] or 0))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
