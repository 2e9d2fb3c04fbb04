"""A bound statement returns the same rows in Postgres as an independently written query."""

from datetime import date, timedelta

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidInput, Problem
from service.sql.parameters import Declared, analyse
from service.sql.validation import parse, unparsed

TABLE = """
CREATE TABLE data.moments AS
SELECT row_number() OVER () AS n, t, t::date AS d, t AT TIME ZONE 'UTC' AS z, t::text AS word
FROM (SELECT day::timestamp + moment AS t
      FROM (SELECT generate_series('2025-05-28'::date, '2025-07-03'::date, '1 day')
            UNION ALL SELECT generate_series(CURRENT_DATE - 40, CURRENT_DATE + 3, '1 day')) AS days(day),
           (VALUES (time '00:00'), (time '12:30'), (time '23:59:59.999999')) AS moments(moment)) AS ts
"""
EXAMPLES = settings(max_examples=80)

DAYS = st.dates(date(2025, 5, 25), date(2025, 7, 6))
SUBJECTS = st.sampled_from(
    [
        *("t", "d", "z", "m.t", '("t")'),
        *("DATE(t)", "t::date", "CAST(m.z AS date)", "date_trunc('day', t)", "(z AT TIME ZONE 'UTC')::date"),
    ]
)
LITERALS = st.sampled_from(
    [
        *("'{}'", "DATE '{}'", "'{}'::timestamp", "CAST('{}' AS date)", "date('{}')", "'{}'::date + 1"),
        *("'{} 12:30'", "TIMESTAMP '{} 00:00:00'", "'{}T23:59:59'"),
    ]
)
FRAMES = st.sampled_from(
    [
        "SELECT n FROM data.moments AS m WHERE {}",
        "SELECT n FROM data.moments AS m WHERE n > 3 AND {} AND -- ' :x {{}}\n n < 200",
        "SELECT n FROM data.moments AS m WHERE ((n > 3) AND ({})) ORDER BY n;",
        "SELECT n FROM (SELECT n AS o FROM data.moments) AS x JOIN data.moments AS m ON n = o AND {}",
        "WITH a AS (SELECT n FROM data.moments AS m WHERE {} OFFSET 2) SELECT n FROM a /* é𝄞 */ LIMIT 500",
        "SELECT n FROM data.moments AS m WHERE {0} UNION SELECT -n FROM data.moments AS m WHERE {0}",
        "SELECT count(*) FILTER (WHERE {}) FROM data.moments AS m",
        "SELECT n FROM data.moments o WHERE NOT EXISTS (SELECT FROM data.moments m WHERE m.n = o.n AND {})",
    ]
)


@pytest.fixture(scope="module")
def reader(shared_reader):
    return shared_reader


@pytest.fixture(scope="module")
async def moments(shared_addresses):
    connection = await asyncpg.connect(shared_addresses.url)
    try:
        await connection.execute(TABLE)
        yield connection
    finally:
        await connection.close()


def read(sql, **declared):
    return analyse(parse(sql), declared)


async def rows(reader, sql, args=()):
    return sorted(tuple(record) for record in (await reader.run(sql, args)).records)


async def typed(connection, template):
    """The template with the types that Postgres gives its placeholders."""
    probe = template.probe()
    types = (await connection.prepare(probe.sql)).get_parameters()
    return template.with_types(dict(zip(probe.names, (kind.name for kind in types), strict=True)))


@st.composite
def literal_windows(draw):
    """A condition as its author wrote it, and its lower and upper half (empty if it has none)."""
    subject = draw(SUBJECTS)
    low, high = (draw(LITERALS).format(draw(DAYS)) for _ in "ab")
    shape = draw(st.sampled_from(["between", "both", "lower", "turned"]))
    lower, upper = f"{subject} {draw(st.sampled_from(['>=', '>']))} {low}", ""
    upper = f"{subject} {draw(st.sampled_from(['<', '<=']))} {high}"
    if shape == "between":
        lower, upper = f"{subject} >= {low}", f"{subject} <= {high}"
        written = f"{subject} BETWEEN {low} AND {high}"
    elif shape == "turned":
        lower, written = f"{low} <= {subject}", f"{low} <= {subject} AND {upper}"
    else:
        upper = upper if shape != "lower" else ""
        written = " AND ".join(filter(None, [lower, upper]))
    return subject, written, lower, upper


@EXAMPLES
@given(literal_windows(), FRAMES, st.tuples(st.none() | DAYS, st.none() | DAYS))
async def test_given_days_replace_only_the_literals(moments, reader, window, frame, days):
    subject, written, lower, upper = window
    start, end = sorted(days) if all(days) else days
    pairs = [(name, str(day)) for name, day in (("start_date", start), ("end_date", end)) if day]
    bound = read(frame.format(written)).bind(pairs)
    if start:
        lower = f"{subject} >= date '{start}'"
    if end:
        upper = f"{subject} < date '{end + timedelta(days=1)}'"
    expected = frame.format(" AND ".join(filter(None, [lower, upper])))
    assert await rows(reader, bound.sql, bound.args) == await rows(reader, expected)


