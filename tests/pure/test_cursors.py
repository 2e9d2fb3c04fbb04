"""All lists share one cursor codec. It decodes only cursors that it encoded."""

from datetime import datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.http.cursors import read_cursor, read_id_cursor, write_cursor
from service.http.ids import MAX_ID


@given(st.integers(0, MAX_ID - 1))
def test_an_encoded_position_is_decoded(position: int):
    assert read_id_cursor(write_cursor(position), 0) == position


@given(st.tuples(st.datetimes(), st.uuids()))
def test_an_encoded_position_of_several_parts_is_decoded(position: tuple[datetime, UUID]):
    assert read_cursor(write_cursor(position), tuple[datetime, UUID]) == position


def is_position(text: str) -> bool:
    return text in {write_cursor(number) for number in range(1000)}


@given(
    st.text(max_size=4).filter(lambda text: not is_position(text))
    | st.integers(max_value=-1).map(write_cursor)
    | st.integers(min_value=MAX_ID).map(write_cursor)
)
def test_any_other_text_is_refused(cursor: str):
    with pytest.raises(InvalidInput) as refused:
        read_id_cursor(cursor, 0)
    assert [error.field for error in refused.value.errors] == ["cursor"]


def test_a_list_without_a_cursor_starts_at_its_first_position():
    assert read_id_cursor(None, MAX_ID) == MAX_ID


def test_a_cursor_of_another_list_is_refused():
    with pytest.raises(InvalidInput):
        read_cursor(write_cursor(7), UUID)
