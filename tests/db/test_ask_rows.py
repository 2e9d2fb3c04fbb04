"""Prompts over the seeds: the rows that come back are those of SQL written by hand."""

import ast
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from service.ask import rules
from service.ask.knowledge import Known, SchemaCache, read_schema
from service.ask.model import describe
from service.ask.question.sql import render
from service.ask.rules import answer
from service.ask.sentence.words import stems
from service.audit import Actor
from service.database.gateway import open_database
from service.database.queries import Command
from service.database.stored_sql.reader import Reader, open_reader
from service.imports.folder import import_folder
from service.imports.run.imports import Options
from service.results.feed import Change
from service.sql.validation import validate_sql
from tests.conftest import Server, _cloned

SEEDS = Path(__file__).parents[2] / "seeds"
CASES = json.loads((Path(__file__).parents[1] / "ask" / "cases.json").read_text())
OTHER = json.loads((Path(__file__).parents[1] / "ask" / "cases_other.json").read_text())
OTHER_SQL = (Path(__file__).parents[1] / "ask" / "other.sql").read_text()
TODAY = date(2026, 1, 15)


ENGLISH = {
    "of", "on", "start", "need", "report", "metric", "flag", "dat", "month", "id", "typ", "val", "category",
    "customer", "product", "manager", "email", "cal", "purchas",
}  # fmt: skip
"""Stems of the data that any schema may hold: English words, the usual synonyms and abbreviations."""

Others = dict[str, tuple[Reader, Known]]


@pytest.fixture(scope="module")
async def seeded(server: Server, template: str) -> AsyncGenerator[Reader]:
    """The reader's way to a database with the seeds in it."""
    options = Options(validate_sql=lambda sql: None, bytes_limit=1 << 24, actor=Actor("test", None))
    async with _cloned(server, template) as settings:
        async with open_database(settings.url or "") as database:
            await import_folder(database, SEEDS, options)
        async with open_reader(settings.reader_url or "", settings) as reader:
            yield reader


@pytest.fixture(scope="module")
async def known(seeded: Reader) -> Known:
    return await SchemaCache(seeded, ("data",)).now()


@pytest.fixture(scope="module")
async def others(server: Server, template: str) -> AsyncGenerator[Others]:
    """Readers of the shop and of the clinic, with what they know."""
    async with _cloned(server, template) as settings, AsyncExitStack() as stack:
        async with open_database(settings.url or "") as database, database.transaction() as tx:
            role = urlsplit(settings.reader_url or "").username
            for statement in filter(str.strip, OTHER_SQL.split(";\n")):
                await tx.write(Command("other", statement))
            for schema in ("shop", "clinic"):
                await tx.write(Command("usage", f'GRANT USAGE ON SCHEMA {schema} TO "{role}"'))
                await tx.write(
                    Command("select", f'GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO "{role}"')
                )
        found: Others = {}
        for schema in ("shop", "clinic"):
            chosen = msgspec.structs.replace(settings, data_schemas=(schema,))
            reader = await stack.enter_async_context(open_reader(settings.reader_url or "", chosen))
            found[schema] = reader, await SchemaCache(reader, (schema,)).now()
        yield found


async def rows(reader: Reader, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(map(_exact, record)) for record in (await reader.run(sql)).records]


def _exact(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return round(Decimal(bytes(value).decode()), 6)
    return Decimal(value) if isinstance(value, int) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['class']}: {case['prompt']}")
async def test_a_prompt_gives_the_rows_of_its_handwritten_sql(seeded: Reader, known: Known, case: dict):
    await check(seeded, known, case)


@pytest.mark.parametrize("case", OTHER, ids=lambda case: f"{case['class']}: {case['prompt']}")
async def test_any_schema_can_be_asked(others: Others, case: dict):
    await check(*others[case["schema"]], case)


async def check(seeded: Reader, known: Known, case: dict) -> None:
    found = answer(case["prompt"], known.schema, known.lexicon, TODAY)
    sql = render(found.tree)
    validate_sql(sql, schemas=known.schema.search_path)
    for parameter in found.parameters:
        sql = sql.replace(f":{parameter.name}", f"'{parameter.default}'")
    actual, expected = await rows(seeded, sql), await rows(seeded, case["sql"])
    if not case.get("ordered"):
        actual, expected = sorted(actual, key=str), sorted(expected, key=str)
    assert actual == expected


