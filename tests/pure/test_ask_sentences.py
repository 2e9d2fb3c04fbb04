"""How sentences are read: date phrases, word forms, and that nothing a person types can break it."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ask.examples import examples
from service.ask.question.sql import render
from service.ask.rules import NotUnderstood, answer
from service.ask.schema import Column, ForeignKey, Schema, Table, row_names, synonyms
from service.ask.sentence.dates import DateError, Window, find
from service.ask.sentence.lexicon import Lexicon
from service.ask.sentence.tokens import KEYWORDS
from service.ask.sentence.words import cut, stem
from service.sql.validation import validate_sql

TODAY = date(2026, 11, 20)

SCHEMA = Schema(
    tables=(
        Table(
            schema="data",
            name="metrics",
            columns=(
                Column(name="date", type="timestamp", last=date(2025, 12, 31)),
                Column(name="alert_type", type="text", partial=True, values=("Critical", "Warning")),
                Column(
                    name="alert_category", type="text", partial=True, values=("Need approval", "Approved")
                ),
                Column(name="parts_flagged", type="int4", partial=True),
                Column(name="obsolescence_val", type="numeric", partial=True),
            ),
        ),
        Table(
            schema="data",
            name="customers",
            columns=(
                Column(name="customer_id", type="int8"),
                Column(name="type", type="text", values=("Business", "Private")),
            ),
            primary_key=("customer_id",),
        ),
        Table(
            schema="data",
            name="external_interactions",
            columns=(
                Column(name="date_start", type="timestamp", last=date(2025, 12, 31)),
                Column(
                    name="interaction", type="text", comment="synonyms: channel", values=("Email", "Call")
                ),
                Column(name="customer_id", type="int8"),
            ),
            foreign_keys=(
                ForeignKey(
                    columns=("customer_id",), schema="data", table="customers", targets=("customer_id",)
                ),
            ),
        ),
    )
)
LEXICON = Lexicon(SCHEMA)


def ask(prompt: str):
    return answer(prompt, SCHEMA, LEXICON, TODAY)


def sql(prompt: str) -> str:
    return " ".join(render(ask(prompt).tree).split())


def days(start: str | None, end: str | None, *, guessed: bool = False) -> Window:
    return Window(
        start=start and date.fromisoformat(start),  # type: ignore[arg-type]
        end=end and date.fromisoformat(end),  # type: ignore[arg-type]
        guessed=guessed,
    )


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("in June 2025", days("2025-06-01", "2025-06-30")),
        ("in june, 2025", days("2025-06-01", "2025-06-30")),
        ("June of 2025", days("2025-06-01", "2025-06-30")),
        ("06/2025", days("2025-06-01", "2025-06-30")),
        ("2025-06", days("2025-06-01", "2025-06-30")),
        ("from March 2025 to April 2025", days("2025-03-01", "2025-04-30")),
        ("from march to april 2025", days("2025-03-01", "2025-04-30")),
        ("March \u2013 April 2025", days("2025-03-01", "2025-04-30")),
        ("April through June 2025", days("2025-04-01", "2025-06-30")),
        ("in June and July 2025", days("2025-06-01", "2025-07-31")),
        ("from November to February 2025", days("2024-11-01", "2025-02-28")),
        ("between 2 and 25 June 2025", days("2025-06-02", "2025-06-25")),
        ("from the 2nd to the 25th of June 2025", days("2025-06-02", "2025-06-25")),
        ("between June 2 and June 25, 2025", days("2025-06-02", "2025-06-25")),
        ("June 2-25, 2025", days("2025-06-02", "2025-06-25")),
        ("2025-06-02 to 2025-06-25", days("2025-06-02", "2025-06-25")),
        ("between 02/06/2025 and 25.06.2025", days("2025-06-02", "2025-06-25")),
        ("on the third of June 2025", days("2025-06-03", "2025-06-03")),
        ("the week of 4 June 2025", days("2025-06-02", "2025-06-08")),
        ("since March 2025", days("2025-03-01", None)),
        ("from 2 June 2025", days("2025-06-02", None)),
        ("from June 2025 onwards", days("2025-06-01", None)),
        ("after June 2025", days("2025-07-01", None)),
        ("before 2 June 2025", days(None, "2025-06-01")),
        ("until the end of June 2025", days(None, "2025-06-30")),
        ("Q2 2025", days("2025-04-01", "2025-06-30")),
        ("2025Q2", days("2025-04-01", "2025-06-30")),
        ("the second quarter of 2025", days("2025-04-01", "2025-06-30")),
        ("in the first half of 2025", days("2025-01-01", "2025-06-30")),
        ("in 2024", days("2024-01-01", "2024-12-31")),
        ("in February 2024", days("2024-02-01", "2024-02-29")),
        ("in March", days("2026-03-01", "2026-03-31", guessed=True)),
        ("in December", days("2025-12-01", "2025-12-31", guessed=True)),
        ("last 30 days", Window(rolling=30)),
        ("over the past two weeks", Window(rolling=14)),
        ("in the last twenty-five days", Window(rolling=25)),
        ("last week", Window(rolling=7)),
        ("last 3 months", Window(rolling=3, unit="month")),
        ("previous week", Window(period=-1, unit="week")),
        ("last month", Window(period=-1, unit="month")),
        ("this month", Window(period=0, unit="month")),
        ("year to date", Window(period=0, unit="year")),
        ("YTD", Window(period=0, unit="year")),
        ("yesterday", Window(period=-1)),
        ("today", Window(period=0)),
    ],
)
def test_a_date_phrase_is_its_inclusive_days(phrase, expected):
    assert [found.window for found in find(cut(f"alerts {phrase}"), TODAY)] == [expected]


@pytest.mark.parametrize(
    "phrase",
    [
        *("31 June 2025", "2025-13-01", "June 2025 to March 2025", "last 0 days", "last 10000 years"),
        *("since 90000 months ago", "7000 years ago", "last 100001 days"),
    ],
)
def test_days_that_cannot_be_are_refused(phrase):
    with pytest.raises(DateError):
        find(cut(phrase), TODAY)


def test_a_month_without_its_year_is_sought_where_the_data_are():
    defaults = [parameter.default for parameter in ask("number of alerts in November").parameters]
    assert defaults == ["2025-11-01", "2025-11-30"]


@pytest.mark.parametrize("text", ["alerts may happen", "march on", "we may have 3 calls"])
def test_a_month_that_may_be_a_verb_is_none(text):
    assert find(cut(text), TODAY) == []


@pytest.mark.parametrize(
    "forms",
    [
        "need needs needed needing",
        "approve approved approves approving approval approvals",
        "interaction interactions interacted",
        "category categories",
        "status statuses",
        "ship shipped shipping shipment shipments",
        "cancel cancelled canceled cancellation",
        "call calls called calling",
    ],
)
def test_the_forms_of_a_word_have_one_stem(forms):
    assert len({stem(word) for word in forms.split()}) == 1


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (
            "how many critical alerts",
            "SELECT COUNT(*) AS count FROM metrics WHERE alert_type = 'Critical'",
        ),
        ("total alerts", "SELECT COUNT(*) AS count FROM metrics WHERE alert_type IS NOT NULL"),
        (
            "number of metrics to be approved",
            "SELECT COUNT(*) AS count FROM metrics WHERE alert_category = 'Need approval'",
        ),
        ("flagged parts, in total", "SELECT SUM(parts_flagged) AS total_parts_flagged FROM metrics"),
        (
            "alerts in the last 30 days, count",
            (
                "SELECT COUNT(*) AS count FROM metrics WHERE alert_type IS NOT NULL"
                " AND date >= CURRENT_DATE - INTERVAL '30 DAY'"
            ),
        ),
        ("customers of type business", "SELECT COUNT(*) AS count FROM customers WHERE type = 'Business'"),
        (
            "which channel had the most interactions",
            (
                "SELECT interaction, COUNT(*) AS count FROM external_interactions GROUP BY interaction"
                " ORDER BY count DESC NULLS LAST, interaction LIMIT 1"
            ),
        ),
    ],
)
def test_a_prompt_becomes_sql_that_people_would_write(prompt, expected):
    assert sql(prompt) == expected


@pytest.mark.parametrize(
    "prompts",
    [
        (
            "How many critical alerts in June 2025?",
            "number of critical alerts in june 2025",
            "In June 2025, how many alerts were critical",
            "COUNT OF CRITICAL ALERTS, JUNE 2025",
            "critical alerts count between 1 June 2025 and 30 June 2025",
            "please tell me how many critcal alerts there were in June of 2025",
            "total number of critical alerts 2025-06",
            "how many alerts with alert type Critical in 06/2025",
        ),
        (
            "interactions by customer type",
            "number of interactions per type of customer",
            "how many interactions for each customer type",
            "customer type breakdown of interactions",
            "count interactions grouped by customer type",
        ),
        (
            "top 5 customers by interactions",
            "Top five customers by number of interactions",
            "5 customers with the most interactions",
            "the five most active customers",
            "which 5 customers have the most interactions",
        ),
        (
            "total parts flagged per month",
            "monthly total of parts flagged",
            "sum of flagged parts by month",
            "for each month, the total parts flagged",
            "how many parts were flagged each month",
        ),
    ],
    ids=lambda prompts: prompts[0],
)
def test_other_words_for_the_same_give_the_same(prompts):
    expected = sql(prompts[0]), ask(prompts[0]).parameters
    assert [(sql(prompt), ask(prompt).parameters) for prompt in prompts] == [expected] * len(prompts)


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("unicorns sold", ("unicorns", "sold")),
        ("blue critical alerts in June 2025", ("blue",)),
        ("drop table customers", ("drop", "table")),
        ("median parts flagged", ("median",)),
        ("percentage of alerts that are critical", ("percentage",)),
        ("alerts per hour", ("hour",)),
        ("how are the alerts", ("how",)),
    ],
)
def test_a_word_that_may_mean_something_is_never_passed_over(prompt, unknown):
    with pytest.raises(NotUnderstood) as refused:
        ask(prompt)
    assert refused.value.unknown == unknown


@pytest.mark.parametrize(
    "prompt",
    [
        "customers in June 2025",
        "average alerts",
        "alerts over 100",
        "parts flagged by customer type",
        "average channel",
        "alerts in June 2025 and August 2025",
        "critical alerts and total parts flagged per month",
        "",
        "the",
    ],
)
def test_what_the_data_cannot_answer_is_refused(prompt):
    with pytest.raises(NotUnderstood):
        ask(prompt)


def test_values_are_literals_whatever_they_hold():
    nasty = "O'Brien'; DROP TABLE x; --"
    table = Table(
        schema="data", name="people", columns=(Column(name="surname", type="text", values=(nasty,)),)
    )
    schema = Schema(tables=(table,))
    found = answer("number of people with surname brien", schema, Lexicon(schema), TODAY)
    text = render(found.tree)
    assert "'O''Brien''; DROP TABLE x; --'" in text
    validate_sql(text, schemas=("data",))


def test_names_that_need_quotes_get_them():
    columns = (Column(name="Order", type="text", values=("A b",)), Column(name="fee", type="numeric"))
    schema = Schema(tables=(Table(schema="data", name="My Table", columns=columns),))
    found = answer("total fee by order", schema, Lexicon(schema), TODAY)
    assert 'GROUP BY "Order"' in " ".join(render(found.tree).split())
    assert 'FROM "My Table"' in " ".join(render(found.tree).split())


def test_a_table_outside_the_search_path_keeps_its_schema():
    table = Table(schema="sales", name="invoices", columns=(Column(name="amount", type="numeric"),))
    schema = Schema(tables=(table,), search_path=("public", "other"))
    assert "FROM sales.invoices" in render(answer("how many invoices", schema, Lexicon(schema), TODAY).tree)


def test_comments_name_columns():
    assert synonyms("How they were in touch; synonyms: channel, medium") == ["channel", "medium"]
    assert synonyms("Sales region") == ["Sales region"]
    assert row_names("What became of it; rows: approvals, decisions") == ["approvals", "decisions"]


def test_examples_work():
    found = examples("unicorns by customer", SCHEMA, LEXICON, TODAY)
    assert len(found) == 3
    for prompt in found:
        ask(prompt)


NAMES = """
    alerts alert type critical warning customers customer 5 in June 2025 parts flagged email interactions
    channel month week since before last 30 days Q2 need approval 'Call' 2 - ,
