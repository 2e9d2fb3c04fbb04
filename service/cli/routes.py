"""Call the service's own routes in this process: all that HTTP passes, without a server and a token."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw, Struct

from service.app import create_app, layered
from service.app.services import Services
from service.cli.opened import database_ready, started
from service.database.gateway import open_database
from service.database.migrate import pending
from service.database.preflight import check_service
from service.errors import InvalidInput, Stop
from service.http import bodies
from service.settings import Auth

T = TypeVar("T")
Message = dict[str, Any]
Write = Callable[[bytes], object]

SERVER_ERROR: Final = 500
FAILED: Final = 400


class Page(Struct):
    items: list[Raw]
    next_cursor: str | None = None


class Wrong(Struct):
    field: str
    message: str


class Refusal(Struct):
    """The parts of a problem document that a sentence needs."""

    detail: str
    errors: list[Wrong] = []


class _Exchange:
    """One request and its response, as ASGI messages."""

    def __init__(self, content: bytes, write: Write | None) -> None:
        self._request: Message | None = {"type": "http.request", "body": content, "more_body": False}
        self._write = write
        self._answered = asyncio.Event()
        self.status = 0
        self.parts: list[bytes] = []
        self.unwritten: OSError | None = None

    async def receive(self) -> Message:
        if self._request is not None:
            request, self._request = self._request, None
            return request
        await self._answered.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        body = message.get("body", b"")
        if self._write is None or self.status >= FAILED:
            self.parts.append(body)
        elif self.unwritten is None:
            try:
                self._write(body)
            except OSError as error:  # the app would take it for its own
                self.unwritten = error
        if not message.get("more_body", False):
            self._answered.set()


class Api:
    """The layers and routes of an app whose lifespan is open."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: object = None,
        accept: str = "application/json",
        write: Write | None = None,
    ) -> bytes:
        """Call a route below `/api/v1`. `write` gets a body in parts; else it is returned whole.

        Raises `Stop` for a problem: status 1 if the service failed, 2 if it refused the input.
        """
        content = b"" if body is None else bodies.encode(body)
        given = {name: value for name, value in (query or {}).items() if value is not None}
        headers = {"host": "localhost", "accept": accept}
        if content:
            headers |= {"content-type": "application/json", "content-length": str(len(content))}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": f"/api/v1{path}",
            "raw_path": quote(f"/api/v1{path}").encode(),
            "query_string": urlencode(given).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "root_path": "",
        }
        exchange = _Exchange(content, write)
        await self._app(scope, exchange.receive, exchange.send)
        if exchange.unwritten is not None:
            raise exchange.unwritten
        answer = b"".join(exchange.parts)
        if exchange.status >= FAILED:
            refusal = msgspec.json.decode(answer, type=Refusal)
            exit_code = 1 if exchange.status >= SERVER_ERROR else 2
            raise Stop(sentence(refusal.detail, refusal.errors), exit_code=exit_code)
        return answer

    async def items(self, path: str, /, **query: str | None) -> list[Raw]:
        """All entries of a list, page by page."""
        found: list[Raw] = []
        cursor: str | None = None
        while True:
            answer = await self.call("GET", path, query={**query, "cursor": cursor})
            page = msgspec.json.decode(answer, type=Page)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found


def sentence(detail: str, errors: list[Wrong]) -> str:
    """The detail of a problem, with the wrong values that it does not tell itself."""
    wrong = "; ".join(f"{each.field}: {each.message}" for each in errors if each.message not in detail)
    return f"{'' if detail == InvalidInput.__doc__ else detail} {wrong}".strip()


def with_api(work: Callable[[Api], Awaitable[T]]) -> T:
    """Open the service in this process, as `serve` would, and run one function on its routes."""
    return _with_app(lambda app: work(Api(layered(app))))


def with_services(work: Callable[[Services], Awaitable[T]]) -> T:
    """The same for a function on the service's parts, where one request is not enough."""
    return _with_app(lambda app: work(app.state.services))


def _with_app(work: Callable[[Any], Awaitable[T]]) -> T:
    settings = started(quiet=True)
    with database_ready(settings) as (ready, _):
        database = ready.database
        if database.reader_url is None:
            raise Stop(
                "READER_DATABASE_URL is needed beside DATABASE_URL: the role that runs stored SQL",
                exit_code=2,
            )
        for obstacle in check_service(database.direct_url or "", database.reader_url):
            raise Stop(obstacle)

        async def run() -> tuple[T, None] | tuple[None, Exception]:
            async with open_database(database.direct_url or "", size=1) as owner:
                if missing := await pending(owner):
                    raise Stop(f"the database lacks migrations ({', '.join(missing)}): run `tally migrate`")
            app = create_app(msgspec.structs.replace(ready, auth=Auth(mode="off")), alerts=False)
            async with app.lifespan():  # an error that left it would come as a group
                try:
                    return await work(app), None
                except Exception as error:  # noqa: BLE001 (raised again outside)
                    return None, error

        found, error = asyncio.run(run())
        if error is not None:
            raise error
        return cast("T", found)
