"""The sample's metric of interactions per day and channel, and the rule that watches each channel."""

from typing import Final
from uuid import UUID

from msgspec import Struct

from service import audit
from service.alerts.models import Definition
from service.alerts.store import SQL, definition_of
from service.audit import Actor
from service.database.gateway import Database

QUERY_ID: Final = "interactions-per-day-and-channel"
METRIC_ID: Final = UUID("5b0b6c0e-5d0e-4f0c-9a4e-1d6f0c7a2e11")
RULE_ID: Final = UUID("9d1f7a52-3c63-4e0b-8f57-2b8e6a4c9d12")
METRIC_SQL: Final = """-- Interactions per day and channel
SELECT
  DATE(date_start)  AS day,
  interaction       AS channel,
  COUNT(*)          AS interactions
FROM external_interactions
GROUP BY 1, 2
ORDER BY 1, 2;"""
RULE: Final = Definition(column="interactions", by=("channel",), at="day", kind="anomaly", missing="zero")


class _Added(Struct, frozen=True):
    id: str


_ADD_QUERY: Final = SQL.rows("add_sample_query", _Added)
_ADD_METRIC: Final = SQL.command("add_sample_metric")
_ADD_RULE: Final = SQL.command("add_sample_rule")


async def add_sample(database: Database, actor: Actor) -> bool:
    """Add metric and rule. Returns false if they were added before: what people made of them stays."""
    async with database.transaction() as tx:
        if await tx.read_one(_ADD_QUERY, QUERY_ID, METRIC_SQL) is None:
            return False
        await tx.write(_ADD_METRIC, METRIC_ID, QUERY_ID, "Interactions per day and channel")
        definition = definition_of(RULE)
        await tx.write(_ADD_RULE, RULE_ID, METRIC_ID, "Interactions per channel", definition)
        await audit.record(tx, actor, "metrics.create", str(METRIC_ID))
        after = audit.digest(definition)
        await audit.record(tx, actor, "alert_rules.create", str(RULE_ID), after=after)
    return True
