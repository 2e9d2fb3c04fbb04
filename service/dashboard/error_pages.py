"""Answer errors as pages where a browser shows them. Programs get problem documents."""

from typing import Any, Final

import msgspec

from service.dashboard.pages import HTML, Pages, headers, prefers_html
from service.errors import Problem, problems_by_code
from service.http.asgi import SAFE_METHODS, App, Message, Receive, Refuse, Scope, Send, header_of

LINKED: Final = "/s/"
"""How the addresses of signed links begin."""
PROBLEM: Final = b"application/problem+json"
_KINDS: Final = problems_by_code()


class ErrorPages:
    """ASGI layer: turns a problem document into a page, if a browser asked for one by an address."""

    def __init__(self, app: App, pages: Pages) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _shows_pages(scope):
            await self._app(scope, receive, send)
            return
        started: Message | None = None

        async def told(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                if (b"content-type", PROBLEM) not in _lower(message["headers"]):
                    await send(message)
                else:
                    started = message
            elif started is None:
                await send(message)
            else:
                await self._send(scope, send, started, message["body"])

        await self._app(scope, receive, told)

    async def _send(self, scope: Scope, send: Send, start: Message, document: bytes) -> None:
        body = self._page(scope, msgspec.json.decode(document)).encode()
        # A link that has ended says so within its frame. The page of an error holds nothing else.
        ancestors = "*" if scope["path"].startswith(LINKED) else "'none'"
        fields = headers(frame_ancestors=ancestors)
        own = {name.lower().encode(): value.encode() for name, value in fields.items()}
        kept = [
            (name, value)
            for name, value in start["headers"]
            if name.lower() not in {*own, b"content-type", b"content-length"}
        ]
        await send(
            {**start, "headers": [*kept, *own.items(), (b"content-type", f"{HTML}; charset=utf-8".encode())]}
        )
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _page(self, scope: Scope, document: dict[str, Any]) -> str:
        kind = _KINDS.get(document["code"], Problem)
        problem = kind(document["detail"])
        return self._pages.problem(
            problem,
            linked=scope["path"].startswith(LINKED),
            request_id=document.get("request_id", ""),
            principal=scope["state"].get("principal"),
        )

    def refusing(self, refuse: Refuse) -> Refuse:
        """A function that sends problems like `refuse`, as pages where a browser asked for one."""

        async def send_page(scope: Scope, send: Send, problem: Problem) -> None:
            async def refused(scope: Scope, _receive: Receive, send: Send) -> None:
                await refuse(scope, send, problem)

            await ErrorPages(refused, self._pages)(scope, _nothing, send)

        return send_page


def _shows_pages(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] in SAFE_METHODS
        and prefers_html(header_of(scope, b"accept"))
    )


def _lower(lines: Any) -> list[tuple[bytes, bytes]]:
    return [(bytes(name).lower(), bytes(value)) for name, value in lines]


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
