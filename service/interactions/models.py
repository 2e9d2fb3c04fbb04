"""The shapes of counted interactions, of what they are filtered by, and of the data's own figures."""

from datetime import date
from typing import Annotated, Literal

from msgspec import Meta, Struct

Dimension = Literal["channel", "customer_type", "product"]
Day = Annotated[str, Meta(extra_json_schema={"format": "date"})]
Nested = dict[str, int | dict[str, int | dict[str, int]]]
"""A number under each label, one level for each dimension."""


class Filters(Struct, frozen=True):
    """Which interactions count; null is no filter, and both days count."""

    channels: tuple[str, ...] | None = None
    customer_type: str | None = None
    product: str | None = None
    start_date: date | None = None
    end_date: date | None = None


class CustomerInteractions(Struct, frozen=True):
    """How often a customer was in touch: every known channel, in order of first appearance."""

    customer_id: int
    interactions: dict[str, int]


class CustomerAnswer(Struct, frozen=True):
    data: CustomerInteractions


class InteractionPage(Struct, frozen=True):
    items: list[CustomerInteractions]
    next_cursor: str | None


class Totals(Struct, frozen=True):
    data: Nested


class DatasetStats(Struct, frozen=True):
    """A dataset's figures; `distinct_keys` counts natural keys, or ids where rows are facts without a key.

    `waiting_rows` are in quarantine.
    """

    rows: int
    first_date: Day | None
    last_date: Day | None
    distinct_keys: int
    waiting_rows: int


class Stats(Struct, frozen=True):
    data: dict[str, DatasetStats]
