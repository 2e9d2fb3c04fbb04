"""Counted interactions and the datasets' figures over HTTP."""

from collections.abc import Awaitable, Callable, Hashable
from datetime import date
from typing import Annotated, Any, Final, cast

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter
from litestar.response.base import ASGIResponse
from msgspec import Struct

from service.errors import (
    DatabaseUnavailable,
    FieldError,
    InvalidInput,
    NotFound,
    QueryTimeout,
    ResultTooLarge,
)
from service.http.asgi import Scope
from service.http.cursors import Cursor, read_id_cursor
from service.http.ids import parse_number
from service.http.requests import Call
from service.interactions import store
from service.interactions.counts import COUNTED, EVERYTHING, Counts
from service.interactions.models import CustomerAnswer, Dimension, Filters, InteractionPage, Stats, Totals

MAX_PAGE: Final = 200
DIMENSIONS: Final[tuple[Dimension, ...]] = ("channel", "customer_type", "product")
TOPIC: Final = (
    "A product of discussion is known by month only, so an interaction counts for every product of its "
    "calendar month: where a month has several, each of them counts it, and the products add up to more than "
    "there were interactions. Without a product in its month it counts for none, under `null`."
)
EXAMPLE: Final[dict[str, Any]] = {"customer_id": 1, "interactions": {"Email": 1, "Call": 0, "Bird": 0}}

STATS_EXAMPLE: Final[dict[str, Any]] = {
    "rows": 594,
    "first_date": "2025-01-02",
    "last_date": "2025-12-31",
    "distinct_keys": 594,
    "waiting_rows": 14,
}
PROBLEMS: Final = (QueryTimeout, DatabaseUnavailable)


CustomerId = Annotated[
    str, PathParameter(description="a positive integer", schema_extra={"pattern": "^[0-9]*[1-9][0-9]*$"})
]
Dimensions = Annotated[
    str,
    PathParameter(
        description=f"one or several of {', '.join(DIMENSIONS)}, with commas; each next one is nested",
        schema_extra={"pattern": f"^({'|'.join(DIMENSIONS)})(,({'|'.join(DIMENSIONS)}))*$"},
    ),
]
Channel = Annotated[
    list[str] | None,
    QueryParameter(description="count this channel only; may be repeated. The others stay, with 0."),
]
CustomerType = Annotated[str | None, QueryParameter(description="only customers of this type")]
Product = Annotated[
    str | None, QueryParameter(description="only interactions of months with this product of discussion")
]
StartDate = Annotated[
    str | None,
    QueryParameter(description="first day that counts, such as 2025-06-01", schema_extra={"format": "date"}),
]
EndDate = Annotated[
    str | None,
    QueryParameter(description="last day that counts, such as 2025-06-30", schema_extra={"format": "date"}),
]


