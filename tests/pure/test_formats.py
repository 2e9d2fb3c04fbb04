"""Results as bytes: the same in parts as at once, and never past their limit."""

import csv
import io
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.database.stored_sql.describing import ResultColumn
from service.errors import ResultTooLarge
from service.metrics.formats import Outcome, parts, record_maker, render
from service.metrics.models import Metric

NOW = datetime(2025, 1, 1, tzinfo=UTC)
FORMS = ("json", "csv", "ndjson")


def outcome(rows, names=("a",), received=0, **fields):
    columns = tuple(ResultColumn(name, "text") for name in names)
    return Outcome(
        metric=METRIC,
        parameters=fields.get("parameters", {}),
        columns=columns,
        record=record_maker(columns),
        rows=rows,
        truncated=False,
        as_of=NOW,
        received=received,
    )


METRIC = Metric(UUID(int=1), "q", "SELECT", False, 't,"records":[]', True, None, None, {}, "auto", 1, NOW)


def written(found, form, limit):
    return b"".join(parts(found, form, limit=limit))


@pytest.mark.parametrize("form", FORMS)
def test_many_rows_come_in_parts_and_whole(form):
    rows = [(number, f"row {number}") for number in range(100_000)]
    found = outcome(rows, ("n", "label"), parameters={"records": [], "x": {"records": []}})
    assert len(list(parts(found, form))) > 2
    body = render(found, form)
    if form == "csv":
        assert list(csv.reader(io.StringIO(body.decode()))) == [
            ["n", "label"],
            *([str(n), t] for n, t in rows),
        ]
        return
    if form == "ndjson":
        records = [msgspec.json.decode(line) for line in body.splitlines()]
    else:
        whole = msgspec.json.decode(body)
        assert (whole["row_count"], whole["parameters"]["records"]) == (len(rows), [])
        assert list(whole)[-3:] == ["row_count", "truncated", "as_of"]
        records = whole["records"]
    assert records == [{"n": n, "label": t} for n, t in rows]


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_long_texts_are_written_as_any_other(form):
    text = 'é\x01"\\\n' * 100_000
    found, large = outcome([(text,), (None,)]), outcome([(text,), (None,)], received=1 << 24)
    assert render(large, form) == render(found, form)


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_is_for_the_bytes_that_are_written(form):
    found = outcome([("x" * 100,)] * 100)
    size = len(render(found, form))
    assert len(written(found, form, size)) == size
    with pytest.raises(ResultTooLarge, match=str(size - 1)):
        written(found, form, size - 1)


class Unwritable:
    """Fails whoever begins to write it."""


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_long_names_are_refused_before_anything_is_written(form):
    names = [f"{n:0>63}" for n in range(1000)]
    with pytest.raises(ResultTooLarge):
        written(outcome([(Unwritable(),) * 1000] * 1000, names), form, 8 << 20)


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_escapes_are_refused_piece_by_piece(form):
    found = outcome([("\x01" * 4_000_000, Unwritable())], ("a", "b"), received=4_000_000)
    with pytest.raises(ResultTooLarge):
        written(found, form, 4_000_100)


CELLS = st.one_of(st.none(), st.text(alphabet="ab\",\r\n ;\t'é", max_size=5))


@given(st.integers(0, 3).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), max_size=4)))
def test_csv_is_what_the_standard_writer_makes(rows):
    names = [f"c{n}" for n in range(len(rows[0]) if rows else 1)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([names, *(["" if cell is None else cell for cell in row] for row in rows)])
    assert render(outcome(rows, names), "csv") == text.getvalue().encode()
