"""The Structs of metrics, in the catalogue and in the API."""

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import force_setattr

from service.database.stored_sql.describing import ResultColumn
from service.sql.parameters import Declared, Mode, Parameter, Window

_TITLE_COMMENT: Final = re.compile(r"\A\s*--[ \t]*(\S.*)")

GridUnit = Annotated[int, Meta(ge=0, le=10_000_000)]
GridSize = Annotated[int, Meta(ge=1, le=10_000_000)]
Seconds = Annotated[int, Meta(ge=0, le=31_536_000)]
Pause = Annotated[float, Meta(ge=0, le=86_400)]
Title = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
Prompt = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"^[^\x00]*\S[^\x00]*$")]
SqlText = Annotated[str, Meta(min_length=1, max_length=1_000_000)]
DashboardId = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
Breakpoint = Annotated[str, Meta(min_length=1, max_length=20, pattern=r"^[A-Za-z0-9_-]+$")]


def _schema(shape: type[Struct]) -> dict[str, Any]:
    """The JSON Schema of a shape that the API decodes later. OpenAPI shows it."""
    _, shapes = msgspec.json.schema_components((shape,))
    return shapes[shape.__name__]


_DECLARATIONS: Final = Meta(extra_json_schema={"extra": {"additionalProperties": _schema(Declared)}})
Declarations = dict[str, Raw]
"""Declarations of placeholders by name. They stay JSON text, so that no number is rounded."""


