"""What assistants may read: metrics, their results and definitions, and drafts for their prompts."""

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from service.auth.guards import TakeMetric
from service.auth.tokens import Principal
from service.errors import FieldError, InvalidInput
from service.http.cursors import page_of, read_cursor
from service.http.fields import ANY
from service.http.ids import read_uuid
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.metrics.models import Definition, Metric
from service.metrics.notices import Given
from service.results.cache import Results
from service.results.table import CacheOutcome

SCHEME: Final = "tally"
PLACE: Final = "metrics"
TEMPLATE: Final = f"{SCHEME}://{PLACE}/{{id}}{{?parameters*}}"
LONGEST_URI: Final = 8_000

Draft = Callable[[str, bool], Awaitable[Struct]]
"""Drafts a metric for a prompt, by rules if a model fails and the flag is set. Stores nothing."""


class Found(Struct, frozen=True):
    """A result as JSON. `ttl_ms` is for how long a client may use it without asking again."""

    body: bytes
    ttl_ms: int
    stale_s: int


class Listed(Struct, frozen=True):
    """A metric in a list."""

    id: UUID
    title: str | None
    query_id: str
    uri: str


class Page(Struct, frozen=True):
    items: list[Listed]
    next_cursor: str | None


class Library:
    """Reads for a caller. `take` counts each metric that it asks for."""

    def __init__(
        self, catalog: Catalog, executor: Executor, results: Results, draft: Draft, take: TakeMetric
    ) -> None:
        self.take = take
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self.draft = draft

    def page(self, search: str, cursor: str | None, limit: int) -> Page:
        """Metrics whose title or query contains `search`, in the order of their ids."""
        after = read_cursor(cursor, UUID)
        word = search.casefold()
        found = [each for each in self._catalog.page(after, _ALL) if _matches(each, word)]
        found, following = page_of(found, limit)
        items = [Listed(each.id, each.shown_title, each.query_id, uri_of(each.id)) for each in found]
        return Page(items, following)

    def metric(self, metric_id: UUID) -> Metric:
        """Raises `NotFound`."""
        return self._catalog.get(metric_id)

    async def definition(self, metric_id: UUID, caller: Principal) -> Definition:
        self.take(caller.subject, metric_id)
        return (await self._executor.prepare(self._catalog.get(metric_id))).definition()

    async def result(self, metric_id: UUID, given: Given, caller: Principal) -> Found:
        """The result of a stored metric, as a GET gives it. Raises the same problems."""
        self.take(caller.subject, metric_id)
        metric = self._catalog.get(metric_id)
        request = await self._executor.cache_request(metric, given, claims=caller.claims)
        outcome = await self._results.get(request, ANY)
        body = outcome.entry.body
        return Found(body, _ttl_ms(outcome, self._results.clock()), outcome.stale_s)


_ALL: Final = 1 << 40


def _matches(metric: Metric, word: str) -> bool:
    return word in (metric.shown_title or "").casefold() or word in metric.query_id.casefold()


def _ttl_ms(outcome: CacheOutcome, now: float) -> int:
    """The rest of what `max-age` allows a client of HTTP."""
    policy = outcome.entry.policy
    return 0 if outcome.stale_s else max(0, int((policy.made_at + policy.max_age - now) * 1000))


def uri_of(metric_id: UUID) -> str:
    return f"{SCHEME}://{PLACE}/{metric_id}"


def read_uri(uri: str) -> tuple[UUID, list[tuple[str, str]]]:
    """The metric and the parameters of a resource. Raises `InvalidInput`."""
    wrong = InvalidInput(errors=(FieldError("uri", f"{uri[:80]!r} is not {TEMPLATE}"),))
    try:
        # `urlsplit` leaves out line breaks and tabs, wherever they stand.
        parts = urlsplit("" if len(uri) > LONGEST_URI or min(uri, default="") < " " else uri)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise wrong from None
    metric_id = read_uuid(parts.path.removeprefix("/"))
    if (parts.scheme, parts.netloc, parts.fragment) != (SCHEME, PLACE, "") or metric_id is None:
        raise wrong
    if len({name for name, _ in pairs}) != len(pairs):
        raise InvalidInput(errors=(FieldError("uri", "a parameter is given more than once"),))
    return metric_id, pairs


def first_rows(body: bytes, most: int) -> Raw:
    """The JSON of a result with up to `most` records. `omitted_rows` tells how many more there are."""
    count = msgspec.json.decode(body, type=_Count).row_count
    if count <= most:
        return Raw(body)
    fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Raw])
    fields["records"] = msgspec.json.decode(fields["records"], type=list[Raw])[:most]
    return Raw(msgspec.json.encode(fields | {"omitted_rows": count - most}))


class _Count(Struct, frozen=True):
    row_count: int
