"""Windows of texts in the style of dashboards: offered or not, and rows equal to those of hand-dated text."""

from datetime import date, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from service.sql.parameters import analyse
from service.sql.validation import parse
from tests.conftest import _cloned, held
from tests.db.window_texts import OFFERED, REFUSED, TABLES, WINDOWS

START, END = "2025-04-10", "2025-06-05"
GIVEN = [("start_date", START), ("end_date", END)]
BY_HAND = "{0} >= '" + START + "' AND {0} < '2025-06-06'"
# What `day_range=45` means of each window.
RANGED = {
    **dict.fromkeys(
        ("days", "half open", "other spellings", "last month"),
        "{0} >= CURRENT_DATE - 45 AND {0} < CURRENT_DATE + 1",
    ),
    "cast": "{0}::date BETWEEN CURRENT_DATE - 45 AND CURRENT_DATE",
    "since": "{0} >= CURRENT_DATE - 45",
    **dict.fromkeys(("last days", "days by function"), "{0} >= now() - interval '45 days'"),
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
        await connection.execute("BEGIN")  # for all that follows it is the same moment
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
    return analyse(parse(sql), {})


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


# -- random statements: what the author would date by hand is written with the period's days

EXAMPLES = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
HARMLESS = [
    *("count(*)", "sum(amount)", "min(created_at)", "max(shipped_at)", "count(DISTINCT day)"),
    *("100.0 * count(*) / nullif(sum(quantity), 0)", "round(avg(amount), 2)", "avg(shipped_at - created_at)"),
    "avg(extract(epoch FROM shipped_at - created_at)) / 3600",
    "count(*) FILTER (WHERE delivered_at - created_at < interval '4 hours')",
    "count(*) FILTER (WHERE extract(dow FROM created_at) IN (0, 6))",
    "sum(CASE WHEN status = 'paid' THEN amount ELSE 0 END)",
    "count(*) FILTER (WHERE delivered_at < shipped_at + interval '36 hours')",
]
DATED = [
    "count(*) / {n}.0",
    "sum(amount) * 10 / {n}",
    "count(*) / ({n} * 24.0)",
    "sum(amount) * (1.0 / {n})",
    "count(*)::numeric / (DATE '{end}' - DATE '{start}' + 1)",
    "sum(CASE WHEN created_at < '{middle}' THEN 1 ELSE 0 END)",
    "max(DATE '{end}' - day)",
    "(SELECT count(*) FROM generate_series(DATE '{start}', DATE '{end}', interval '1 day'))",
    "(SELECT count(*) FROM generate_series(1, {n}))",
    "count(*) FILTER (WHERE shipped_at <= '{end}')",
    "count(*) FILTER (WHERE to_char(shipped_at, 'YYYY-MM') = '{month}')",
    "count(*) FILTER (WHERE extract(month FROM shipped_at) = {number})",
    "count(*) FILTER (WHERE extract(day FROM shipped_at) <= {number})",
    "extract(epoch FROM make_interval(days => {n}))",
    "min('{month}'::text)",
    "sum(amount) / CASE WHEN count(*) > 0 THEN {n} END",
    "date_bin('1 day', min(created_at), timestamp '{start} 01:00')",
]
CONDITIONS = ["true", "status <> 'open'", "amount > 20", "shipped_at > created_at", "store_id IN (1, 2, 4)"]
DATED_CONDITIONS = [
    "(delivered_at IS NULL OR delivered_at >= '{start}')",
    "shipped_at < date '{end}' + 1",
    "NOT (shipped_at BETWEEN '{start}' AND '{middle}')",
    "extract(year FROM created_at) * 100 + extract(month FROM created_at) <= {code}",
    "shipped_at <@ tsrange('{start}', '{end}')",
    "shipped_at::text >= '{start}'",
]
GROUPS = ["", " GROUP BY status", " GROUP BY date_trunc('month', created_at)", " GROUP BY created_at::date"]
DATED_GROUPS = [
    " GROUP BY customer_id HAVING max(created_at) >= '{start}'::timestamp + interval '5 days'",
    " GROUP BY customer_id HAVING min(created_at) < '{middle}'",
    " GROUP BY customer_id HAVING count(DISTINCT day) < {n}",
]
SECOND = "SELECT {items} FROM orders WHERE {window} AND amount > 50{group}"
FRAMES = [
    "SELECT {items} FROM orders WHERE {window} AND {condition}{group}",
    "WITH w AS (SELECT * FROM orders WHERE {window}) SELECT {items} FROM w WHERE {condition}{group}",
    "SELECT {items} FROM (SELECT * FROM orders WHERE {condition}) AS o WHERE {window}{group}",
    f"SELECT {{items}} FROM orders WHERE {{window}} AND {{condition}}{{group}} UNION ALL {SECOND}",
]
LITERAL = ["created_at >= '{start}' AND created_at < '{next}'", "day BETWEEN '{start}' AND '{end}'"]
SLIDING = ["created_at >= now() - interval '{n} days'", "day >= CURRENT_DATE - {n}"]


def mixed(harmless, dated):
    """Mostly what is harmless, so that windows are offered often enough."""
    return st.sampled_from(harmless) | st.sampled_from([*harmless, *dated])


@st.composite
def statements(draw, windows, dated):
    items = draw(st.lists(mixed(HARMLESS, dated), min_size=1, max_size=3))
    return draw(st.sampled_from(FRAMES)).format(
        items=", ".join(items),
        window=draw(st.sampled_from(windows)),
        condition=draw(mixed(CONDITIONS, DATED_CONDITIONS if windows is LITERAL else [])),
        group=draw(mixed(GROUPS, DATED_GROUPS if windows is LITERAL else DATED_GROUPS[2:])),
    )


def dated(text: str, start: date, days: int) -> str:
    """The text as an author writes it for the period."""
    end = start + timedelta(days=days - 1)
    return text.format(
        start=start,
        end=end,
        next=end + timedelta(days=1),
        middle=start + timedelta(days=days // 2),
        n=days,
        month=f"{start:%Y-%m}",
        number=start.month,
        code=f"{end:%Y%m}",
    )


PERIODS = st.tuples(st.dates(date(2025, 1, 3), date(2025, 6, 30)), st.integers(2, 60))
COUNTED = [text for text in DATED if "start}" not in text and "end}" not in text and "middle}" not in text]
COUNTED = [text for text in COUNTED if "month}" not in text and "number}" not in text]


@EXAMPLES
@given(statements(LITERAL, DATED), PERIODS, PERIODS)
async def test_a_moved_window_is_the_text_dated_anew_or_there_is_none(tables, text, stored, asked):
    template = read(dated(text, *stored))
    if not template.window.offered:
        assert template.window.line == 1
        return
    start, days = asked
    given_days = [("start_date", str(start)), ("end_date", str(start + timedelta(days=days - 1)))]
    bound = template.bind(given_days)
    assert await rows(tables, bound.sql, bound.args) == await rows(tables, dated(text, start, days))


@EXAMPLES
@given(statements(SLIDING, COUNTED), st.integers(2, 60), st.integers(2, 60))
async def test_another_number_of_days_is_the_text_with_it_or_there_is_none(tables, text, stored, asked):
    today = date(2025, 1, 1)  # of no meaning: nothing here names a day
    template = read(dated(text, today, stored))
    assume(template.window.offered)
    bound = template.bind([("day_range", str(asked))])
    assert await rows(tables, bound.sql, bound.args) == await rows(tables, dated(text, today, asked))


@pytest.mark.parametrize("piece", HARMLESS)
def test_what_is_harmless_leaves_the_window(piece):
    for window in (*LITERAL, *SLIDING):
        text = FRAMES[0].format(items=piece, window=window, condition="true", group="")
        assert read(dated(text, date(2025, 2, 1), 28)).window.offered


@pytest.mark.parametrize(
    "item",
    [
        "2025 AS year",
        "(ARRAY[2025])[1]",
        "date_bin('7 days', created_at, '2025-02-01')",
        "length(repeat('x', 28))",
        "count(*) / 4",
    ],
)
def test_what_says_the_period_in_another_way_takes_the_window(item):
    sql = f"SELECT {item} FROM orders WHERE {WINDOWS['half open'].format('created_at')} GROUP BY created_at"
    assert not read(sql).window.offered


def test_four_weeks_stand_for_a_month_of_31_days():
    assert not read("SELECT count(*) / 4 FROM o WHERE d BETWEEN '2025-01-01' AND '2025-01-31'").window.offered


@pytest.mark.parametrize(
    ("zone", "offset", "offered"),
    [
        *(("UTC", "Z", True), ("UTC", "+01:00", False), ("Europe/Berlin", "Z", False)),
        *(("Europe/Berlin", "+01:00", True), ("Asia/Kolkata", "+05:30", True)),
    ],
)
def test_days_of_another_offset_are_not_those_of_the_service(zone, offset, offered):
    low, high = f"2025-01-01T00:00:00{offset}", f"2025-02-01 00:00:00{offset}"
    sql = f"SELECT count(*) FROM tickets WHERE opened_at >= '{low}' AND opened_at < '{high}'"
    window = analyse(parse(sql), {}, time_zone=zone).window
    assert window.offered == offered
    assert offered or "time zone of its own" in (window.why or "")


@pytest.mark.parametrize("asked", [1, 30, 90])
async def test_a_made_interval_is_a_length_too(tables, asked):
    sql = "SELECT count(*) FROM orders WHERE created_at >= now() - make_interval(days => {})"
    template = read(sql.format(28))
    assert {item.name: item.default for item in template.parameters}["day_range"] == 28
    bound = template.bind([("day_range", str(asked))])
    assert await rows(tables, bound.sql, bound.args) == await rows(tables, sql.format(asked))
