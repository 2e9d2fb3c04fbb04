"""Suggest prompts that work after a prompt was not understood."""

from collections.abc import Iterator
from datetime import date
from typing import Final

from service.ask.rules import NotUnderstood, answer
from service.ask.schema import Schema, Table
from service.ask.sentence.lexicon import Lexicon
from service.ask.sentence.words import cut, stems

EXAMPLES: Final = 3
NAMES_SHOWN: Final = 40
TABLES_TOLD: Final = 6
COLUMNS_TOLD: Final = 5


def examples(prompt: str, schema: Schema, lexicon: Lexicon, today: date) -> list[str]:
    """Three prompts that the rules answer, about the tables that share a word with this one first."""
    words = {word.stem for word in cut(prompt)}
    tables = sorted(schema.tables, key=lambda table: -len(words & _stems(table)))
    found: list[str] = []
    kinds = [list(_of_table(table)) for table in tables]
    for tier in range(max(map(len, kinds), default=0)):
        for candidate in (kind[tier] for kind in kinds if tier < len(kind)):
            try:
                answer(candidate, schema, lexicon, today)
            except NotUnderstood:
                continue
            found.append(candidate)
            if len(found) == EXAMPLES:
                return found
    return found


def known(schema: Schema) -> list[str]:
    """Tables with their columns, one line each."""
    return [
        f"{table.name}: {', '.join(column.name for column in table.columns)}"
        for table in schema.tables[:NAMES_SHOWN]
    ]


def advice(schema: Schema, prompts: list[str]) -> str:
    """One or two sentences: the tables to ask about, and a prompt that works."""
    if not schema.tables:
        return "There is no table to ask about: see DATA_SCHEMAS and what the reader may read."
    told = [_told(table) for table in schema.tables[:TABLES_TOLD]]
    if len(schema.tables) > TABLES_TOLD:
        told.append("...")
    example = f" This works: {prompts[0]!r}." if prompts else ""
    return f"You can ask about {', '.join(told)}.{example}"


def _told(table: Table) -> str:
    names = [column.name.replace("_", " ") for column in table.columns]
    if len(names) > COLUMNS_TOLD:
        names[COLUMNS_TOLD:] = ["..."]
    return f"{table.name.replace('_', ' ')} ({', '.join(names)})"


def _stems(table: Table) -> set[str]:
    names = [table.name, *(column.name for column in table.columns)]
    values = [value for column in table.columns for value in column.values]
    return {part for name in (*names, *values) for part in stems(name)}


def _of_table(table: Table) -> Iterator[str]:
    name = table.name.replace("_", " ")
    dated = any(column.dated for column in table.columns)
    for column in table.columns:
        title = column.name.replace("_", " ")
        if column.values and not table.is_key(column.name):
            yield f"number of {name} by {title}"
        elif column.numeric and not table.is_key(column.name):
            yield f"total {title} per month" if dated else f"average {title}"
    yield f"how many {name} per month" if dated else f"how many {name}"
