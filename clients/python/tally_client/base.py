"""What both clients share: how requests are written, how answers are read, and what is held."""

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar
from uuid import UUID

import httpx

from ._generated.models import Report
from .answers import Answer
from .errors import UnexpectedAnswerError
from .etags import EtagCache
from .exchange import Call, Exchange, Options, Wanted, base_address, exchange
from .files import File
from .paths import path_of

T = TypeVar("T")

Token = str | Callable[[], str] | None
AsyncToken = str | Callable[[], str | Awaitable[str]] | None
Metric = UUID | str
Date = dt.date | str
Parameters = Mapping[str, Any]
Format = Literal["csv", "ndjson", "json"]

TIMEOUT_S = 30.0
CACHE_BYTES = 16 << 20


def answer_of(response: httpx.Response) -> Answer:
    return Answer(response.status_code, dict(response.headers), response.content, str(response.url))


def parsed(parse: Callable[[Answer], T], answer: Answer) -> T:
    try:
        return parse(answer)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if "json" not in answer.headers.get("content-type", ""):
            raise UnexpectedAnswerError.of(answer) from error
        why = f"it is not as this client knows it ({error!r}): is the service's version another?"
        raise UnexpectedAnswerError.of(answer, why) from error


def report_of(answer: Answer) -> Report:
    return Report.from_dict(answer.json())


def import_request(dataset: str, file: File, *, dry_run: bool, mirror: bool) -> dict[str, Any]:
    params = {name: "true" for name, wanted in (("dry_run", dry_run), ("mirror", mirror)) if wanted}
    timeout = httpx.Timeout(TIMEOUT_S, read=None)  # a large file takes its time
    return {
        "method": "POST",
        "url": path_of("imports", dataset),
        "params": params,
        "files": {"file": file},
        "timeout": timeout,
    }


def export_request(metric_id: Metric, params: dict[str, Any]) -> dict[str, Any]:
    return {"method": "GET", "url": path_of("metrics", metric_id), "params": params}


class Shared:
    """What both clients have: the address, options, and held answers."""

    def __init__(self, address: str, retries: int, longest_wait_s: float, cache_bytes: int) -> None:
        self.address = base_address(address)
        self._options = Options(retries, longest_wait_s)
        self._cache = EtagCache(cache_bytes)

    def _exchange(self, request: dict[str, Any], *, repeatable: bool, accepted: tuple[int, ...]) -> Exchange:
        wanted = Wanted.of(request, repeatable=repeatable, accepted=accepted)
        return exchange(wanted, self._cache, self._options)


def undecodable(call: Call, error: httpx.DecodingError) -> UnexpectedAnswerError:
    return UnexpectedAnswerError(f"the body of {call.request['url']} cannot be decoded: {error}")
