"""Parameters of stored SQL: placeholders, accepted values and bound values."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput, SqlRefused
from service.sql.lexer import tokenize
from service.sql.parameters import Declared
from tests.pure.stored_sql import (
    AUTHORED,
    END,
    START,
    outcome,
    read,
    refusal,
    trusted,
    where,
)

# -- placeholders

DEAD = [
    "':x'",
    "'it''s :x'",
    r"E'\':x'",
    r"e'a\\' ",
    "E'a'\n'\\':x'",
    "E'a' -- :x\n '\\':x'",
    r"'\'",
    "U&':x'",
    "B'1'",
    "$$:x '$$",
    "$a$ $$ :x $b$ $a$",
    '":x"',
    '"a"":x"',
    "-- :x '\n",
    "/* :x /* ' */ :x */",
    "1::int",
    "f(a := 1)",
    "b[1:2]",
    "b[:n]",
    "b[lo:hi]",
    "b[c[1]:n]",
    "b[:]",
    "a$1",
    "a*/*:x*/2",
    "5--:x\n",
    "ARRAY[[1],[2]]",
    "'é𝄞:x'",
    "naïve",
]
LIVE = [
    ":x",
    "(:x)",
    "cast(:x as integer)",
    ":x::date",
    "ARRAY[:x]",
    "ARRAY[[1],[:x]]",
    "b[(:x)]",
    "a=:x",
    "'a':x",
    "E'\\\\':x",
    "$$a$$:x",
    "1:x",
    "f(a := :x)",
    "--\r:x",
]


@pytest.mark.parametrize("text", DEAD)
def test_text_comments_casts_and_slices_contain_no_placeholder(text):
    assert trusted(f"SELECT {text} ").parameters == ()


@pytest.mark.parametrize("text", LIVE)
def test_a_name_after_a_colon_is_a_placeholder_anywhere_else(text):
    assert trusted(f"SELECT {text} ").probe().sql == f"SELECT {text} ".replace(":x", "($1)")


@given(st.lists(st.sampled_from(DEAD + LIVE), max_size=12))
def test_only_placeholders_are_replaced_in_any_text(pieces):
    expected = " , ".join(piece if piece in DEAD else piece.replace(":x", "($1)") for piece in pieces)
    assert trusted(" , ".join(pieces)).probe().sql == expected


BETWEEN = re.compile(r"(?:\s|--[^\n\r]*|/\*.*\*/)*", re.DOTALL)


@given(st.text(alphabet="'\"$E\\e:x[](){}-/*\n ab1;=é", max_size=60))
def test_lexemes_cover_any_text_in_order(sql):
    ends = [0, *(place for lexeme in tokenize(sql) for place in (lexeme.start, lexeme.end)), len(sql)]
    assert ends == sorted(ends)
    between = [sql[end:start] for end, start in zip(ends[::2], ends[1::2], strict=True)]
    assert all(BETWEEN.fullmatch(gap) for gap in between)


@pytest.mark.parametrize(
    "tail", ["-" * 5000, "\n-" * 5000, "--x\n" * 5000, "\\'" * 5000, "(" * 5000, "/*" * 5000]
)
def test_tokenizing_any_text_is_fast(tail):
    assert tokenize(f"E'a'{tail}")[0].start == 0


def test_repeated_names_share_one_number():
    probe = trusted("SELECT :b, :a, :b").probe()
    assert (probe.sql, probe.names) == ("SELECT ($1), ($2), ($1)", ("b", "a"))


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("SELECT $1", id="numbered"),
        pytest.param("SELECT :naïve", id="not ascii"),
        pytest.param("SELECT :a$b", id="dollar"),
        pytest.param(f"SELECT :{'n' * 64}", id="too long"),
        pytest.param("SELECT :format", id="of the service"),
        pytest.param("SELECT " + ",".join(f":p{n}" for n in range(101)), id="too many"),
    ],
)
def test_placeholders_with_impossible_names_are_refused(sql):
    with pytest.raises(SqlRefused):
        trusted(sql)


def test_a_refusal_gives_the_place():
    with pytest.raises(SqlRefused, match="Line 2, column 8"):
        trusted("-- note\nSELECT $1")


# -- running unchanged


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT '{}' -- {}\n",
        "SELECT * FROM t WHERE day BETWEEN '2025-06-01' AND '2025-06-30'",
        "SELECT * FROM t WHERE day >= CURRENT_DATE - INTERVAL '30' DAY",
    ],
)
def test_without_parameters_the_stored_text_runs_unchanged(sql):
    bound = read(sql).bind([])
    assert (bound.sql, bound.args, bound.clock) == (sql, (), False)


def test_a_closing_semicolon_is_blanked_so_that_the_text_can_be_wrapped():
    assert read("SELECT ';' ; -- end").bind([]).sql == "SELECT ';'   -- end"


# -- values


@pytest.mark.parametrize(
    ("resolved", "text", "canonical"),
    [
        ("int2", "-32768", "-32768"),
        ("int4", "007", "7"),
        ("int8", "9223372036854775807", "9223372036854775807"),
        ("numeric", "1.50", "1.5"),
        ("numeric", "1e3", "1000"),
        ("numeric", "-0.0", "0"),
        ("float8", "-0", "0.0"),
        ("float8", "1e3", "1000.0"),
        ("bool", "YES", "true"),
        ("bool", "0", "false"),
        ("date", "9999-12-31", "9999-12-31"),
        ("timestamp", "2025-06-01", "2025-06-01T00:00:00.000000"),
        ("timestamp", "2025-06-01T02:00:00+02:00", "2025-06-01T00:00:00.000000"),
        ("timestamptz", "2025-06-01 02:00+02", "2025-06-01T00:00:00.000000+00"),
        ("timestamptz", "2025-06-01T00:00:00z", "2025-06-01T00:00:00.000000+00"),
        ("uuid", "C797B618DF1245F7BBB2CC6695A48E46", "c797b618-df12-45f7-bbb2-cc6695a48e46"),
        ("text", " a,b ", " a,b "),
        ("inet", "10.0.0.1", "10.0.0.1"),
        ("int4[]", "1,02", ["1", "2"]),
        ("int4[]", "[1, 2]", ["1", "2"]),
        ("text[]", '["a,b", "c"]', ["a,b", "c"]),
        ("text[]", "[]", []),
    ],
)
def test_a_value_is_bound_in_its_one_canonical_form(resolved, text, canonical):
    assert trusted("SELECT :v").with_types({"v": resolved}).bind([("v", text)]).args == (canonical,)


@pytest.mark.parametrize(
    ("resolved", "text"),
    [
        ("int2", "32768"),
        ("int4", "2147483648"),
        ("int8", "9223372036854775808"),
        ("int4", "1_000"),
        ("int4", "٣"),
        ("int4", "1.0"),
        ("int4", "9" * 101),
        ("numeric", "NaN"),
        ("numeric", "1e99999"),
        ("numeric", "0x1"),
        ("float8", "1e999"),
        ("float8", "inf"),
        ("float4", "1e39"),
        ("bool", "maybe"),
        ("date", "30.06.2025"),
        ("date", "2025-02-30"),
        ("date", "20250630"),
        ("date", "0000-01-01"),
        ("date", "2025-06-30T00:00:00Z"),
        ("timestamp", "yesterday"),
        ("timestamptz", "0001-01-01T00:00:00+14:00"),
        ("timestamptz", "2025-06-30T24:00:00Z"),
        ("uuid", "{c797b618-df12-45f7-bbb2-cc6695a48e46}"),
        ("text", ""),
        ("text", "a\0b"),
        ("text", "\ud800"),
        ("text", "a" * 65_537),
        ("int4[]", "1,,2"),
        ("int4[]", "[1"),
        ("int4[]", "[" * 5000),
        ("int4[]", "[[1]]"),
        ("int4[]", '{"a": 1}'),
        ("int4[]", "[null]"),
        ("text[]", ",".join("a" * 1001)),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(resolved, text):
    template = trusted("SELECT :v").with_types({"v": resolved})
    assert refusal(template, ("v", text))["v"].startswith("v must be ")


def test_the_refusal_of_a_value_names_its_type_and_an_example():
    template = trusted("SELECT :v").with_types({"v": "int4[]"})
    message = "v must be a list, comma-separated or a JSON array, each an integer, such as 7"
    assert refusal(template, ("v", "x")) == {"v": message}


@pytest.mark.parametrize(
    ("word", "value", "canonical"),
    [
        ("integer", 7, "7"),
        ("integer", "7", "7"),
        ("number", 1.5, "1.5"),
        ("number", Decimal("1.50"), "1.5"),
        ("boolean", True, "true"),
        ("text", "7", "7"),
        ("date", "2025-06-30", "2025-06-30"),
    ],
)
def test_json_values_mean_what_their_text_means(word, value, canonical):
    assert read("SELECT :v", v=Declared(word)).bind_json({"v": value}).args == (canonical,)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("integer", True),
        ("integer", 1.5),
        ("integer", 1 << 70),
        ("text", 7),
        ("boolean", 1),
        ("date", 20250630),
        ("number", float("nan")),
        ("text", None),
        ("text", ["a"]),
        ("text", {"a": 1}),
        ("text", ""),
    ],
)
def test_json_values_of_another_type_are_refused(word, value):
    with pytest.raises(InvalidInput):
        read("SELECT :v", v=Declared(word)).bind_json({"v": value})


def test_json_arrays_are_lists():
    template = read("SELECT :v", v=Declared("integer", array=True))
    assert template.bind_json({"v": [1, "2"]}).args == (["1", "2"],)
    with pytest.raises(InvalidInput):
        template.bind_json({"v": [1, [2]]})


WORDS = st.sampled_from(["text", "integer", "number", "boolean", "date", "timestamp", "uuid"])


@given(WORDS, st.booleans(), st.text() | st.from_regex(r"[-+0-9TZ:.eE,\[\] ]{0,40}", fullmatch=True))
def test_any_text_is_either_bound_or_invalid_input(word, array, text):
    template = trusted("SELECT :v", v=Declared(word, array=array))
    if bound := outcome(template.bind, [("v", text)]):
        assert template.bind_json({"v": bound.args[0]}).key == bound.key


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists), WORDS)
def test_any_json_is_either_bound_or_invalid_input(value, word):
    for array in (False, True):
        template = trusted("SELECT :v", v=Declared(word, array=array))
        if bound := outcome(template.bind_json, {"v": value}):
            assert template.bind_json({"v": bound.args[0]}).key == bound.key


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=4))
def test_any_names_are_either_taken_or_invalid_input(raw):
    bound = outcome(where("day >= '2025-06-01'").bind, list(raw.items()))
    assert (bound is None) == bool(raw)


@given(st.dates(), st.datetimes(timezones=st.just(UTC)), st.integers(-(2**63), 2**63 - 1), st.uuids())
def test_typed_values_survive_the_round_trip(day, moment, number, identity):
    declared = {name: Declared(name) for name in ("date", "timestamp", "integer", "uuid")}
    template = trusted("SELECT :date, :timestamp, :integer, :uuid", **declared)
    values = {"date": day, "timestamp": moment.isoformat(), "integer": number, "uuid": identity}
    args = template.bind([(name, str(value)) for name, value in values.items()]).args
    assert date.fromisoformat(str(args[0])) == day
    assert datetime.fromisoformat(str(args[1])).replace(tzinfo=UTC) == moment
    assert (int(str(args[2])), UUID(str(args[3]))) == (number, identity)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_numbers_stay_exact(number):
    args = trusted("SELECT :n", n=Declared("number")).bind([("n", str(number))]).args
    assert Decimal(str(args[0])) == number


# -- declared parameters


def test_a_declared_parameter_is_cast_and_its_default_fills_in():
    template = read("SELECT :n", n=Declared("integer", default=5))
    assert template.bind([]).sql == "SELECT ($1::text::int8)"
    assert template.bind([]).args == ("5",)
    assert template.bind([]).parameters == {"n": 5}


def test_a_null_default_makes_a_parameter_optional():
    template = read("SELECT :n", n=Declared("integer", default=None))
    assert template.bind([]).args == (None,)
    assert not template.parameters[0].required


def test_an_enum_accepts_only_its_values():
    template = read("SELECT :c", c=Declared("enum", values=("Email", "Call"))).with_types({"c": "text"})
    assert template.bind([("c", "Call")]).args == ("Call",)
    assert refusal(template, ("c", "call")) == {"c": "c must be one of Email, Call"}


def test_an_enum_of_postgres_is_cast_to_its_type():
    template = read("SELECT :c", c=Declared("enum", values=("a", "b"))).with_types({"c": "Mood"})
    assert template.bind([("c", "a")]).sql == 'SELECT ($1::text::"Mood")'


@pytest.mark.parametrize(
    "declared",
    [
        {"other": Declared("text")},
        {"n": Declared("integer", default="x")},
        {"n": Declared("enum")},
        {"n": Declared("text", values=("a",))},
        {"n": Declared("enum", values=("a",), default="b")},
    ],
    ids=[
        "not in the SQL",
        "default of another type",
        "enum without words",
        "words without enum",
        "default not among the words",
    ],
)
def test_an_impossible_declaration_is_refused(declared):
    with pytest.raises(InvalidInput):
        read("SELECT :n", **declared)


def test_an_undeclared_parameter_gets_the_type_that_postgres_resolves():
    template = read("SELECT :a, :b, :start_date", b=Declared("date"))
    assert template.untyped == ("a",)
    assert template.probe().sql == "SELECT ($1), ($2::text::date), ($3::text::date)"
    assert template.with_types({"a": "int4", "b": "text"}).bind(
        [("a", "1"), ("b", "2025-06-30"), START]
    ).sql == ("SELECT ($1::text::int4), ($2::text::date), ($3::text::date)")


# -- parameters that callers may give


def test_a_required_parameter_is_named_when_missing():
    assert refusal(read(AUTHORED), START) == {"end_date": "end_date is needed: a date, such as 2025-06-30"}


def test_every_wrong_parameter_is_named():
    wrong = [("start_date", "x"), ("end_date", ""), ("colour", "red"), ("end_date", "2025-06-30")]
    assert list(refusal(read(AUTHORED), *wrong)) == ["start_date", "end_date", "colour"]


def test_the_refusal_of_an_unknown_parameter_lists_the_accepted_ones():
    messages = refusal(read("SELECT :a, :b", a=Declared("text", default="x"), b=Declared("date")), START)
    assert messages["start_date"] == "start_date is no parameter of this metric: it takes a, b"


def test_a_metric_without_parameters_says_so():
    assert refusal(read("SELECT 1"), START)["start_date"].endswith("it takes none")


@pytest.mark.parametrize(
    "condition",
    ["day > '2025-01-01'", "day > '2025-01-01 08:30'", "day > '2024-01-01' AND day < '2025-01-01 08:30'"],
)
def test_a_start_after_the_end_is_refused(condition):
    days = ("start_date", "2025-07-01"), ("end_date", "2025-06-30")
    assert "start_date" in refusal(where(condition), *days)
    where(condition).bind([START, ("end_date", START[1])])


@pytest.mark.parametrize("text", ["0", "-1", "36601", "1.5", "week"])
def test_a_day_range_is_a_whole_number_of_days(text):
    assert "day_range" in refusal(where("day >= CURRENT_DATE - 30"), ("day_range", text))


@pytest.mark.parametrize("other", [START, END])
def test_a_day_range_excludes_dates(other):
    assert "day_range" in refusal(where("day >= CURRENT_DATE - 30"), ("day_range", "7"), other)