@EXAMPLES
@given(literal_windows(), FRAMES, st.integers(1, 60))
async def test_a_day_range_moves_a_literal_window_to_end_today(moments, reader, window, frame, days):
    subject, written, _, upper = window
    bound = read(frame.format(written)).bind([("day_range", str(days))])
    ends = [f"{subject} < CURRENT_DATE + 1"] if upper else []
    expected = frame.format(" AND ".join([f"{subject} >= CURRENT_DATE - {days}", *ends]))
    assert await rows(reader, bound.sql, bound.args) == await rows(reader, expected)


@st.composite
def intervals(draw):
    """A subject, its lower bound with a place for the days, the days, and its upper half if it has one."""
    subject = draw(SUBJECTS)
    clocks = ["CURRENT_DATE - INTERVAL '{}' DAY", "CURRENT_DATE - {}", "now()::date - {}"]
    clocks += ["(now() - interval '{} days')::date", "date_trunc('day', now()) - '{} days'::interval"]
    until = draw(st.sampled_from(["", "CURRENT_DATE", "CURRENT_DATE + 1"]))
    lower = f"{subject} >= {draw(st.sampled_from(clocks))}"
    return subject, lower, draw(st.integers(1, 39)), [f"{subject} < {until}"] if until else []


@EXAMPLES
@given(intervals(), FRAMES, st.integers(1, 39))
async def test_a_day_range_changes_the_length_of_the_interval(moments, reader, window, frame, asked):
    _, lower, days, ends = window
    bound = read(frame.format(" AND ".join([lower.format(days), *ends]))).bind([("day_range", str(asked))])
    expected = frame.format(" AND ".join([lower.format(asked), *ends]))
    assert await rows(reader, bound.sql, bound.args) == await rows(reader, expected)


@EXAMPLES
@given(intervals(), FRAMES, st.tuples(st.none() | st.integers(0, 39), st.none() | st.integers(-3, 39)))
async def test_given_days_replace_an_interval_and_bound_it(moments, reader, window, frame, ago):
    subject, lower, days, ends = window
    today = date.fromisoformat((await rows(reader, "SELECT CURRENT_DATE::text"))[0][0])
    first, last = sorted(ago, reverse=True) if None not in ago else ago
    pairs = {"start_date": first, "end_date": last}
    given_days = [(name, str(today - timedelta(days=n))) for name, n in pairs.items() if n is not None]
    bound = read(frame.format(" AND ".join([lower.format(days), *ends]))).bind(given_days)
    lower = lower.format(days) if first is None else f"{subject} >= CURRENT_DATE - {first}"
    ends = ends if last is None else [f"{subject} < CURRENT_DATE - {last} + 1"]
    expected = frame.format(" AND ".join([lower, *ends]))
    assert await rows(reader, bound.sql, bound.args) == await rows(reader, expected)


AUTHORED = st.sampled_from(
    [
        "{0} BETWEEN :start_date AND :end_date",
        "{0} >= :start_date AND {0} <= :end_date",
        "{0} > :start_date AND {0} < :end_date",
        "{0} >= :start_date::date AND CAST(:end_date AS date) >= {0}",
        "DATE({0}) BETWEEN DATE(:start_date) AND DATE(:end_date)",
        "{0} >= :start_date AND {0} < :end_date::date + interval '1 day'",
        "(:start_date IS NULL OR {0} >= :start_date) AND NOT ({0} >= :end_date::timestamp + '1 day')",
    ]
)


@EXAMPLES
@given(st.tuples(AUTHORED, st.sampled_from("tdz")), FRAMES, st.tuples(DAYS, DAYS))
async def test_authored_windows_include_both_whole_days(moments, reader, authored, frame, days):
    written, subject = authored
    start, end = sorted(days)
    template = await typed(moments, read(frame.format(written.format(subject))))
    bound = template.bind([("start_date", str(start)), ("end_date", str(end))])
    expected = frame.format(f"{subject} >= date '{start}' AND {subject} < date '{end}' + 1")
    assert await rows(reader, bound.sql, bound.args) == await rows(reader, expected)


@EXAMPLES
@given(st.sampled_from(["t", "d", "z"]), AUTHORED.filter(lambda text: "+" not in text), st.integers(1, 39))
async def test_an_authored_window_accepts_a_day_range_up_to_today(moments, reader, subject, written, days):
    sql = f"SELECT n FROM data.moments AS m WHERE {written.format(subject)}"
    bound = read(sql).bind([("day_range", str(days))])
    expected = f"SELECT n FROM data.moments WHERE d BETWEEN CURRENT_DATE - {days} AND CURRENT_DATE"
    assert await rows(reader, bound.sql, bound.args) == await rows(reader, expected)


