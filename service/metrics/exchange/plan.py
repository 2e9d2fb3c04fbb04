"""What a file of another tool asks for, the same for all tools: metrics, places, and what is left out."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final, Literal, cast

from msgspec import Struct

from service.errors import Stop
from service.metrics.models import Chart

COLUMNS: Final = 12
ROW_PX: Final = 36
"""Height of a row of the page's grid, with the gap below it."""
TILES_LIMIT: Final = 1000
TITLE_LIMIT: Final = 255
NUL: Final = "\0"
DEPTH_LIMIT: Final = 100
_DIGITS: Final = 1000

ParameterKind = Literal["text", "number", "date", "timestamp"]


class NotTaken(Exception):  # noqa: N818 (it names what happens)
    """A query, or something else of a file, cannot be taken. Its text is the reason."""


class Parameter(Struct, frozen=True):
    """A parameter of a metric-to-be. `kind` is what the other tool says; Postgres may know better.

    With a null `default` callers may omit it. Without `has_default` they have to give it.
    """

    name: str
    kind: ParameterKind = "text"
    array: bool = False
    values: tuple[str, ...] = ()
    default: str | list[str] | None = None
    has_default: bool = False


class Place(Struct, frozen=True):
    """A place in the grid of 12 columns, in rows of `ROW_PX`."""

    x: int
    y: int
    w: int
    h: int


class Query(Struct, frozen=True, kw_only=True):
    """A metric-to-be. `key` tells where it comes from, and stands in the first line of its SQL."""

    key: str
    title: str
    description: str = ""
    sql: str
    parameters: tuple[Parameter, ...] = ()
    place: Place | None = None
    chart: Chart | None = None
    notes: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The key as a comment of one line."""
        return f"-- {' '.join(self.key.replace(NUL, '').split())}"

    @property
    def commented(self) -> str:
        """The SQL below comments that tell its origin and what it is about."""
        lines = self.description.replace(NUL, "").splitlines()
        return "\n".join([self.origin, *(f"-- {line}".rstrip() for line in lines), self.sql])


class LeftOut(Struct, frozen=True):
    """Something of the file that is not taken, and why."""

    title: str
    why: str


class Plan(Struct, frozen=True):
    """All of a file. `title` is that of its dashboard."""

    tool: str
    title: str
    queries: list[Query]
    left_out: list[LeftOut]

    @property
    def bounded(self) -> "Plan":
        """The plan without what is above the limit, since one part of a file may show many queries."""
        if not (more := len(self.queries[TILES_LIMIT:])):
            return self
        left_out = LeftOut(f"{more} more", f"only {TILES_LIMIT} queries of a file are taken")
        return Plan(self.tool, self.title, self.queries[:TILES_LIMIT], [*self.left_out, left_out])


class Node:
    """A value of a JSON document that nobody has checked: anything missing or of another type is empty."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, name: str) -> "Node":
        return Node(self.fields.get(name))

    def __bool__(self) -> bool:
        return bool(self.value)

    def __iter__(self) -> Iterator["Node"]:
        return (Node(each) for each in cast("list[Any]", self.value)) if self.is_list else iter(())

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)

    @property
    def fields(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.value) if isinstance(self.value, dict) else {}

    @property
    def text(self) -> str:
        """A string, or a number as text; else empty."""
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, bool) or not isinstance(self.value, int | float | Decimal):
            return ""
        exact = self.value if isinstance(self.value, Decimal) else Decimal(str(self.value))
        if not exact.is_finite() or abs(exact.adjusted()) > _DIGITS:
            return str(exact)
        text = format(exact, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text

    @property
    def number(self) -> int:
        """A number as an integer of a reasonable size; else 0."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float | Decimal):
            return 0
        return int(max(-1e6, min(1e6, self.value)))


class Grid(Struct, frozen=True):
    """The grid of another tool: its columns and the height of its rows in pixels."""

    columns: int
    row_px: int

    def place(self, x: int, y: int, w: int, h: int) -> Place:
        """The same place in our grid. Tiles that touch go on to touch."""
        left, right = (round(max(0, each) * COLUMNS / self.columns) for each in (x, x + max(1, w)))
        top, bottom = (round(max(0, each) * self.row_px / ROW_PX) for each in (y, y + max(1, h)))
        left = min(left, COLUMNS - 1)
        return Place(left, top, max(1, min(right, COLUMNS) - left), max(1, bottom - top))


def title_of(text: str, otherwise: str) -> str:
    """A title in one line that can be stored."""
    line = " ".join(text.replace(NUL, "").split())
    return line[:TITLE_LIMIT] or otherwise


def limited(parts: list[Node], left_out: list[LeftOut]) -> list[Node]:
    """The parts of a file that are read; the number of all others is left out."""
    if more := len(parts[TILES_LIMIT:]):
        left_out.append(LeftOut(f"{more} more", f"only {TILES_LIMIT} parts of a file are read"))
    return parts[:TILES_LIMIT]


def looks_like(document: Node) -> str:
    """The tool that a document comes from; empty if we cannot tell."""
    first = next(iter(document), document)
    board = first["dashboard"] if first["dashboard"].fields else first
    if "panels" in board.fields or "templating" in board.fields or "schemaVersion" in board.fields:
        return "grafana"
    if first["apiVersion"].text.startswith("dashboard.grafana") or first["spec"]["elements"].fields:
        return "grafana"
    if {"dashcards", "ordered_cards", "dataset_query"} & first.fields.keys():
        return "metabase"
    if "widgets" in first.fields or ("query" in first.fields and "data_source_id" in first.fields):
        return "redash"
    if first["results"].is_list:
        return looks_like(first["results"])
    return ""


def expect(tool: str, document: Node) -> None:
    """Refuse a document of another tool, or of none. Raises `Stop`."""
    found = looks_like(document)
    if found == tool:
        return
    if found:
        raise Stop(f"this looks like an export of {found.capitalize()}: use `tally add {found}`", exit_code=2)
    raise Stop(f"this is no export of {tool.capitalize()} that we know: {EXPECTED[tool]}", exit_code=2)


EXPECTED: Final = {
    "redash": "give the answer of GET /api/dashboards/ID, or of /api/queries/ID or /api/queries",
    "grafana": "give a dashboard's JSON model (Share, Export, or GET /api/dashboards/uid/UID)",
    "metabase": "give the answer of GET /api/dashboard/ID, or of /api/card/ID",
}