"""
VOCABULARY = sorted({word for phrase in KEYWORDS for word in phrase} | {*NAMES.split()})


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join)))
def test_any_text_is_refused_or_becomes_one_safe_select(prompt):
    try:
        found = ask(prompt)
    except NotUnderstood:
        return
    text = render(found.tree)
    validate_sql(text, schemas=("data",))
    assert found.title


ONE_NUMBER = {
    "Overall parts flagged before March 2025": ("SUM(parts_flagged)", "date < "),
    "parts flagged overall": ("SUM(parts_flagged)", ""),
    "all told, parts flagged in June 2025": ("SUM(parts_flagged)", "date >= "),
    "overall number of parts flagged since May 2025": ("SUM(parts_flagged)", "date >= "),
    "overall critical alerts before March 2025": ("COUNT(*)", "alert_type = 'Critical'"),
    "overall average obsolescence value": ("AVG(obsolescence_val)", ""),
    "the largest number of parts flagged in June 2025": ("MAX(parts_flagged)", "date >= "),
    "what was the highest number of parts flagged in June 2025?": ("MAX(parts_flagged)", "date >= "),
    "smallest number of parts flagged overall": ("MIN(parts_flagged)", ""),
    "the maximum count of parts flagged": ("MAX(parts_flagged)", ""),
    "average number of parts flagged in June 2025": ("AVG(parts_flagged)", "date >= "),
    "the most parts flagged in June 2025": ("MAX(parts_flagged)", "date >= "),
    "fewest parts flagged in June 2025": ("MIN(parts_flagged)", "date >= "),
}


@pytest.mark.parametrize("prompt", ONE_NUMBER)
def test_what_asks_for_one_number_gets_one(prompt):
    measured, filtered = ONE_NUMBER[prompt]
    sql = " ".join(render(answer(prompt, SCHEMA, LEXICON, TODAY).tree).split())
    assert sql.startswith(f"SELECT {measured} AS ")
    assert filtered in sql
    assert "GROUP BY" not in sql


@pytest.mark.parametrize(
    ("prompt", "grouped"),
    [
        ("overall alerts by type", "alert_type"),
        ("overall alerts per month", "DATE_TRUNC('MONTH', date)"),
        ("the largest number of parts flagged per month", "DATE_TRUNC('MONTH', date)"),
        ("parts flagged before March 2025", "CAST(date AS DATE)"),
    ],
)
def test_what_asks_for_groups_still_gets_them(prompt, grouped):
    sql = " ".join(render(answer(prompt, SCHEMA, LEXICON, TODAY).tree).split())
    assert "GROUP BY" in sql
    assert grouped in sql.split("GROUP BY")[1]


@pytest.mark.parametrize(
    "prompt",
    [
        "the largest number of alerts in June 2025",
        "the most alerts in June 2025",
        "the second largest number of parts flagged",
        "the 3 highest parts flagged in June 2025",
    ],
)
def test_a_highest_of_nobody_knows_what_is_refused(prompt):
    with pytest.raises(NotUnderstood):
        answer(prompt, SCHEMA, LEXICON, TODAY)


def test_a_prompt_of_too_many_words_is_refused_before_it_is_read():
    with pytest.raises(NotUnderstood, match="more than 60 words"):
        answer("alerts " * 61, SCHEMA, LEXICON, TODAY)
    assert answer("alerts " * 60, SCHEMA, LEXICON, TODAY).title


@given(
    st.lists(
        st.sampled_from([" ".join(words) for words in KEYWORDS])
        | st.sampled_from(
            ["9" * 309, "9" * 31 + ".5", "alerts", "customers", "parts flagged", "last", "days"]
        )
        | st.text(max_size=20),
        max_size=25,
    ),
    st.sampled_from([" ", "", ", "]),
)
def test_whatever_is_asked_is_answered_or_refused(parts, between):
    try:
        found = answer(between.join(parts), SCHEMA, LEXICON, TODAY)
    except NotUnderstood:
        return
    validate_sql(render(found.tree), schemas=("data",))
