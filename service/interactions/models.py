"""The Structs of counts, of their filters and of dataset figures."""

from datetime import date
from typing import Annotated, Literal

from msgspec import Meta, Struct

Dimension = Literal["channel", "customer_type", "product"]
Day = Annotated[str, Meta(extra_json_schema={"format": "date"})]
Nested = dict[str, int | dict[str, int | dict[str, int]]]
"""Counts by label, with one level for each dimension."""


class Filters(Struct, frozen=True):
    """Filters of interactions. Null means no filter. The first and the last day are included."""

    channels: tuple[str, ...] | None = None
    customer_type: str | None = None
    product: str | None = None
    start_date: date | None = None
    end_date: date | None = None


class CustomerInteractions(Struct, frozen=True):
    """Interactions of a customer by channel: all known channels, in order of first appearance."""

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
    """A dataset's figures. `distinct_keys` counts natural keys, or ids if the rows are facts without a key.

    `waiting_rows` counts rows in quarantine.
    """

    rows: int
    first_date: Day | None
    last_date: Day | None
    distinct_keys: int
    waiting_rows: int


class Stats(Struct, frozen=True):
    data: dict[str, DatasetStats]