@pytest.mark.parametrize(
    ("place", "type_name", "text"),
    [
        ("n = {}", "int8", "12"),
        ("n = {}::int", "int4", "12"),
        ("t > {}", "timestamp", "2025-06-05T10:00:00"),
        ("z > {}", "timestamptz", "2025-06-05T10:00:00Z"),
        ("d = {}", "date", "2025-06-05"),
        ("word LIKE {}", "text", "2025-06-1%"),
        ("n = ANY({})", "int8[]", "3,5,8"),
        ("n % cast({} as integer) = 0", "int4", "7"),
        ("n / {}::numeric > 2", "numeric", "2.5"),
        ("'10.0.0.9'::inet < {}", "inet", "10.0.0.10"),
        ("n < {} + 12.5::float8", "float8", "1e1"),
        ("make_interval(days => {}) > n * interval '1 day'", "int4", "9"),
    ],
)
async def test_a_placeholder_has_the_type_that_postgres_resolves(moments, reader, place, type_name, text):
    sql = "SELECT n FROM data.moments WHERE "
    template = await typed(moments, read(sql + place.format(":v")))
    assert template.parameters[0].postgres_type == type_name
    bound = template.bind([("v", text)])
    literal = "'{" + text + "}'" if "ANY" in place else f"'{text}'"
    assert await rows(reader, bound.sql, bound.args) == await rows(reader, sql + place.format(literal))


WORDS = st.sampled_from(["text", "integer", "number", "boolean", "date", "timestamp", "uuid"])


@EXAMPLES
@given(WORDS, st.booleans(), st.text() | st.from_regex(r"[-+0-9TZ:.eE, ]{1,20}", fullmatch=True))
async def test_postgres_accepts_every_bound_value(reader, word, array, text):
    template = read("SELECT :v", v=Declared(word, array=array))
    try:
        bound = template.bind([("v", text)])
    except InvalidInput:
        return
    assert len((await reader.run(bound.sql, bound.args)).records) == 1


@pytest.mark.parametrize(
    ("word", "text", "expected"),
    [
        ("date", "0001-01-01", "0001-01-01"),
        ("date", "9999-12-31", "9999-12-31"),
        ("timestamp", "9999-12-31T23:59:59.999999Z", "9999-12-31 23:59:59.999999"),
        ("integer", "-9223372036854775808", "-9223372036854775808"),
        ("number", "1e1000", "1" + "0" * 1000),
        ("number", "0.1", "0.1"),
        ("text", "a'b\"c\\ é𝄞", "a'b\"c\\ é𝄞"),
        ("boolean", "on", "true"),
    ],
)
async def test_values_arrive_exact_at_the_edges(reader, word, text, expected):
    bound = read("SELECT (:v)::text", v=Declared(word)).bind([("v", text)])
    assert await rows(reader, bound.sql, bound.args) == [(expected,)]


@pytest.mark.parametrize(
    ("word", "text", "expected"),
    [
        ("integer", "3,1,2", "{3,1,2}"),
        ("text", '["a,b", "c"]', '{"a,b",c}'),
        ("date", "2025-06-01,9999-12-31", "{2025-06-01,9999-12-31}"),
        ("number", "[]", "{}"),
    ],
)
async def test_arrays_arrive_in_order(reader, word, text, expected):
    bound = read("SELECT (:v)::text", v=Declared(word, array=True)).bind([("v", text)])
    assert await rows(reader, bound.sql, bound.args) == [(expected,)]


async def test_the_same_expression_may_be_selected_and_grouped_by(moments, reader):
    template = await typed(
        moments,
        read("SELECT date_trunc(:u, t), count(*) FROM data.moments GROUP BY date_trunc(:u, t)"),
    )
    bound = template.bind([("u", "month")])
    assert await rows(reader, bound.sql, bound.args)


async def test_a_trial_detects_a_window_on_days_stored_as_text(moments):
    template = read("SELECT n FROM data.moments WHERE word >= '2025-06-01'")
    trials = template.trials()
    assert trials
    for trial in trials:
        with pytest.raises(asyncpg.UndefinedFunctionError):
            await moments.prepare(trial)


@pytest.mark.parametrize(
    "text", ["'a' 'b'", "E'a' -- :x\n '\\':x'", "1 -- '\r", "$a$ $$ :x $b$ $a$", "/* /* */ ' */ 1"]
)
async def test_our_tokens_end_where_postgres_tokens_end(reader, text):
    bound = analyse(unparsed(f"SELECT {text}\n, :v"), {"v": Declared("integer")}).bind([("v", "7")])
    try:
        records = (await reader.run(bound.sql, bound.args)).records
    except Problem:
        assert text == "'a' 'b'"  # two strings on one line are no string in Postgres either
    else:
        assert records[0][1] == 7
