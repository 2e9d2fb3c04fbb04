"""The Structs of imports in the API that no other module needs."""

from typing import Any

from msgspec import Struct

from service.imports.quarantine import QuarantinedRow
from service.imports.run.imports import Report


class RunPage(Struct, frozen=True):
    items: list[Report]
    next_cursor: str | None


class QuarantinePage(Struct, frozen=True):
    items: list[QuarantinedRow]
    next_cursor: str | None


class Fix(Struct, frozen=True, forbid_unknown_fields=True):
    """New values by heading. Other columns keep their values."""

    raw: dict[str, Any]


class DatasetSummary(Struct, frozen=True):
    name: str
    table: str
    description: str
    key: tuple[str, ...]


class DatasetPage(Struct, frozen=True):
    items: list[DatasetSummary]
    next_cursor: str | None
