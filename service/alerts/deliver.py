"""Deliver messages about alerts: each at least once, in tries with growing pauses, none behind another.

Messages wait in the database, where the transaction of their alert has put them. Every node claims what is
due; a claim ends by itself, so what a dead node had claimed is tried by another.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from service.alerts.messages import Message, headers
from service.alerts.store import SQL
from service.database.gateway import Database
from service.errors import DatabaseUnavailable
from service.mail import Mail, MailFailed
from service.observe.events import MessageTried, Observe, ignore
from service.outbound import WebhookFailed, Webhooks
from service.results.feed import Subscription

PAUSES_S: Final = (2.0, 8.0, 30.0, 120.0)
"""Between the tries. After the last one the message is dead, and can be replayed."""
CLAIM_S: Final = 60.0
AT_ONCE: Final = 4
"""Messages to one receiver at a time."""
MOST: Final = 256
RETRY_S: Final = 2.0


class Claimed(Struct, frozen=True):
    """A message that this node tries now."""

    id: str
    kind: str
    target: str
    event: str
    body: str
    tries: int
    created_at: datetime
    webhook_secret: str | None
    rule_id: UUID
    alert_id: UUID


class Wait(Struct, frozen=True):
    """Seconds until the next message is due; None if there is none."""

    wait_s: float | None


class _Body(Struct):
    text: str
    url: str


_CLAIM: Final = SQL.rows("claim_deliveries", Claimed)
_NEXT: Final = SQL.rows("next_delivery", Wait)
_END: Final = SQL.command("end_delivery")


class Deliverer:
    """Sends what is due. `now` is the wall clock, which signatures contain."""

    def __init__(
        self,
        database: Database,
        webhooks: Webhooks,
        mail: Mail,
        now: Callable[[], datetime],
        *,
        pauses_s: Sequence[float] = PAUSES_S,
        observe: Observe = ignore,
    ) -> None:
        self._observe = observe
        self._pauses_s = pauses_s
        self._database = database
        self._webhooks = webhooks
        self._mail = mail
        self._now = now
        self._busy: Counter[tuple[str, str]] = Counter()

    async def keep(self, changes: Subscription) -> None:
        """Run until cancelled. It asks the database after a change of the messages, and when one is due."""
        async with asyncio.TaskGroup() as group:
            ended = asyncio.Event()
            while True:
                changes.take()
                ended.clear()
                try:
                    wait_s = await self._round(group, ended)
                except DatabaseUnavailable:
                    wait_s = RETRY_S
                await _first(changes, ended, wait_s)

    async def _round(self, group: asyncio.TaskGroup, ended: asyncio.Event) -> float | None:
        """Start what is due. Returns when to look again."""
        while self._busy.total() < MOST:
            full = [target for (_, target), number in self._busy.items() if number >= AT_ONCE]
            claimed = await self._database.read(_CLAIM, AT_ONCE, CLAIM_S, full)
            for each in claimed:
                self._busy[each.kind, each.target] += 1
                group.create_task(self._deliver(each, ended))
            if not claimed:
                break
        waiting = await self._database.read_one(_NEXT)
        if waiting is None or waiting.wait_s is None:
            return None
        return max(waiting.wait_s, 0.05 if not self._busy else RETRY_S)

    async def _deliver(self, claimed: Claimed, ended: asyncio.Event) -> None:
        try:
            status, error, pause_s = await self._tried(claimed)
            self._observe(MessageTried(claimed.kind, status))
            with suppress(DatabaseUnavailable):  # the claim ends, and another try follows
                await self._database.write(_END, claimed.id, status, error, pause_s)
        finally:
            self._busy[claimed.kind, claimed.target] -= 1
            self._busy += Counter[tuple[str, str]]()
            ended.set()

    async def _tried(self, claimed: Claimed) -> tuple[str, str | None, float]:
        """Status, error and pause after one try."""
        try:
            await self._send(claimed)
        except WebhookFailed as failure:
            return self._after(claimed, str(failure), lasting=failure.lasting)
        except MailFailed as failure:
            return self._after(claimed, str(failure), lasting=False)
        return "delivered", None, 0.0

    def _after(self, claimed: Claimed, error: str, *, lasting: bool) -> tuple[str, str, float]:
        if lasting or claimed.tries > len(self._pauses_s):
            return "dead", error, 0.0
        return "waiting", error, self._pauses_s[claimed.tries - 1]

    async def _send(self, claimed: Claimed) -> None:
        if claimed.kind == "webhook":
            message = Message(claimed.id, claimed.kind, claimed.target, claimed.event, claimed.body)
            given = headers(
                message,
                secret=claimed.webhook_secret,
                created_at=claimed.created_at,
                sent_at=self._now(),
                rule_id=claimed.rule_id,
                alert_id=claimed.alert_id,
            )
            await self._webhooks.post(claimed.target, claimed.body.encode(), given)
        else:
            body = msgspec.json.decode(claimed.body, type=_Body)
            plain = body.text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
            plain = plain.replace("\u200b", "")
            await self._mail.send(claimed.target.split(","), plain, f"{plain}\n\n{body.url}\n", claimed.id)


async def _first(changes: Subscription, ended: asyncio.Event, within_s: float | None) -> None:
    """Wait for a change, the end of a try, or the time."""
    waits: list[asyncio.Future[Any]] = [
        asyncio.ensure_future(changes.wait()),
        asyncio.ensure_future(ended.wait()),
    ]
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