class Layout(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a metric sits at one breakpoint, in grid units (react-grid-layout)."""

    breakpoint: Breakpoint
    x: GridUnit
    y: GridUnit
    w: GridSize
    h: GridSize
    static: bool = False


class DashboardPlace(Struct, frozen=True, forbid_unknown_fields=True):
    """A metric's place on a dashboard. Without `x` and `y` a free place is found."""

    id: DashboardId
    x: GridUnit | None = None
    y: GridUnit | None = None
    w: GridSize = 6
    h: GridSize = 8
    breakpoint: Breakpoint = "lg"

    def __post_init__(self) -> None:
        if (self.x is None) is not (self.y is None):
            raise ValueError("give both `x` and `y`, or neither")


class Metric(Struct, frozen=True):
    """A metric with its query, as stored in the catalogue."""

    id: UUID
    query_id: str
    sql: str
    trusted: bool
    title: str | None
    is_editable: bool
    fresh_for_s: int | None
    stale_for_s: int | None
    parameters: Declarations
    window: Mode
    version: int
    updated_at: datetime
    refresh_every_s: float | None = None
    layouts: tuple[Layout, ...] = ()

    def __post_init__(self) -> None:
        _read_parameters(self)

    @property
    def shown_title(self) -> str | None:
        """The title. Without a title, the first line of the SQL if it is a comment."""
        if self.title is not None:
            return self.title
        found = _TITLE_COMMENT.match(self.sql)
        return found[1].rstrip() if found else None


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
    """A metric's result. `records` are objects with the columns as fields. `as_of` is when the run began."""

    id: UUID
    title: str | None
    query_id: str
    is_editable: bool
    layouts: tuple[Layout, ...]
    parameters: dict[str, Any]
    columns: tuple[ResultColumn, ...]
    records: list[Any]
    row_count: int
    truncated: bool
    as_of: datetime


class Definition(Struct, frozen=True, kw_only=True):
    """The definition of a metric. `tables` are the tables that its plan reads, also through views.

    `window` tells whether callers may choose the reporting period, and if not, why.
    """

    id: UUID
    title: str | None
    query_id: str
    is_editable: bool
    sql: str
    parameters: tuple[Parameter, ...]
    window: Window
    columns: tuple[ResultColumn, ...]
    tables: tuple[str, ...]
    estimated_cost: float
    fresh_for_s: int | None
    stale_for_s: int | None
    refresh_every_s: float | None
    layouts: tuple[Layout, ...]
    version: int
    updated_at: datetime


class NewMetric(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new metric, from either `sql` or a `prompt`. `parameters` declares placeholders of the SQL.

    `dashboards` puts it on these dashboards, `layouts` on the dashboard `default`.
    With `fallback`, rules write the SQL of a prompt when the language model fails. With `window` "off",
    callers cannot change the dates in the SQL. `refresh_every_s` is the least pause between live refreshes.
    """

    sql: SqlText | None = None
    prompt: Prompt | None = None
    fallback: bool = False
    title: Title | None = None
    is_editable: bool = True
    layouts: tuple[Layout, ...] = ()
    dashboards: Annotated[tuple[DashboardPlace, ...], Meta(max_length=100)] = ()
    fresh_for_s: Seconds | None = None
    stale_for_s: Seconds | None = None
    refresh_every_s: Pause | None = None
    parameters: Annotated[Declarations, _DECLARATIONS] = {}
    window: Mode = "auto"


class MetricDraft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric that is tried before it is stored. `parameters` declares placeholders of the SQL."""

    sql: SqlText
    title: Title | None = None
    parameters: Annotated[Declarations, _DECLARATIONS] = {}
    window: Mode = "auto"


class MetricChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields to change. Other fields keep their values. A `prompt` replaces SQL, parameters and title.

    With `window` "off", callers cannot change the dates in the SQL. With "auto" they can, if all dates of the
    statement move together.
    """

    sql: SqlText | UnsetType = UNSET
    prompt: Prompt | UnsetType = UNSET
    fallback: bool = False
    title: Title | UnsetType | None = UNSET
    is_editable: bool | UnsetType = UNSET
    layouts: tuple[Layout, ...] | UnsetType = UNSET
    fresh_for_s: Seconds | UnsetType | None = UNSET
    stale_for_s: Seconds | UnsetType | None = UNSET
    refresh_every_s: Pause | UnsetType | None = UNSET
    parameters: Annotated[Declarations | UnsetType, _DECLARATIONS] = UNSET
    window: Mode | UnsetType = UNSET


class MetricMade(Struct, frozen=True, kw_only=True):
    """A created metric. `generator` tells what wrote its SQL."""

    id: UUID
    title: str | None
    query_id: str
    sql: str
    parameters: tuple[Parameter, ...]
    columns: tuple[ResultColumn, ...]
    generator: str


class Version(Struct, frozen=True):
    """A version of a metric. `replaced_at` is null for the current version."""

    version: int
    title: str | None
    sql: str
    is_editable: bool
    fresh_for_s: int | None
    stale_for_s: int | None
    parameters: Declarations
    window: Mode
    refresh_every_s: float | None
    replaced_at: datetime | None

    def __post_init__(self) -> None:
        _read_parameters(self)


def _read_parameters(row: Metric | Version) -> None:
    """Decode declarations, which the database returns as text."""
    text = cast("object", row.parameters)
    if isinstance(text, str):
        force_setattr(row, "parameters", msgspec.json.decode(text, type=Declarations))


class VersionList(Struct, frozen=True):
    items: list[Version]


class BatchEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One metric to run. `id` is text, so that the error can quote a malformed id."""

    id: str
    parameters: dict[str, Any] = {}


class Batch(Struct, frozen=True, forbid_unknown_fields=True):
    """Entries as raw JSON, so that each is decoded and fails alone."""

    metrics: Annotated[
        tuple[Raw, ...],
        Meta(min_length=1, max_length=100, extra_json_schema={"extra": {"items": _schema(BatchEntry)}}),
    ]


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """A metric's place in a dashboard's layouts. `i` is the metric's id. A null `static` means false."""

    i: UUID
    x: GridUnit
    y: GridUnit
    w: GridSize
    h: GridSize
    static: bool | None = False


Places = dict[Breakpoint, list[Place]]


Chart = Literal["number", "line", "bar", "stacked", "table"]


class DashboardItem(Struct, frozen=True):
    """A metric on a dashboard. `chart` is how it is drawn; null follows the shape of its result."""

    id: UUID
    title: str | None
    query_id: str
    is_editable: bool
    chart: Chart | None = None


class TileChange(Struct, frozen=True, forbid_unknown_fields=True):
    """How a dashboard draws a metric. Null follows the shape of the result."""

    chart: Chart | None


class DashboardView(Struct, frozen=True):
    """A dashboard's metrics and, by breakpoint, their places (react-grid-layout)."""

    id: str
    title: str | None
    items: list[DashboardItem]
    layouts: dict[str, list[Place]]


class NewDashboard(Struct, frozen=True, forbid_unknown_fields=True):
    """A new dashboard. Without an `id` it gets one from its title."""

    title: Title
    id: DashboardId | None = None


class DashboardChange(Struct, frozen=True, forbid_unknown_fields=True):
    title: Title


class DashboardSummary(Struct, frozen=True):
    id: str
    title: str | None
    metrics: int


class DashboardPage(Struct, frozen=True):
    items: list[DashboardSummary]
    next_cursor: str | None
