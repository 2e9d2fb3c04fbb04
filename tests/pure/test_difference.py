"""The difference of two results, and that applying it gives the later one."""

from collections import Counter
from decimal import Context, Decimal

import msgspec
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from service.database.stored_sql.describing import ResultColumn
from service.history.difference import Nested, Table, cell, difference, shown, subtracted
from service.history.histories import compared

TYPES = ["text", "date", "bigint", "numeric", "double precision", "boolean", "jsonb"]
TEXTS = st.sampled_from(["a", "b", "c", ""])
VALUES = {
    "text": TEXTS,
    "date": st.sampled_from(["2025-06-01", "2025-06-02"]),
    "bigint": st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1]),
    "numeric": st.sampled_from([Decimal("0.1"), Decimal("-12345678901234567890.123"), 7, 10**40]),
    "double precision": st.sampled_from([Decimal("1e300"), Decimal("0.1"), None]),  # NaN is written as null
    "boolean": st.booleans().map(cell),
    "jsonb": st.sampled_from([[1], {"a": True}, [True], 1, True, None]).map(cell),
}
NAMES = st.sampled_from(["k", "k", "n", "m", "x"])
COLUMNS = st.lists(st.builds(ResultColumn, NAMES, st.sampled_from(TYPES)), max_size=4).map(tuple)


@st.composite
def tables(draw, columns=None):
    columns = draw(COLUMNS) if columns is None else columns
    row = st.tuples(*(st.none() | VALUES[each.type] for each in columns))
    return Table(columns, draw(st.lists(row, max_size=6)))


@st.composite
def pairs(draw):
    before = draw(tables())
    return before, draw(tables(before.columns) | tables())


def projected(table, found):
    """The rows of a table in the compared columns, each as often as it occurs."""
    places, seen = {}, Counter()
    for at, column in enumerate(table.columns):
        places[column.name, seen[column.name]] = at
        seen[column.name] += 1
    wanted, seen = [], Counter()
    for column in found.compared:
        wanted.append(places[column.name, seen[column.name]])
        seen[column.name] += 1
    return Counter(tuple(row[at] for at in wanted) for row in table.rows)


def applied(rows, found):
    """Rows after the difference was applied to them."""
    rows = rows - Counter(found.removed)
    if found.keys is not None:
        by_key = {tuple(row[at] for at in found.keys): row for row in rows}
        for each in found.changed:
            row = list(by_key[each.key])
            for at, before, after in each.values:
                assert row[at] == before
                row[at] = after
            by_key[each.key] = tuple(row)
        rows = Counter(by_key.values())
    return rows + Counter(found.added)


@given(pairs())
def test_applying_the_difference_gives_the_later_result(pair):
    before, after = pair
    found = difference(before, after)
    assert applied(projected(before, found), found) == projected(after, found)
    assert len(found.added) + len(found.changed) + found.unchanged == len(after.rows)
    assert len(found.removed) + len(found.changed) + found.unchanged == len(before.rows)


@given(pairs())
def test_every_column_is_told_once(pair):
    before, after = pair
    found = difference(before, after)
    assert Counter(found.compared + found.added_columns) == Counter(after.columns)
    names = Counter(each.name for each in (*found.compared, *found.removed_columns))
    assert names == Counter(each.name for each in before.columns)


@given(tables())
def test_equal_results_do_not_differ(table):
    found = difference(table, Table(table.columns, table.rows[::-1]))
    assert (found.added, found.removed, found.changed) == ((), (), ())
    assert found.reordered


@given(pairs())
def test_deltas_are_exact(pair):
    for each in difference(*pair).changed:
        for nth, (_, before, after) in enumerate(each.values):
            delta = each.delta(nth)
            numbers = all(isinstance(value, int | Decimal) for value in (before, after))
            assert (delta is not None) is numbers
            if numbers:
                assert Context(prec=2000).add(Decimal(before), Decimal(delta)) == after


def table(columns, *rows):
    return Table(tuple(ResultColumn(*each.split(":")) for each in columns.split()), rows)


def test_dates_and_words_identify_rows_and_numbers_change():
    columns = "day:date channel:text n:bigint"
    before = table(columns, ("2025-06-01", "Email", 5), ("2025-06-01", "Call", 7))
    after = table(columns, ("2025-06-01", "Email", 6), ("2025-06-02", "Call", 7))
    found = difference(before, after)
    assert found.keys == (0, 1)
    assert found.added == (("2025-06-02", "Call", 7),)
    assert found.removed == (("2025-06-01", "Call", 7),)
    assert [(each.key, each.values) for each in found.changed] == [(("2025-06-01", "Email"), ((2, 5, 6),))]


def test_a_leading_number_identifies_rows_where_words_do_not():
    before = table("customer_id:bigint type:text n:bigint", (1, "A", 5), (2, "A", 6))
    after = table("customer_id:bigint type:text n:bigint", (1, "A", 5), (2, "A", 9))
    found = difference(before, after)
    assert found.keys == (0, 1)
    assert [each.values for each in found.changed] == [((2, 6, 9),)]


def test_one_number_changes():
    found = difference(table("n:bigint", (120,)), table("n:bigint", (134,)))
    assert (found.keys, found.changed[0].delta(0)) == ((), 14)


def test_rows_without_a_key_are_counted():
    before = table("name:text n:bigint", ("a", 1), ("a", 1), ("a", 2))
    after = table("name:text n:bigint", ("a", 1), ("a", 2), ("a", 2), ("a", 2))
    found = difference(before, after)
    assert (found.keys, found.unchanged) == (None, 2)
    assert (found.added, found.removed) == ((("a", 2), ("a", 2)), (("a", 1),))


def test_columns_that_came_and_went_are_told_and_the_others_compared():
    before = table("k:text old:text n:integer", ("a", "x", 1))
    after = table("k:text n:bigint new:text", ("a", 2, "y"))
    found = difference(before, after)
    assert [each.name for each in found.added_columns] == ["new"]
    assert [each.name for each in found.removed_columns] == ["old"]
    assert found.retyped == (("n", "integer", "bigint"),)
    assert (found.changed[0].values, found.reordered) == (((1, 1, 2),), False)


def test_true_is_not_one():
    found = difference(table("k:text v:jsonb", ("a", cell(True))), table("k:text v:jsonb", ("a", 1)))
    assert found.added == (("a", 1),)
    assert msgspec.json.encode(shown(Nested(b"[1]"))) == b"[1]"


def test_the_largest_and_the_smallest_number_differ_exactly():
    largest, smallest = Decimal("9" * 131_072), Decimal(1).scaleb(-16_383)
    delta = subtracted(smallest, largest)
    assert Context(prec=200_000).add(delta, smallest) == largest


def test_a_number_beyond_all_exponents_is_told_as_too_long():
    def stored(records: bytes) -> tuple[bytes, int]:
        content = b'[{"name":"n","type":"json"}]\n' + records
        return zstandard.ZstdCompressor().compress(content), len(content)

    one, huge = stored(b'[{"n":1}]'), stored(b'[{"n":1e9999999999999999999}]')
    assert compared(one, huge) == b""
    assert b'"added":[{"n":1E+999999999}]' in compared(one, stored(b'[{"n":1e999999999}]'))
