"""Summaries without a language model."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from service.items.models import Item
from service.items.summary import SENTENCE_LENGTH, extract, text_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def item(title: str, description: str | None = None, external_data: str | None = None) -> Item:
    return Item(1, title, description, external_data, None, NOW, NOW)  # type: ignore[arg-type]


async def test_the_title_and_the_sentences_with_the_most_frequent_words_are_picked_in_order():
    text = text_of(
        item(
            "Replace the pump",
            "The pump leaks at its seal. It is blue. Anna called. A new pump seal costs 40 EUR.",
        )
    )
    assert (
        await extract(text) == "Replace the pump. The pump leaks at its seal. A new pump seal costs 40 EUR."
    )


async def test_a_lone_title_is_its_own_summary():
    assert await extract(text_of(item("Buy milk!"))) == "Buy milk!"


async def test_a_long_sentence_is_cut():
    summary = await extract("x" * 255)
    assert len(summary) == SENTENCE_LENGTH
    assert summary.endswith(" ...")


def test_the_text_holds_the_outsides_strings_and_not_the_time_of_fetching():
    document = '{"id": 1, "title": "theirs", "n": {"x": "deep"}, "body": "so\\nit is", "fetched_at": "2026"}'
    assert text_of(item("ours", None, document)) == "ours\n\ntheirs\nso\nit is"


@given(title=st.text(min_size=1, max_size=255).filter(str.strip), description=st.text(max_size=3000))
async def test_every_item_has_a_short_summary_and_always_the_same(title: str, description: str):
    text = text_of(item(title, description))
    summary = await extract(text)
    assert summary.strip()
    assert len(summary) <= 3 * (SENTENCE_LENGTH + 1) + 2
    assert await extract(text) == summary
