"""The client for programs with an event loop."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

import httpx

from ._generated.client import AsyncOperations
from ._generated.models import Report
from .answers import Answer
from .base import (
    CACHE_BYTES,
    TIMEOUT_S,
    AsyncToken,
    Date,
    Format,
    Metric,
    Parameters,
    Shared,
    answer_of,
    export_request,
    import_request,
    parsed,
    report_of,
    undecodable,
)
from .credentials import ClientCredentials
from .exchange import AskToken, Call, Exchange, Pause
from .files import Source, opened
from .live import LiveEvent, More, Open, Watching, watching
from .paths import path_of, query_of
from .version import USER_AGENT

T = TypeVar("T")


class AsyncClient(Shared, AsyncOperations):
    """The same as `Client` for programs with an event loop. `token` may be a coroutine function."""

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        *,
        token: AsyncToken = None,
        timeout: float = TIMEOUT_S,
        retries: int = 3,
        longest_wait_s: float = 30.0,
        cache_bytes: int = CACHE_BYTES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(address, retries, longest_wait_s, cache_bytes)
        self._token = token
        headers = {"User-Agent": USER_AGENT}
        self._http = httpx.AsyncClient(
            base_url=self.address, headers=headers, timeout=timeout, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def request(self, method: str, path: str, **request: Any) -> Answer:
        """Any request, with this client's token, memory and errors. `request` is as in httpx."""
        call = {"method": method.upper(), "url": path, **request}
        return await self._run(self._exchange(call, repeatable=False, accepted=()))

    async def import_file(
        self,
        dataset: str,
        source: Source,
        *,
        name: str | None = None,
        dry_run: bool = False,
        mirror: bool = False,
    ) -> Report:
        """Import a file, rows or bytes into a dataset. `name` is the file's name, which the report keeps."""
        with opened(source, name) as file:
            request = import_request(dataset, file, dry_run=dry_run, mirror=mirror)
            return await self._send(request, report_of)

    async def export_metric(
        self,
        metric_id: Metric,
        format: Format = "csv",  # noqa: A002 (the API's name)
        *,
        start_date: Date | None = None,
        end_date: Date | None = None,
        day_range: int | None = None,
        parameters: Parameters | None = None,
        excel: bool | None = None,
        bom: Literal[0, 1] | None = None,
    ) -> bytes:
        """A metric's result as a file."""
        window = {"start_date": start_date, "end_date": end_date, "day_range": day_range}
        params = query_of(parameters, **window, format=format, excel=excel, bom=bom)
        return await self._send(export_request(metric_id, params), lambda answer: answer.content)

    def watch_metric(
        self,
        metric_id: Metric,
        *,
        start_date: Date | None = None,
        end_date: Date | None = None,
        day_range: int | None = None,
        parameters: Parameters | None = None,
        last_event_id: str = "",
    ) -> AsyncGenerator[LiveEvent]:
        """A metric's result now and after each change, until it is deleted. A lost stream is opened again."""
        params = query_of(parameters, start_date=start_date, end_date=end_date, day_range=day_range)
        return self._watch(watching(path_of("metrics", metric_id, "events"), params, last_event_id))

    def watch_metrics(
        self, metric_ids: Iterable[Metric], *, parameters: Parameters | None = None, last_event_id: str = ""
    ) -> AsyncGenerator[LiveEvent]:
        """The same for several metrics in one stream; `parameters` may name a period too."""
        params = query_of(parameters, ids=",".join(map(str, metric_ids)))
        return self._watch(watching(path_of("events"), params, last_event_id))

    def watch_dashboard(
        self, dashboard_id: str, *, parameters: Parameters | None = None, last_event_id: str = ""
    ) -> AsyncGenerator[LiveEvent]:
        """The same for all metrics of a dashboard."""
        path = path_of("dashboards", dashboard_id, "events")
        return self._watch(watching(path, query_of(parameters), last_event_id))

    async def _send(
        self,
        request: dict[str, Any],
        parse: Callable[[Answer], T],
        *,
        repeatable: bool = False,
        accepted: tuple[int, ...] = (),
    ) -> T:
        steps = self._exchange(request, repeatable=repeatable, accepted=accepted)
        return parsed(parse, await self._run(steps))

    async def _run(self, steps: Exchange) -> Answer:
        given: Any = None
        while True:
            try:
                step = steps.send(given)
            except StopIteration as end:
                return cast("Answer", end.value)
            match step:
                case AskToken():
                    given = await self._ask_token()
                case Pause():
                    given = await asyncio.sleep(step.seconds)
                case Call():
                    given = await self._call(step)

    async def _ask_token(self) -> str | None:
        if isinstance(self._token, ClientCredentials):  # it may have to ask for a new one
            return await asyncio.to_thread(self._token)
        token = self._token() if callable(self._token) else self._token
        return await token if inspect.isawaitable(token) else token

    async def _call(self, call: Call) -> Answer | httpx.TransportError:
        try:
            return answer_of(await self._http.request(**call.request))
        except httpx.TransportError as error:
            return error
        except httpx.DecodingError as error:
            raise undecodable(call, error) from error

    async def _watch(self, steps: Watching) -> AsyncGenerator[LiveEvent]:
        given: Any = None
        pieces: Any = None
        async with AsyncExitStack() as stack:
            while True:
                try:
                    step = steps.send(given)
                except StopIteration:
                    return
                given = None
                match step:
                    case LiveEvent():
                        yield step
                    case AskToken():
                        given = await self._ask_token()
                    case Pause():
                        await stack.aclose()
                        await asyncio.sleep(step.seconds)
                    case Open():
                        given, pieces = await self._open(stack, step)
                    case More():
                        given = await self._more(pieces)

    async def _open(self, stack: AsyncExitStack, wanted: Open) -> tuple[Any, Any]:
        try:
            response = await stack.enter_async_context(self._http.stream(**wanted.request))
            if response.status_code == 200 and "event-stream" in response.headers.get("content-type", ""):
                return None, response.aiter_bytes()
            await response.aread()
        except httpx.TransportError as error:
            return error, None
        return answer_of(response), None

    async def _more(self, pieces: Any) -> bytes | None:
        try:
            return await anext(pieces, None)
        except httpx.TransportError:
            return None
