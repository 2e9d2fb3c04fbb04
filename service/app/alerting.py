"""The parts of alerts, and what runs them in the background."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from service.alerts.deliver import Deliverer
from service.alerts.evaluate import Evaluator
from service.alerts.rules import Rules
from service.alerts.store import ALERTS_TABLE, DELIVERIES_TABLE, count_open
from service.alerts.turn import LOOK_S, Turn
from service.database.breaker import Breaker
from service.database.gateway import Database
from service.database.session import Session
from service.errors import DatabaseUnavailable
from service.mail import Mail
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.observe.events import Observe
from service.outbound import Webhooks
from service.results.cache import CacheRequest, Results
from service.settings import Settings

RETRY_S: Final = 2.0


class Alerting(Struct, frozen=True):
    """Evaluates rules where this node has the turn, and sends what is due."""

    database: Database
    rules: Rules
    evaluator: Evaluator
    deliverer: Deliverer
    turn: Turn
    results: Results

    async def deliver(self) -> None:
        """Run until cancelled."""
        with self.results.subscribe((DELIVERIES_TABLE,)) as changes:
            await self.deliverer.keep(changes)

    async def count(self, show: Callable[[dict[UUID, int]], None]) -> None:
        """Show the open alerts of each metric in numbers, now and after each change, until cancelled."""
        with self.results.subscribe((ALERTS_TABLE,)) as changes:
            while True:
                try:
                    show(await count_open(self.database))
                except DatabaseUnavailable:
                    await asyncio.sleep(RETRY_S)
                else:
                    await anext(changes)

    def runners(self, show: Callable[[dict[UUID, int]], None]) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs in the background. `show` gets the numbers of open alerts."""
        return self.turn.lead(self.evaluator.run), self.deliver(), self.count(show)


class Outlets(Struct, frozen=True):
    """The connections of alerts: to receivers, and to the database for the turn."""

    webhooks: Webhooks
    mail: Mail
    session: Session


@asynccontextmanager
async def open_outlets(settings: Settings, database_url: str, primary: Breaker) -> AsyncGenerator[Outlets]:
    alerts = settings.alerts
    async with (
        Webhooks(allow_private=settings.allows_private_webhooks) as webhooks,
        Mail(alerts.smtp_url, alerts.smtp_from or "") as mail,
        aclosing(Session(database_url, "tally alerts", LOOK_S, primary)) as session,
    ):
        yield Outlets(webhooks, mail, session)


def alerting(
    settings: Settings,
    database: Database,
    metrics: Catalog,
    executor: Executor,
    results: Results,
    *,
    outlets: Outlets,
    observe: Observe,
) -> Alerting:
    zone = settings.database.zone
    rules = Rules(
        database,
        metrics,
        executor,
        results,
        zone=zone,
        now=_now,
        allow_private=settings.allows_private_webhooks,
        sends_mail=outlets.mail.is_set,
    )
    evaluator = Evaluator(
        database,
        results,
        partial(_request, metrics, executor),
        zone=zone,
        interval_s=settings.alerts.interval_s,
        now=_now,
        page=f"{settings.public_url}/alerts",
        observe=observe,
    )
    return Alerting(
        database,
        rules,
        evaluator,
        Deliverer(database, outlets.webhooks, outlets.mail, _now, observe=observe),
        Turn(outlets.session),
        results,
    )


def _now() -> datetime:
    return datetime.now(UTC)


async def _request(
    metrics: Catalog, executor: Executor, metric_id: UUID, parameters: dict[str, Any]
) -> CacheRequest:
    """The cache request of a rule, which has the rights of nobody in particular."""
    return await executor.cache_request(metrics.get(metric_id), parameters)