async def test_the_grammar_holds_no_word_of_the_data(known: Known):
    """Its rooms know English and what any schema may hold; the sample's own words come from the database."""
    words: set[str] = set()
    for table in known.schema.tables:
        for column in table.columns:
            words.update(*map(stems, (table.name, column.name, *column.values)))
    said = {stem for text in _texts_of_the_grammar() for stem in stems(text)}
    assert {"alert", "part", "discus"} <= words
    assert words & said == ENGLISH


def _texts_of_the_grammar() -> Iterator[str]:
    """All its texts but docstrings, comments and messages."""
    ask = Path(rules.__file__).parent
    yield from (
        line for line in (ask / "sentence" / "keywords.txt").read_text().splitlines() if "#" not in line
    )
    for path in (*ask.glob("sentence/*.py"), *ask.glob("question/*.py")):
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                yield node.value


def test_the_cases_are_many_and_of_every_class():
    assert len(CASES) >= 80
    assert len({case["prompt"] for case in CASES}) == len(CASES)


async def test_vocabulary_is_read_from_the_data(known: Known):
    metrics = known.schema.table("data", "metrics")
    assert metrics
    assert set(metrics.column("alert_type").values) == {"Critical", "Warning", "Info"}
    assert "Need approval" in metrics.column("alert_category").values
    assert metrics.column("alert_type").partial
    assert not metrics.column("date").partial
    assert metrics.column("date").last == date(2025, 12, 30)


async def test_bookkeeping_columns_are_not_asked_about(known: Known):
    names = {column.name for table in known.schema.tables for column in table.columns}
    assert not names & {"gone_at", "content_hash", "occurrence"}


async def test_only_what_the_reader_may_read_is_known(clone, reader):
    await clone.write(Command("t", "CREATE TABLE data.secrets (id bigint, client_secret text)"))
    await clone.write(Command("r", "REVOKE ALL ON data.secrets FROM PUBLIC"))
    schema = await read_schema(reader, ("data", "app", "catalog"))
    assert {table.schema for table in schema.tables} == {"data"}


async def test_values_that_do_not_repeat_never_reach_the_model(clone, reader):
    await clone.write(Command("t", "CREATE TABLE data.people (id bigint, note text, name text, kind text)"))
    await clone.write(
        Command(
            "i",
            "INSERT INTO data.people SELECT n, 'private ' || n, 'Smith ' || n % 3, 'kind ' || n % 3"
            " FROM generate_series(1, 50) AS n",
        )
    )
    role = (await reader.run("SELECT current_user")).records[0][0]
    await clone.write(Command("g", f'GRANT SELECT ON data.people TO "{role}"'))
    text = describe(await read_schema(reader, ("data",)))
    assert "kind 1" in text
    assert "private" not in text
    assert "Smith" not in text


class CountingReader:
    """The reader, counting statements; `during` runs in the first one."""

    def __init__(self, reader: Reader) -> None:
        self.count = 0
        self.during: Callable[[], None] = lambda: None
        self._reader = reader

    async def run(self, sql: str, *args: Any) -> Any:
        self.count += 1
        self.during()
        return await self._reader.run(sql, *args)


async def test_changed_rows_are_read_for_an_unknown_word_and_not_before(clone, reader):
    counting = CountingReader(reader)
    knowledge = SchemaCache(counting, ("data",))  # type: ignore[arg-type]
    before = await knowledge.now()
    read = counting.count
    insert = "INSERT INTO data.customers VALUES (1, 'Astronaut', 'Public sector')"
    await clone.write(Command("c", insert))
    for _ in range(100):
        knowledge.note(Change(frozenset(["data.customers"])))
        assert await knowledge.now() is before
    assert counting.count == read
    found = answer("number of astronauts", *_of(await knowledge.now(with_rows=True)), TODAY)
    assert "'Astronaut'" in render(found.tree)
    read = counting.count
    await knowledge.now(with_rows=True)
    assert counting.count == read


@pytest.mark.parametrize(
    "what", [Change(renewed=True), Change(frozenset(["data.vocabulary"]))], ids=["schema", "vocabulary"]
)
async def test_a_changed_schema_or_vocabulary_is_read_again_even_if_it_changes_meanwhile(reader, what):
    counting = CountingReader(reader)
    knowledge = SchemaCache(counting, ("data",))  # type: ignore[arg-type]
    change = partial(knowledge.note, what)
    before = await knowledge.now()
    change()
    counting.during = change
    during = await knowledge.now()
    counting.during = lambda: None
    after = await knowledge.now()
    assert before is not during is not after
    assert await knowledge.now() is after


def _of(known: Known):
    return known.schema, known.lexicon
