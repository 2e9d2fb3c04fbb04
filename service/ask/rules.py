"""Rules that turn a prompt into SQL. They are deterministic, need no network and work with any schema."""

from datetime import date

from msgspec import Struct
from sqlglot import exp

from service.ask.question.resolve import resolve
from service.ask.question.shapes import Question, Unclear
from service.ask.question.sql import Parameter, build
from service.ask.question.title import title, understood
from service.ask.schema import Schema
from service.ask.sentence.dates import DateError, find
from service.ask.sentence.grammar import read
from service.ask.sentence.lexicon import Lexicon
from service.ask.sentence.reading import Reading
from service.ask.sentence.tokens import tokens
from service.ask.sentence.words import WORDS, Word, cut


class NotUnderstood(ValueError):  # noqa: N818 (it is an answer, not a fault)
    """The text tells why; `unknown` are words that name nothing in the schema."""

    def __init__(self, reason: str, unknown: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.unknown = unknown


class Answer(Struct, frozen=True, kw_only=True):
    """`ignored_words` do not change the answer; `corrected_words` were misspelt.

    `guessed`: the prompt names a period without its year, and the year is that of the last rows.
    """

    tree: exp.Select
    title: str
    understood: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    ignored_words: tuple[str, ...]
    corrected_words: tuple[str, ...]
    guessed: bool


def answer(prompt: str, schema: Schema, lexicon: Lexicon, today: date) -> Answer:
    """Raises `NotUnderstood` instead of ignoring a word that may have a meaning."""
    words = cut(prompt)
    if len(words) > WORDS:
        raise NotUnderstood(f"it has more than {WORDS} words: ask one thing in a short sentence")
    try:
        question, reading = _understood(words, schema, lexicon, today, None)
        last = question.moment.column.last if question.moment else None
        if question.window and question.window.guessed and last and last < today:
            question, reading = _understood(words, schema, lexicon, today, last)
    except (Unclear, DateError) as error:
        raise NotUnderstood(str(error)) from None
    tree, parameters = build(question, schema)
    return Answer(
        tree=tree,
        title=title(question),
        understood=understood(question),
        parameters=parameters,
        ignored_words=tuple(dict.fromkeys(reading.ignored)),
        corrected_words=tuple(dict.fromkeys(reading.corrected)),
        guessed=question.window is not None and question.window.guessed,
    )


def _understood(
    words: list[Word], schema: Schema, lexicon: Lexicon, today: date, last: date | None
) -> tuple[Question, Reading]:
    reading = read(tokens(words, lexicon, find(words, today, last)))
    if reading.unknown:
        raise NotUnderstood("some words name nothing in the data", tuple(dict.fromkeys(reading.unknown)))
    return resolve(reading, schema), reading
