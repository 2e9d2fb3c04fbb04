"""A metric that is ready to run, and what a run tells of itself."""

from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from service.database.stored_sql.describing import Description
from service.database.stored_sql.limiter import Watch
from service.metrics.formats import Format, RecordMaker
from service.metrics.models import Definition, Metric
from service.results.changes import Dependencies
from service.sql.parameters import Template

# Approximate memory of a query plan. In a plan with many columns, the columns take most of it.
_PLAN_BYTES_EACH: Final = 16 << 10
_PLAN_BYTES_PER_COLUMN: Final = 2 << 10
_PLAN_BYTES_PER_CHARACTER: Final = 64


class QueryPlan(Struct, frozen=True, kw_only=True):
    """A metric with its template and its description by Postgres. `record` turns rows into records.

    `fingerprint` changes with every change of the metric that its results show. `watch` is that of its runs.
    """

    metric: Metric
    template: Template
    description: Description
    record: RecordMaker
    dependencies: Dependencies
    fingerprint: bytes
    watch: Watch

    @property
    def weight(self) -> int:
        """Approximate bytes of memory that the plan takes."""
        columns, text = len(self.description.columns), len(self.metric.sql)
        return _PLAN_BYTES_EACH + _PLAN_BYTES_PER_COLUMN * columns + _PLAN_BYTES_PER_CHARACTER * text

    def definition(self) -> Definition:
        metric, description = self.metric, self.description
        return Definition(
            id=metric.id,
            title=metric.shown_title,
            query_id=metric.query_id,
            is_editable=metric.is_editable,
            sql=metric.sql,
            parameters=self.template.parameters,
            window=self.template.window,
            columns=description.columns,
            tables=self.dependencies.tables,
            estimated_cost=description.plan.cost,
            fresh_for_s=metric.fresh_for_s,
            stale_for_s=metric.stale_for_s,
            refresh_every_s=metric.refresh_every_s,
            layouts=metric.layouts,
            version=metric.version,
            updated_at=metric.updated_at,
        )


class ResultKey(NamedTuple):
    """The cache key of a result. `fingerprint` is the plan's, `bound` the key of the bound statement.

    `claims` are set only if the rows depend on them.
    """

    fingerprint: bytes
    bound: bytes
    form: Format
    excel: bool
    claims: str | None


def timings(parse_s: float, wait_s: float, run_s: float, encode_s: float) -> str:
    """The value of `Server-Timing`, in milliseconds: the seconds spent on reading parameters, on waiting for
    a connection, in Postgres and on encoding.
    """
    return (
        f"parse;dur={parse_s * 1000:.2f}, wait;dur={wait_s * 1000:.2f}, "
        f"run;dur={run_s * 1000:.2f}, encode;dur={encode_s * 1000:.2f}"
    )


def until_midnight_s(now: datetime, zone: tzinfo) -> float:
    """Seconds until the day ends in the zone. Daylight saving changes are taken into account."""
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    midnight = datetime.combine(tomorrow, datetime.min.time(), zone)
    return (midnight.astimezone(UTC) - now).total_seconds()


def fingerprint_of(metric: Metric) -> bytes:
    return blake2b(msgspec.json.encode(metric), digest_size=16).digest()
