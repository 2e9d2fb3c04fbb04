"""Compile a prompt to validated, planned and tried SQL, by a model if configured, else by rules."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from service.ask.examples import advice, examples, known
from service.ask.knowledge import OLDEST_FOR_UNKNOWN_S, OLDEST_S, Known, SchemaCache
from service.ask.model import Messages, Model, correction, opening
from service.ask.question.sql import render
from service.ask.rules import NotUnderstood as Unread
from service.ask.rules import answer
from service.database.stored_sql.describing import ResultColumn
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
from service.http import bodies
from service.metrics.execute import Executor, QueryPlan
from service.metrics.models import Metric, NewMetric
from service.metrics.store import Written, drafted
from service.settings import Model as ModelSettings
from service.sql.parameters import Declared, Mode, Parameter
from service.sql.statements import IN_PROCESS_BYTES
from service.sql.validation import parse

PREVIEW_ROWS: Final = 20
TITLE_LENGTH_LIMIT: Final = 255
REPAIRS: Final = 1
# Faults of the SQL, which a model may repair.
_FAULTS: Final = (InvalidInput, QueryTimeout, ResultTooLarge)


class DraftAnswer(Struct, frozen=True, kw_only=True):
    """The metric that a prompt would become. Nothing is stored.

    `understood` tells how the rules read the prompt. After a model, it and the lists of words are empty.
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
    """The tried plan of a prompt. `result` is the JSON of its first rows."""

    plan: QueryPlan
    result: bytes
    generator: str
    understood: tuple[str, ...] = ()
    ignored_words: tuple[str, ...] = ()
    corrected_words: tuple[str, ...] = ()

    def preview(self) -> DraftAnswer:
        rows = msgspec.json.decode(self.result, type=_Rows)
        return DraftAnswer(
            title=self.plan.metric.title or "",
            sql=self.plan.metric.sql,
            parameters=self.plan.template.parameters,
            columns=self.plan.description.columns,
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
    """Writes SQL for prompts. `today` gives the date of each prompt."""

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

    async def draft(self, prompt: str, *, fallback: bool = False, window: Mode = "auto") -> Draft:
        """Raises `NotUnderstood`; `UpstreamFailed` or `UpstreamTimeout` without `fallback` to the rules."""
        known = await self._knowledge.now()
        if self._model is None:
            return await self._by_rules(prompt, window, known)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._by_model(prompt, window, known, self._model)
        except (UpstreamFailed, UpstreamTimeout, TimeoutError) as error:
            if fallback:
                return await self._by_rules(prompt, window, known)
            if isinstance(error, TimeoutError):
                seconds = f"{self._timeout_s:g}"
                raise UpstreamTimeout(f"The language model took longer than {seconds} s.") from error
            raise

    async def write(self, prompt: str, fallback: bool, window: Mode) -> Written:  # noqa: FBT001 (by position)
        """Give the catalogue the tried plan to store."""
        draft = await self.draft(prompt, fallback=fallback, window=window)
        return Written(draft.plan, draft.generator)

    async def _by_rules(self, prompt: str, window: Mode, known: Known) -> Draft:
        today, found = self._today(), None
        with suppress(Unread):
            found = answer(prompt, known.schema, known.lexicon, today)
        if found is None or found.guessed:  # new rows may bring the word, or another year
            oldest_s = OLDEST_FOR_UNKNOWN_S if found is None else OLDEST_S
            known = await self._knowledge.now(oldest_s, with_rows=True)
            try:
                found = answer(prompt, known.schema, known.lexicon, today)
            except Unread as error:
                raise self._not_understood(prompt, known, str(error), error.unknown) from None
        declared = {item.name: Declared("date", default=item.default) for item in found.parameters}
        plan, result = await self._tried(_metric(render(found.tree), found.title, window, declared))
        return Draft(
            plan=plan,
            result=result,
            generator="rules",
            understood=found.understood,
            ignored_words=found.ignored_words,
            corrected_words=found.corrected_words,
        )

    async def _by_model(self, prompt: str, window: Mode, known: Known, model: Model) -> Draft:
        messages: Messages = opening(prompt, known.schema, self._today().isoformat())
        failure = ""
        for _ in range(1 + REPAIRS):
            suggestion = await model.suggest(messages)
            if suggestion.sql is None:
                raise self._not_understood(prompt, known, "the model finds no answer in the data")
            try:
                metric = _metric(_rewritten(suggestion.sql), suggestion.title or prompt, window)
                plan, result = await self._tried(metric)
            except _FAULTS as problem:
                failure = problem.detail
                messages = [*messages, *correction(suggestion, failure)]
                continue
            return Draft(plan=plan, result=result, generator=f"model:{model.name}")
        raise UpstreamFailed(f"The language model wrote no SQL that may run: {failure}")

    async def _tried(self, metric: Metric) -> tuple[QueryPlan, bytes]:
        """Validate SQL, plan it within the cost limit, and run it for its first rows."""
        plan = await self._executor.plan_metric(metric)
        cost = plan.description.plan.cost
        if cost > self._cost_limit:
            limit = f"{self._cost_limit:.0f}"
            raise QueryFailed(f"Postgres expects this to cost {cost:.0f}, over ASK_COST_LIMIT ({limit}).")
        return plan, await self._executor.first_rows(plan, PREVIEW_ROWS)

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


def _rewritten(sql: str) -> str:
    """The SQL of a model in our layout and without comments, unless our parser would lose a part of it."""
    if len(sql) > IN_PROCESS_BYTES or (statement := parse(sql)).lossy:
        return sql
    return render(statement.tree)


def _metric(sql: str, title: str, window: Mode, declared: Mapping[str, Declared] = {}) -> Metric:
    title = "".join(each for each in " ".join(title.split()) if each.isprintable())[:TITLE_LENGTH_LIMIT]
    parameters = {name: Raw(bodies.encode(item)) for name, item in declared.items()}
    shown = title[:1].upper() + title[1:]
    return drafted(NewMetric(sql=sql, title=shown, parameters=parameters, window=window))