class InteractionsController(Controller):
    path = "/interactions"
    tags = ("interactions",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/{customer_id:str}",
        operation_id="getCustomerInteractions",
        summary="How often a customer was in touch, per channel",
        description="Every known channel is there, in the order in which they first appeared.",
        responses={200: ResponseSpec(CustomerAnswer, generate_examples=False, description="Counts")},
        opt={"problems": (NotFound, *PROBLEMS), "example": {"data": EXAMPLE}},
    )
    async def of_customer(
        self,
        *,
        customer_id: CustomerId,
        request: Call,
        counts: NamedDependency[Counts],
        channel: Channel = None,
        product: Product = None,
        start_date: StartDate = None,
        end_date: EndDate = None,
    ) -> ASGIResponse:
        number = parse_number(customer_id, "customer_id")
        asked = _filters(channel=channel, product=product, start_date=start_date, end_date=end_date)
        return await _answer(counts, request, store.of_customer, number, asked)

    @get(
        "/",
        operation_id="listCustomerInteractions",
        summary="How often each customer was in touch, per channel, paged",
        description="Customers in the order of their ids, also those who never were, with zeros.",
        responses={200: ResponseSpec(InteractionPage, generate_examples=False, description="Counts")},
        opt={"problems": PROBLEMS, "example": {"items": [EXAMPLE], "next_cursor": None}},
    )
    async def page(
        self,
        *,
        request: Call,
        counts: NamedDependency[Counts],
        customer_type: CustomerType = None,
        channel: Channel = None,
        product: Product = None,
        start_date: StartDate = None,
        end_date: EndDate = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="items in a page")] = 50,
        cursor: Cursor = None,
    ) -> ASGIResponse:
        asked = _filters(
            channel=channel,
            customer_type=customer_type,
            product=product,
            start_date=start_date,
            end_date=end_date,
        )
        after = read_id_cursor(cursor, 0)
        return await _answer(counts, request, store.page, after, limit, asked)

    @get(
        "/by/{dimensions:str}",
        operation_id="getInteractionTotals",
        summary="How many interactions there were by channel, type of customer, product or their cross",
        description=f"Channels are all there; types and products if they count something. {TOPIC}",
        responses={200: ResponseSpec(Totals, generate_examples=False, description="Totals")},
        opt={
            "problems": (ResultTooLarge, *PROBLEMS),
            "example": {"data": {"Manufacturer": {"Parts search": 12, "null": 3}}},
        },
    )
    async def totals(
        self,
        *,
        dimensions: Dimensions,
        request: Call,
        counts: NamedDependency[Counts],
        customer_type: CustomerType = None,
        channel: Channel = None,
        product: Product = None,
        start_date: StartDate = None,
        end_date: EndDate = None,
    ) -> ASGIResponse:
        by = parse_dimensions(dimensions)
        asked = _filters(
            channel=channel,
            customer_type=customer_type,
            product=product,
            start_date=start_date,
            end_date=end_date,
        )
        return await _answer(counts, request, store.totals, by, asked)


class StatsController(Controller):
    path = "/stats"
    tags = ("interactions",)
    opt = {"scope": "metrics:read"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/",
        operation_id="getStatistics",
        summary="Rows, dates and keys of each dataset, and how many rows of it wait in quarantine",
        responses={200: ResponseSpec(Stats, generate_examples=False, description="Figures")},
        opt={"problems": PROBLEMS, "example": {"data": {"external_interactions": STATS_EXAMPLE}}},
    )
    async def stats(self, request: Call, counts: NamedDependency[Counts]) -> ASGIResponse:
        return await _answer(counts, request, store.stats, tables=EVERYTHING)


async def _answer(
    counts: Counts,
    request: Call,
    ask: Callable[..., Awaitable[Struct]],
    *args: Hashable,
    tables: tuple[str, ...] = COUNTED,
) -> ASGIResponse:
    reply = await counts.reply(cast("Scope", request.scope), ask, *args, tables=tables)
    return ASGIResponse(body=reply.body, media_type=reply.headers["content-type"], headers=reply.headers)


def parse_dimensions(text: str) -> tuple[Dimension, ...]:
    given = text.split(",")
    by: tuple[Dimension, ...] = tuple(name for part in given for name in DIMENSIONS if name == part)
    if len(set(by)) < len(given):
        message = f"{text[:60]!r} is not one or several of {', '.join(DIMENSIONS)}, each once"
        raise InvalidInput(errors=(FieldError("dimensions", message),))
    return by


def parse_day(field: str, text: str | None) -> date | None:
    try:
        return msgspec.convert(text, date | None)
    except msgspec.ValidationError:
        message = f"{text!r:.60} is not a day such as 2025-06-30"
        raise InvalidInput(errors=(FieldError(field, message),)) from None


def _filters(
    *,
    channel: list[str] | None,
    customer_type: str | None = None,
    product: str | None,
    start_date: str | None,
    end_date: str | None,
) -> Filters:
    return Filters(
        channels=None if channel is None else tuple(channel),
        customer_type=customer_type,
        product=product,
        start_date=parse_day("start_date", start_date),
        end_date=parse_day("end_date", end_date),
    )
