"""Summarise items with the configured language model, or without one by choosing sentences."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct

from service.audit import Actor
from service.database.gateway import Database
from service.errors import UpstreamFailed
from service.items import store
from service.items.models import Item

TEXT_LENGTH: Final = 20_000  # characters of an item that are read
SENTENCES: Final = 2
SENTENCE_LENGTH: Final = 200
SUMMARY_LENGTH: Final = 2_000

_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")
_TELLING_WORD: Final = re.compile(r"\w{4,}")  # shorter words are mostly function words


class Summariser(Struct, frozen=True):
    """Writes summaries. `name` is `extractive` or `model:<name>`."""

    name: str
    write: Callable[[str], Awaitable[str]]


async def summarise(database: Database, summariser: Summariser, item_id: int, actor: Actor) -> Item:
    """Write a summary and store it. No connection is held while it is written.

    Raises `NotFound`, the problems of the summariser, and `UpstreamFailed` for an empty summary.
    """
    item = await store.get(database, item_id)
    summary = (await summariser.write(text_of(item))).replace("\0", "").strip()[:SUMMARY_LENGTH]
    if not summary:
        raise UpstreamFailed(f"{summariser.name} wrote nothing")
    return await store.store_summary(database, item_id, summary, summariser.name, actor)


def text_of(item: Item) -> str:
    """Title, description and the texts of the external document, one paragraph each."""
    texts = [
        msgspec.json.decode(value, type=str)
        for name, value in (item.external_data or {}).items()
        if bytes(value).startswith(b'"') and name != "fetched_at"
    ]
    return "\n".join([item.title, item.description or "", *texts])[:TEXT_LENGTH]


async def extract(text: str) -> str:
    """The first sentence and the two sentences with most frequent words, in the order of the text.

    The same text gives the same summary.
    """
    found = (part.strip() for line in text.splitlines() for part in _SENTENCE_END.split(line))
    first, *others = dict.fromkeys(filter(None, found))
    frequency = Counter(_words(text))

    def weight(sentence: str) -> float:
        words = set(_words(sentence))
        return sum(frequency[word] for word in words) / (len(words) + 3)  # + 3: a single word says little

    best = sorted(others, key=weight, reverse=True)[:SENTENCES]
    return " ".join(_ended(sentence) for sentence in (first, *filter(best.__contains__, others)))


EXTRACTIVE: Final = Summariser("extractive", extract)


def _words(text: str) -> list[str]:
    return _TELLING_WORD.findall(text.lower())


def _ended(sentence: str) -> str:
    if len(sentence) > SENTENCE_LENGTH:
        return f"{sentence[: SENTENCE_LENGTH - 4].rstrip()} ..."
    return sentence if sentence[-1] in ".!?" else f"{sentence}."
