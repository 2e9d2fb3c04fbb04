"""Metrics over HTTP."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from service.errors import DatabaseUnavailable, FieldError, InvalidInput, NotFound, QueryTimeout
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.metrics.models import Definition, Metric, MetricPage, MetricSummary

MAX_PAGE: Final = 500


class MetricsController(Controller):
    path = "/metrics"
    tags = ("metrics",)

    @get("/", summary="Metrics, paged", sync_to_thread=False, opt={"problems": (DatabaseUnavailable,)})
    def list_metrics(
        self,
        catalog: NamedDependency[Catalog],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="items in a page")] = 50,
        cursor: Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")] = None,
    ) -> MetricPage:
        found = catalog.page(_read_cursor(cursor), limit)
        following = _write_cursor(found[limit - 1].id) if len(found) > limit else None
        return MetricPage([_summary(metric) for metric in found[:limit]], following)

    @get(
        "/{metric_id:str}",
        summary="A metric's result",
        opt={"problems": (NotFound, QueryTimeout, DatabaseUnavailable)},
    )
    async def result(
        self, metric_id: FromPath[str], catalog: NamedDependency[Catalog], executor: NamedDependency[Executor]
    ) -> Response[bytes]:
        body = await executor.run(catalog.get(parse_id(metric_id)))
        return Response(body, media_type="application/json")

    @get(
        "/{metric_id:str}/definition",
        summary="A metric's SQL, parameters, columns and tables",
        opt={"problems": (NotFound, DatabaseUnavailable)},
    )
    async def definition(
        self, metric_id: FromPath[str], catalog: NamedDependency[Catalog], executor: NamedDependency[Executor]
    ) -> Definition:
        return await executor.define(catalog.get(parse_id(metric_id)))


def parse_id(text: str) -> UUID:
    try:
        return msgspec.convert(text, UUID, strict=False)
    except msgspec.ValidationError:
        raise InvalidInput(errors=(FieldError("id", f"{text[:60]!r} is not a UUID"),)) from None


def _summary(metric: Metric) -> MetricSummary:
    return MetricSummary(
        id=metric.id,
        title=metric.shown_title,
        query_id=metric.query_id,
        is_editable=metric.is_editable,
        layouts=metric.layouts,
    )


def _write_cursor(after: UUID) -> str:
    return urlsafe_b64encode(after.bytes).decode().rstrip("=")


def _read_cursor(cursor: str | None) -> UUID | None:
    try:
        return None if cursor is None else UUID(bytes=urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error):
        raise InvalidInput(errors=(FieldError("cursor", "not a cursor of this list"),)) from None
