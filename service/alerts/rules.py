"""Make rules, and try them over the present result of their metric."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, tzinfo
from ipaddress import ip_address
from socket import inet_aton, inet_ntoa
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from service.alerts import store
from service.alerts.assessing import Document, NotEvaluable, chart, preview, read_document
from service.alerts.models import Bands, Definition, NewRule, RuleChange, RuleMade, RulePreview, Trial
from service.alerts.series import NotSeries, shape_of
from service.audit import Actor
from service.database.gateway import Database
from service.errors import FieldError, InvalidInput
from service.http.fields import ANY
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.outbound import is_public
from service.results.cache import Results

T = TypeVar("T")


class Rules:
    """Checks rules against their metrics before they are stored. `now` is the wall clock."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        executor: Executor,
        results: Results,
        *,
        zone: tzinfo,
        now: Callable[[], datetime],
        allow_private: bool,
        sends_mail: bool,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._executor = executor
        self._results = results
        self._zone = zone
        self._now = now
        self._allow_private = allow_private
        self._sends_mail = sends_mail

    async def create(self, new: NewRule, actor: Actor) -> RuleMade:
        """Raises `NotFound` for the metric, `InvalidInput` and the problems of planning the metric."""
        await self._check(new, new.metric_id)
        return await store.create_rule(self._database, new, actor)

    async def change(self, rule_id: UUID, change: RuleChange, actor: Actor) -> RuleMade:
        """Change a rule. The secret is shown if it is new. Raises what `create` raises."""
        row = await store.get_rule(self._database, rule_id)
        await self._check(store.changed(row, change), row.metric_id)
        stored, secret = await store.change_rule(self._database, rule_id, change, actor)
        return store.made(msgspec.structs.replace(stored, webhook_secret=secret))

    async def preview(self, trial: Trial) -> RulePreview:
        """What the rule would have found in the present result. Raises the problems of the run too."""
        await self._check(trial, trial.metric_id)
        document = await self._document(trial.metric_id, trial)
        return await self._evaluated(preview, trial, document, self._now())

    async def bands(self, rule_id: UUID) -> Bands:
        """The points and bands of a rule, for charts."""
        row = await store.get_rule(self._database, rule_id)
        rule = row.rule()
        document = await self._document(rule.metric_id, rule)
        return await self._evaluated(chart, rule, document)

    async def _evaluated(self, evaluate: Callable[..., T], rule: Definition, *arguments: object) -> T:
        try:
            return await asyncio.to_thread(evaluate, rule, *arguments, self._zone)
        except (NotSeries, NotEvaluable) as problem:
            raise InvalidInput(str(problem), errors=(FieldError("metric_id", str(problem)),)) from None

    async def _document(self, metric_id: UUID, rule: Definition) -> Document:
        request = await self._executor.cache_request(self._catalog.get(metric_id), dict(rule.parameters))
        outcome = await self._results.get(request, ANY)
        return await asyncio.to_thread(read_document, outcome.entry.body)

    async def _check(self, rule: Definition, metric_id: UUID) -> None:
        rule.check()
        self._check_targets(rule)
        metric = self._catalog.get(metric_id)
        plan = await self._executor.prepare(metric)
        shape_of(rule, plan.description.columns)
        plan.template.bind_json(dict(rule.parameters))

    def _check_targets(self, rule: Definition) -> None:
        if rule.email and not self._sends_mail:
            raise InvalidInput(errors=(FieldError("email", "SMTP_URL is not set, so no mail is sent"),))
        if rule.webhook_url is None:
            return
        wrong = _wrong_address(rule.webhook_url, allow_private=self._allow_private)
        if wrong is not None:
            raise InvalidInput(errors=(FieldError("webhook_url", wrong),))


def _wrong_address(url: str, *, allow_private: bool) -> str | None:
    """Why an address cannot be a webhook. Names are resolved and checked when something is sent."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no address"
    if parts.scheme not in {"http", "https"} or not host:
        return "is no http or https address"
    if allow_private:
        return None
    try:
        is_private = not is_public(str(ip_address(host)))
    except ValueError:
        is_private = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
        with suppress(OSError):  # other spellings of an IPv4 address, such as 0x7f.1
            is_private = is_private or not is_public(inet_ntoa(inet_aton(host)))
    return "is a private address: WEBHOOK_PRIVATE=on allows these" if is_private else None
