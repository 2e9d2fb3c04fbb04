"""Metrics with the types of their own parameters and rows. `python -m tally_client metrics` writes them."""

from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ._generated.models import Result
from .aio import AsyncClient
from .client import Client
from .live import LiveEvent

Row = TypeVar("Row")
Given = TypeVar("Given")


@dataclass(frozen=True)
class TypedResult(Generic[Row]):
    """The rows of a metric, and the whole `result` with all else that the service said."""

    records: list[Row]
    result: Result

    @classmethod
    def of(cls, result: Result) -> "TypedResult[Row]":
        return cls(cast("list[Row]", result.records), result)


@dataclass(frozen=True)
class Metric(Generic[Row, Given]):
    """One metric. `Row` and `Given` are TypedDicts of its columns and parameters."""

    id: str
    title: str

    def get(self, client: Client, parameters: Given | None = None) -> TypedResult[Row]:
        return TypedResult[Row].of(client.get_metric_result(self.id, parameters=_mapping(parameters)))

    async def get_async(self, client: AsyncClient, parameters: Given | None = None) -> TypedResult[Row]:
        return TypedResult[Row].of(await client.get_metric_result(self.id, parameters=_mapping(parameters)))

    def watch(self, client: Client, parameters: Given | None = None) -> Generator[LiveEvent]:
        return client.watch_metric(self.id, parameters=_mapping(parameters))

    def watch_async(self, client: AsyncClient, parameters: Given | None = None) -> AsyncGenerator[LiveEvent]:
        return client.watch_metric(self.id, parameters=_mapping(parameters))


def _mapping(parameters: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", parameters or {})
