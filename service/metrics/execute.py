"""The one path on which stored SQL runs: metric -> prepared statement -> rows -> JSON bytes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from service.database.reader import Column, Description, Reader
from service.metrics.models import Definition, Metric, Result

_encoder: Final = msgspec.json.Encoder()


class Prepared(Struct, frozen=True):
    """A metric as Postgres understands it; `record` is the Struct that its rows become."""

    metric: Metric
    description: Description
    record: type[Struct]


class Executor:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._prepared: dict[UUID, Prepared] = {}

    async def prepare(self, metric: Metric) -> Prepared:
        """Describe a metric's SQL once for as long as its definition stands."""
        held = self._prepared.get(metric.id)
        if held is None or held.metric != metric:
            description = await self._reader.describe(metric.sql)
            held = Prepared(metric, description, record_type(description.columns))
            self._prepared[metric.id] = held
        return held

    async def run(self, metric: Metric) -> bytes:
        """Run a metric; its `Result` as JSON."""
        prepared = await self.prepare(metric)
        as_of = datetime.now(UTC)
        rows = await self._reader.run(prepared.description.sql)
        record = prepared.record
        result = Result(
            id=metric.id,
            title=metric.shown_title,
            query_id=metric.query_id,
            is_editable=metric.is_editable,
            layouts=metric.layouts,
            parameters={},
            columns=prepared.description.columns,
            records=[record(*row) for row in rows.records],
            row_count=len(rows.records),
            truncated=rows.truncated,
            as_of=as_of,
        )
        return _encoder.encode(result)

    async def define(self, metric: Metric) -> Definition:
        description = (await self.prepare(metric)).description
        return Definition(
            id=metric.id,
            title=metric.shown_title,
            query_id=metric.query_id,
            is_editable=metric.is_editable,
            sql=metric.sql,
            columns=description.columns,
            tables=tables_of(description.plan),
            estimated_cost=description.plan["Total Cost"],
            version=metric.version,
            updated_at=metric.updated_at,
        )


def tables_of(plan: dict[str, Any]) -> tuple[str, ...]:
    """The relations that a plan reads, as `schema.table`, sorted."""
    found: set[str] = set()
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Relation Name" in node:
            found.add(f"{node['Schema']}.{node['Relation Name']}")
    return tuple(sorted(found))


def record_type(columns: Sequence[Column]) -> type[Struct]:
    """A Struct whose fields are encoded under the columns' names, whatever these are."""
    fields: list[tuple[str, Any]] = [(f"c{number}", Any) for number in range(len(columns))]
    names = {f"c{number}": column.name for number, column in enumerate(columns)}
    return msgspec.defstruct("Record", fields, rename=names, frozen=True)
