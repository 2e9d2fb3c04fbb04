"""Where the tiles of a dashboard sit: react-grid-layout's places, moved up until nothing is between them.

Pure. The page gets the cells as CSS rules, so that the first paint has every tile at its place.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from service.metrics.catalog import LayoutItem

COLUMNS: Final = {"lg": 12, "md": 10, "sm": 1}
"""The sizes that the page knows, and how many columns each has at least."""
TILE: Final = (6, 8)
"""Width and height of a tile that has no place."""

_MEDIA: Final = {
    "lg": "(min-width: 1200px)",
    "md": "(min-width: 720px) and (max-width: 1199.98px)",
    "sm": "(max-width: 719.98px)",
}


class Cell(Struct, frozen=True):
    """A tile's place: columns and rows from 0, in grid units."""

    i: UUID
    x: int
    y: int
    w: int
    h: int
    static: bool = False


class Grid(Struct, frozen=True):
    """All tiles at one size."""

    columns: int
    places: list[Cell]


def grids(metrics: Sequence[UUID], places: Sequence[LayoutItem]) -> dict[str, Grid]:
    """A grid for each size. A size without places takes those of `lg`, in one column below `md`."""
    by_size: dict[str, list[LayoutItem]] = {size: [] for size in COLUMNS}
    for place in places:
        if place.breakpoint in by_size:
            by_size[place.breakpoint].append(place)
    found: dict[str, Grid] = {}
    for size, least in COLUMNS.items():
        own = by_size[size] or by_size["lg"]
        if not by_size[size] and size == "sm":
            cells = [Cell(each.metric_id, 0, each.y * _WIDE + each.x, 1, each.h) for each in own]
        else:
            cells = [_cell(each) for each in own]
        columns = max([least, *(cell.x + cell.w for cell in cells)])
        columns = min(columns, _MOST_COLUMNS)
        found[size] = Grid(columns, compact([*_inside(cells, columns), *_missing(metrics, cells, columns)]))
    return found


def compact(cells: Sequence[Cell]) -> list[Cell]:
    """Move each tile up until it touches another, as react-grid-layout does. Static ones stay."""
    placed = [cell for cell in cells if cell.static]
    for cell in sorted((cell for cell in cells if not cell.static), key=lambda cell: (cell.y, cell.x)):
        placed.append(Cell(cell.i, cell.x, _top(cell, placed), cell.w, cell.h))
    return sorted(placed, key=lambda cell: (cell.y, cell.x))


def _top(cell: Cell, placed: Sequence[Cell]) -> int:
    """The row that a cell gets: up from its own as far as nothing is in its way, else below what is."""
    column = [other for other in placed if cell.x < other.x + other.w and other.x < cell.x + cell.w]
    y = min(cell.y, max((other.y + other.h for other in placed), default=0))
    if not any(other.y < y + cell.h and y < other.y + other.h for other in column):
        return max((other.y + other.h for other in column if other.y + other.h <= y), default=0)
    while hit := next((other for other in column if other.y < y + cell.h and y < other.y + other.h), None):
        y = hit.y + hit.h
    return y


def css(found: Mapping[str, Grid]) -> str:
    """Rules that put each tile at its place. Ids are UUIDs and places are numbers: nothing needs escaping."""
    return "\n".join(f"@media {_MEDIA[size]} {{\n{_rules(grid)}\n}}" for size, grid in found.items())


def _rules(grid: Grid) -> str:
    lines = [f"#grid {{ --columns: {grid.columns}; }}"]
    for cell in grid.places:
        area = f"{cell.y + 1} / {cell.x + 1} / span {cell.h} / span {cell.w}"
        lines.append(f'[data-metric="{cell.i}"] {{ grid-area: {area}; }}')
    return "\n".join(lines)


def _cell(place: LayoutItem) -> Cell:
    return Cell(place.metric_id, place.x, place.y, place.w, min(place.h, _HIGHEST), place.static)


def _inside(cells: Sequence[Cell], columns: int) -> list[Cell]:
    """Each cell within the columns. A static one far below the others may move up to them."""
    bottom = sum(cell.h for cell in cells)
    inside: list[Cell] = []
    for cell in cells:
        w = min(cell.w, columns)
        static = cell.static and cell.y <= bottom
        inside.append(Cell(cell.i, min(cell.x, columns - w), cell.y, w, cell.h, static))
    return inside


def _missing(metrics: Sequence[UUID], cells: Sequence[Cell], columns: int) -> list[Cell]:
    """Places below the others for metrics that have none at this size."""
    placed = {cell.i for cell in cells}
    w = min(TILE[0], columns)
    side_by_side = max(1, columns // w)
    below = max([0, *(cell.y + cell.h for cell in cells)])
    missing = [each for each in metrics if each not in placed]
    return [
        Cell(each, number % side_by_side * w, below + number // side_by_side * TILE[1], w, TILE[1])
        for number, each in enumerate(missing)
    ]


_WIDE: Final = 100_000_000  # more than any `x`: tiles of one row follow each other
_MOST_COLUMNS: Final = 24
_HIGHEST: Final = 60
