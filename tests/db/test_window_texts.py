"""Windows of texts in the style of dashboards: offered or not, and rows equal to those of hand-dated text."""

import asyncpg
import pytest

from service.metrics.judge import parse
from service.metrics.parameters import analyse
from tests.conftest import _cloned, held
from tests.db.window_texts import OFFERED, REFUSED, TABLES, WINDOWS

START, END = "2025-04-10", "2025-06-05"
GIVEN = [("start_date", START), ("end_date", END)]
BY_HAND = "{0} >= '" + START + "' AND {0} < '2025-06-06'"
# What `day_range=45` means of each window.
RANGED = {
    **dict.fromkeys(
        ("days", "half open", "last month"), "{0} >= CURRENT_DATE - 45 AND {0} < CURRENT_DATE + 1"
    ),
    "cast": "{0}::date BETWEEN CURRENT_DATE - 45 AND CURRENT_DATE",
    "since": "{0} >= CURRENT_DATE - 45",
    "last days": "{0} >= now() - interval '45 days'",
    "last days of the calendar": "{0} >= CURRENT_DATE - INTERVAL '45' DAY",
    "up to today": "{0} BETWEEN CURRENT_DATE - 45 AND CURRENT_DATE",
}


@pytest.fixture(scope="module")
async def tables(server, template):
    async with held(_cloned(server, template)) as addresses:
        connection = await asyncpg.connect(
            addresses.url, server_settings={"search_path": "data", "timezone": "UTC"}
        )
        await connection.execute(TABLES)
        yield connection
        await connection.close()


def written(text: str, window: str) -> str:
    head, *parts = text.split("[[")
    pieces = [head]
    for part in parts:
        column, rest = part.split("]]", 1)
        pieces += [window.format(column), rest]
    return "".join(pieces)


def read(sql: str):
    return analyse(sql, parse(sql), {})


async def rows(connection, sql: str, args=()):
    return sorted(map(repr, await connection.fetch(sql, *args)))


@pytest.mark.parametrize("text", OFFERED, ids=range(len(OFFERED)))
async def test_a_window_that_is_offered_gives_the_rows_of_the_hand_dated_text(tables, text):
    by_hand = await rows(tables, written(text, BY_HAND))
    for name, window in WINDOWS.items():
        template = read(written(text, window))
        assert template.window.offered, (name, template.window)
        bound = template.bind(GIVEN)
        assert await rows(tables, bound.sql, bound.args) == by_hand, name
        ranged = template.bind([("day_range", "45")])
        expected = await rows(tables, written(text, RANGED[name]))
        assert await rows(tables, ranged.sql, ranged.args) == expected, name


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_a_text_that_may_speak_of_the_period_elsewhere_takes_no_window(text):
    for name, window in WINDOWS.items():
        sql = written(text, window)
        shown = read(sql).window
        assert not shown.offered, name
        assert shown.why
        assert "not adjustable" in shown.why
        assert shown.line == 1
        assert shown.column


def test_at_most_one_text_in_twenty_loses_its_window():
    texts = [written(text, window) for text in OFFERED for window in WINDOWS.values()]
    lost = [sql for sql in texts if not read(sql).window.offered]
    assert len(texts) >= 250
    assert len(lost) <= len(texts) / 20
