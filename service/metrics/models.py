"""The shapes of metrics as the catalogue holds them and as callers see them."""

import re
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec import Struct, field

from service.database.reader import Column

_TITLE_COMMENT: Final = re.compile(r"\A\s*--[ \t]*(\S.*?)\s*$", re.MULTILINE)


class Layout(Struct, frozen=True):
    """Where a metric sits at one breakpoint, in grid units (react-grid-layout)."""

    breakpoint: str
    x: int
    y: int
    w: int
    h: int
    static: bool


class Metric(Struct, frozen=True):
    """A metric with its query, as the catalogue holds it."""

    id: UUID
    query_id: str
    sql: str
    trusted: bool
    title: str | None
    is_editable: bool
    fresh_for_s: int | None
    stale_for_s: int | None
    parameters: dict[str, Any]
    version: int
    updated_at: datetime
    layouts: tuple[Layout, ...] = ()

    @property
    def shown_title(self) -> str | None:
        """The title, else the first line of the SQL if that is a comment."""
        if self.title is not None:
            return self.title
        found = _TITLE_COMMENT.match(self.sql)
        return found[1] if found else None


class MetricSummary(Struct, frozen=True, kw_only=True):
    """A metric in a list."""

    id: UUID
    title: str | None
    query_id: str
    is_editable: bool
    layouts: tuple[Layout, ...]


class MetricPage(Struct, frozen=True):
    items: list[MetricSummary]
    next_cursor: str | None


class Result(Struct, frozen=True, kw_only=True):
    """A metric's answer; `records` are objects with the columns as fields, `as_of` is when its run began."""

    id: UUID
    title: str | None
    query_id: str
    is_editable: bool
    layouts: tuple[Layout, ...]
    parameters: dict[str, Any]
    columns: tuple[Column, ...]
    records: list[Any] = field(default_factory=list[Any])
    row_count: int
    truncated: bool
    as_of: datetime


class Definition(Struct, frozen=True, kw_only=True):
    """How a metric is made: `tables` are those that its plan reads, through views."""

    id: UUID
    title: str | None
    query_id: str
    is_editable: bool
    sql: str
    columns: tuple[Column, ...]
    tables: tuple[str, ...]
    estimated_cost: float
    version: int
    updated_at: datetime
