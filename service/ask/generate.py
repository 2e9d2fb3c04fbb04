"""Compile a prompt to validated, planned and tried SQL, by a model if configured, else by rules."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Raw, Struct

from service.ask.examples import advice, examples, known
from service.ask.knowledge import OLDEST_FOR_UNKNOWN_S, Known, SchemaCache
from service.ask.model import Messages, Model, correction, opening
from service.ask.question.sql import render
from service.ask.rules import NotUnderstood as Unread
from service.ask.rules import answer
from service.database.stored_sql.reader import ResultColumn
from service.errors import (
    InvalidInput,
    NotUnderstood,
    Problem,
    QueryFailed,
    QueryTimeout,
    ResultTooLarge,
    UpstreamFailed,
    UpstreamTimeout,
)
from service.metrics.execute import Executor, QueryPlan
from service.metrics.models import Metric, Written
from service.settings import Model as ModelSettings
from service.sql.parameters import Declared, Parameter
from service.sql.statements import IN_PROCESS_BYTES
from service.sql.validation import is_lossy, parse

PREVIEW_ROWS: Final = 20
TITLE_LENGTH_LIMIT: Final = 255
REPAIRS: Final = 1
# What is wrong with SQL, as against what is wrong with the world.
_FAULTS: Final = (InvalidInput, QueryTimeout, ResultTooLarge)


class Preview(Struct, frozen=True, kw_only=True):
    """What a prompt would become: nothing of it is stored.

    `understood` says what the rules made of it; a model leaves it and the words empty.
    """

    title: str
    sql: str
    parameters: tuple[Parameter, ...]
    columns: tuple[ResultColumn, ...]
    records: list[Any]
    truncated: bool
    generator: str
    understood: tuple[str, ...] = ()
    ignored_words: tuple[str, ...] = ()
    corrected_words: tuple[str, ...] = ()


class Draft(Struct, frozen=True, kw_only=True):
    """SQL for a prompt, tried: `result` is the JSON of its first rows."""

    prepared: QueryPlan
    result: bytes
    generator: str
    understood: tuple[str, ...] = ()
    ignored_words: tuple[str, ...] = ()
    corrected_words: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.prepared.metric.title or ""

    @property
    def sql(self) -> str:
        return self.prepared.metric.sql

    def preview(self) -> Preview:
        rows = msgspec.json.decode(self.result, type=_Rows)
        return Preview(
            title=self.title,
            sql=self.sql,
            parameters=self.prepared.template.parameters,
            columns=self.prepared.description.columns,
            records=rows.records,
            truncated=rows.truncated,
            generator=self.generator,
            understood=self.understood,
            ignored_words=self.ignored_words,
            corrected_words=self.corrected_words,
        )


class _Rows(Struct, frozen=True):
    records: list[Raw]
    truncated: bool


class PromptCompiler:
    """Writes SQL for prompts. `today` is asked for at each prompt."""

    def __init__(
        self,
        knowledge: SchemaCache,
        executor: Executor,
        model: Model | None,
        settings: ModelSettings,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._knowledge = knowledge
        self._executor = executor
        self._model = model
        self._cost_limit = settings.cost_limit
        self._timeout_s = settings.timeout_s
        self._today = today

    async def draft(self, prompt: str, *, fallback: bool = False) -> Draft:
        """Raises `NotUnderstood`; `UpstreamFailed` or `UpstreamTimeout` without `fallback` to the rules."""
        known = await self._knowledge.now()
        if self._model is None:
            return await self._by_rules(prompt, known)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._by_model(prompt, known, self._model)
        except (UpstreamFailed, UpstreamTimeout, TimeoutError) as error:
            if fallback:
                return await self._by_rules(prompt, known)
            if isinstance(error, TimeoutError):
                seconds = f"{self._timeout_s:g}"
                raise UpstreamTimeout(f"The language model took longer than {seconds} s.") from error
            raise

    async def write(self, prompt: str, fallback: bool) -> Written:  # noqa: FBT001 (called by position)
        """What the catalogue stores of a draft."""
        draft = await self.draft(prompt, fallback=fallback)
        return Written(draft.sql, draft.title, draft.prepared.metric.parameters, draft.generator)

    async def _by_rules(self, prompt: str, known: Known) -> Draft:
        today = self._today()
        try:
            try:
                found = answer(prompt, known.schema, known.lexicon, today)
            except Unread:
                known = await self._knowledge.now(OLDEST_FOR_UNKNOWN_S)
                found = answer(prompt, known.schema, known.lexicon, today)
        except Unread as error:
            raise self._not_understood(prompt, known, str(error), error.unknown) from None
        declared = {item.name: Declared("date", default=item.default) for item in found.parameters}
        prepared, result = await self._tried(render(found.tree), found.title, declared)
        return Draft(
            prepared=prepared,
            result=result,
            generator="rules",
            understood=found.understood,
            ignored_words=found.ignored_words,
            corrected_words=found.corrected_words,
        )

    async def _by_model(self, prompt: str, known: Known, model: Model) -> Draft:
        messages: Messages = opening(prompt, known.schema, self._today().isoformat())
        failure = ""
        for _ in range(1 + REPAIRS):
            suggestion = await model.suggest(messages)
            if suggestion.sql is None:
                raise self._not_understood(prompt, known, "the model finds no answer in the data")
            try:
                prepared, result = await self._tried(suggestion.sql, suggestion.title or prompt, {})
            except _FAULTS as problem:
                failure = problem.detail
                messages = [*messages, *correction(suggestion, failure)]
                continue
            return Draft(prepared=prepared, result=result, generator=f"model:{model.name}")
        raise UpstreamFailed(f"The language model wrote no SQL that may run: {failure}")

    async def _tried(self, sql: str, title: str, declared: Mapping[str, Declared]) -> tuple[QueryPlan, bytes]:
        """Write SQL anew from its tree, if that says all of it; judge, plan within the cost limit, run it."""
        written = sql
        if len(sql) <= IN_PROCESS_BYTES and not is_lossy(tree := parse(sql)):
            written = render(tree)
        title = "".join(each for each in " ".join(title.split()) if each.isprintable())[:TITLE_LENGTH_LIMIT]
        prepared = await self._executor.plan_metric(_metric(written, title[:1].upper() + title[1:], declared))
        cost = prepared.description.plan.cost
        if cost > self._cost_limit:
            limit = f"{self._cost_limit:.0f}"
            raise QueryFailed(f"Postgres expects this to cost {cost:.0f}, over ASK_COST_LIMIT ({limit}).")
        return prepared, await self._executor.first_rows(prepared, PREVIEW_ROWS)

    def _not_understood(
        self, prompt: str, known_: Known, reason: str, unknown: tuple[str, ...] = ()
    ) -> Problem:
        prompts = examples(prompt, known_.schema, known_.lexicon, self._today())
        words = f": {', '.join(repr(word[:60]) for word in unknown)}" if unknown else ""
        return NotUnderstood(
            f"The prompt was not understood: {reason}{words}. {advice(known_.schema, prompts)}",
            unknown_words=[word[:60] for word in unknown],
            known=known(known_.schema),
            prompts=prompts,
        )


def _metric(sql: str, title: str, declared: Mapping[str, Declared]) -> Metric:
    return Metric(
        id=UUID(int=0),
        query_id="",
        sql=sql,
        trusted=False,
        title=title,
        is_editable=True,
        fresh_for_s=None,
        stale_for_s=None,
        parameters={name: Raw(msgspec.json.encode(item)) for name, item in declared.items()},
        window="auto",
        version=1,
        updated_at=datetime.now(UTC),
    )
