"""A failure is shown where it stands in the stored text, whatever the slots made of it."""

from hypothesis import given
from hypothesis import strategies as st

from service.sql.parameters import analyse
from service.sql.parameters.template import END, RANGE, START
from service.sql.validation import parse

PIECES = st.sampled_from(
    [
        "n > 1",
        "name = :word",
        ":low::int < n",
        "d BETWEEN '2025-06-01' AND '2025-06-30'",
        "m = ANY(:many)",
        "'é𝄞 :no' = name",
        "day >= :start_date",
        "t >= CURRENT_DATE - INTERVAL '30' DAY",
    ]
)
WINDOWS = st.sampled_from([frozenset(), frozenset({START}), frozenset({START, END}), frozenset({RANGE})])


@given(pieces=st.lists(PIECES, min_size=1, max_size=5), windows=WINDOWS, typed=st.booleans())
def test_each_position_leads_back_to_the_stored_text(pieces, windows, typed):
    sql = "SELECT n FROM data.t WHERE " + " AND ".join(pieces) + " ;"
    template = analyse(parse(sql), {})
    rendered = template._render(windows, typed=typed)[0]
    inside = {place for slot in template.slots for place in range(slot.start, slot.end + 1)}
    found = [template.stored_position(at, windows, typed=typed) for at in range(1, len(rendered) + 1)]
    assert found == sorted(found)
    for at, stored in enumerate(found, start=1):
        assert rendered[at - 1] == template.sql[stored - 1] or stored - 1 in inside
    assert found[0] == 1
    assert found[-1] == len(sql)


def test_text_without_slots_keeps_its_positions():
    template = analyse(parse("SELECT 1"), {})
    assert [template.stored_position(at) for at in range(1, 9)] == list(range(1, 9))
