"""Where tiles sit on the page: places as they are stored, odd ones mended, nothing on top of another."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from service.dashboard.grid import Cell, compact, css, grids
from service.metrics.catalog import LayoutItem

A, B, C = (UUID(int=number) for number in (1, 2, 3))


def place(metric, x, y, w, h, size="lg", *, static=False):  # noqa: PLR0917 (as they are stored)
    return LayoutItem("default", metric, size, x, y, w, h, static)


def areas(grid):
    return {cell.i: (cell.x, cell.y, cell.w, cell.h) for cell in grid.places}


def test_tiles_stand_where_the_layouts_put_them():
    found = grids([A, B], [place(A, 0, 0, 8, 8), place(B, 8, 0, 4, 8), place(A, 0, 0, 5, 8, "md")])
    assert areas(found["lg"]) == {A: (0, 0, 8, 8), B: (8, 0, 4, 8)}
    assert (found["lg"].columns, found["md"].columns, found["sm"].columns) == (12, 10, 1)


def test_a_tile_without_a_place_at_a_size_comes_below_the_others():
    found = grids([A, B, C], [place(A, 0, 0, 8, 8)])
    assert areas(found["lg"]) == {A: (0, 0, 8, 8), B: (0, 8, 6, 8), C: (6, 8, 6, 8)}


def test_a_phone_without_places_of_its_own_shows_one_column_in_reading_order():
    found = grids([A, B, C], [place(B, 6, 0, 6, 5), place(A, 0, 0, 6, 8), place(C, 0, 8, 6, 8)])
    assert areas(found["sm"]) == {A: (0, 0, 1, 8), B: (0, 8, 1, 5), C: (0, 13, 1, 8)}


def test_gaps_close_and_a_place_far_away_comes_near():
    far = [place(A, 0, 0, 4, 4), place(B, 0, 9_999_999, 40, 4), place(C, 6, 9_999_999, 2, 2, static=True)]
    found = grids([A, B, C], far)["lg"]
    assert max(cell.y + cell.h for cell in found.places) <= 10
    assert max(cell.x + cell.w for cell in found.places) <= found.columns == 24


def test_a_static_tile_stays_and_others_make_room():
    found = grids([A, B], [place(A, 0, 4, 6, 4, static=True), place(B, 0, 0, 6, 6)])["lg"]
    assert areas(found) == {A: (0, 4, 6, 4), B: (0, 8, 6, 6)}


cells = st.builds(
    Cell,
    st.uuids(),
    st.integers(0, 11),
    st.integers(0, 50),
    st.integers(1, 12),
    st.integers(1, 9),
    st.just(False),
)


@given(st.lists(cells, max_size=12))
def test_nothing_overlaps_and_nothing_is_lost(some):
    found = compact(some)
    assert sorted((cell.i, cell.w, cell.h) for cell in found) == sorted((c.i, c.w, c.h) for c in some)
    pairs = [(one, two) for n, one in enumerate(found) for two in found[n + 1 :]]
    assert not any(_overlap(one, two) for one, two in pairs)
    assert all(cell.y == 0 or any(_touches(cell, other) for other in found) for cell in found)


def _overlap(one: Cell, two: Cell) -> bool:
    return one.x < two.x + two.w and two.x < one.x + one.w and one.y < two.y + two.h and two.y < one.y + one.h


def _touches(cell, other):
    return other.y + other.h == cell.y and other.x < cell.x + cell.w and cell.x < other.x + other.w


def test_the_rules_name_each_tile_at_each_size():
    rules = css(grids([A], [place(A, 2, 0, 4, 8)]))
    assert rules.count("@media") == 3
    assert f'[data-metric="{A}"] {{ grid-area: 1 / 3 / span 8 / span 4; }}' in rules
