"""The built-in contracts: the rules that a row of each dataset must meet before it is stored.

A dataset is one Struct below and its name in `DATASETS`; the Struct's field names are the table's columns.
Field types choose the cleaning and the check (`plan/cells.py`); `column(...)` adds what a type cannot say.
How to add one: `docs/imports.md`, "A dataset in code".
"""

import types
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec
from msgspec import NODEFAULT, Meta, Struct, structs

from service.database.queries import literal
from service.imports.contracts import Dataset, DatasetColumn, Kind, Reference, find_among

INT4 = 2_147_483_647
INT8 = 9_223_372_036_854_775_807
SQL_TYPES: dict[Kind, str] = {
    "text": "text", "sql": "text", "integer": "bigint", "number": "numeric", "flag": "boolean",
    "moment": "timestamp", "month": "date", "uuid": "uuid",
}  # fmt: skip
KINDS: dict[type, Kind] = {
    str: "text", int: "integer", Decimal: "number", bool: "flag",
    datetime: "moment", date: "month", UUID: "uuid",
}  # fmt: skip


def column(
    *aliases: str,
    key: bool = False,
    refers_to: str = "",
    vocabulary: str = "",
    sql: bool = False,
    **limits: Any,
) -> Meta:
    """Describe a column beyond its type.

    `aliases` are further headings (case, spaces, `_` and `-` never matter). `key` columns identify the row.
    `refers_to` names the dataset whose key must hold the value; without it the row waits as an orphan. A
    `vocabulary` keeps the first spelling of each word. `sql` text is validated and never changed.
    `limits` are msgspec's (`ge`, `le`, `max_length` in characters).
    """
    own = {
        "aliases": aliases, "key": key, "refers_to": refers_to, "vocabulary": vocabulary, "sql": sql,
    }  # fmt: skip
    shown = {f"x-{name.replace('_', '-')}": value for name, value in own.items() if value}
    return Meta(extra=own, extra_json_schema=shown, **limits)


class Contract(Struct, frozen=True, kw_only=True):
    """A row. `X | None` may be empty. With a default, the heading may be absent too.

    Rows without a key column are facts: content and occurrence in the file identify a row.
    """

    dataset: ClassVar[str]
    schema: ClassVar[str] = "data"
    table: ClassVar[str]
    json_part: ClassVar[str] = "items"
    """The key that holds the rows if a JSON document is an object."""
    also_in: ClassVar[str] = ""
    """The dataset whose JSON files also hold rows of this dataset."""
    on_update: ClassVar[str] = ""
    """Further assignments when a stored row changes."""


class Queries(Contract, frozen=True, kw_only=True):
    """Stored SQL."""

    dataset = "queries"
    schema = "catalog"
    table = "query"
    on_update = "trusted = false, updated_at = now()"

    id: Annotated[str, column("query_id", key=True, max_length=200)]
    sql: Annotated[str, column("query", sql=True, max_length=100_000)]


class Metrics(Contract, frozen=True, kw_only=True):
    """Named tiles, each over one stored query."""

    dataset = "metrics"
    schema = "catalog"
    table = "metric"
    on_update = "version = t.version + 1, updated_at = now()"

    id: Annotated[UUID, column("metric_id", key=True)]
    query_id: Annotated[str, column(refers_to="queries", max_length=200)]
    title: Annotated[str, column(max_length=255)] | None = None
    is_editable: Annotated[bool, column()] = True
    fresh_for_s: Annotated[int, column(ge=0, le=INT4)] | None = None
    stale_for_s: Annotated[int, column(ge=0, le=INT4)] | None = None


class Layouts(Contract, frozen=True, kw_only=True):
    """Where metrics sit on a dashboard, in the shape of react-grid-layout."""

    dataset = "layouts"
    schema = "catalog"
    table = "layout_item"
    json_part = "layouts"
    also_in = "metrics"

    dashboard_id: Annotated[Literal["default"], column("dashboard", key=True)] = "default"
    metric_id: Annotated[UUID, column("i", "metric", key=True, refers_to="metrics")]
    breakpoint: Annotated[str, column(key=True, max_length=20)]
    x: Annotated[int, column(ge=0, le=INT4)]
    y: Annotated[int, column(ge=0, le=INT4)]
    w: Annotated[int, column("width", ge=1, le=INT4)]
    h: Annotated[int, column("height", ge=1, le=INT4)]
    static: Annotated[bool, column()] = False


class MetricRecords(Contract, frozen=True, kw_only=True):
    """Recorded facts; each kind of fact fills its own columns."""

    dataset = "metric_records"
    table = "metrics"

    id: Annotated[str, column(max_length=200)]
    date: Annotated[datetime, column()]
    obsolescence: Annotated[Decimal, column()] | None = None
    alert_type: Annotated[str, column(vocabulary="alert_type", max_length=200)] | None = None
    parts_flagged: Annotated[int, column(ge=-INT4, le=INT4)] | None = None
    obsolescence_val: Annotated[Decimal, column()] | None = None
    alert_category: Annotated[str, column(vocabulary="alert_category", max_length=200)] | None = None


class Customers(Contract, frozen=True, kw_only=True):
    """Who the company is in touch with."""

    dataset = "customers"
    table = "customers"

    customer_id: Annotated[int, column("customer", "customers", key=True, ge=1, le=INT8)]
    occupation: Annotated[str, column(vocabulary="occupation", max_length=200)] | None
    type: Annotated[str, column("customer_type", vocabulary="customer_type", max_length=200)] | None


class ExternalInteractions(Contract, frozen=True, kw_only=True):
    """One contact with one customer over one channel."""

    dataset = "external_interactions"
    table = "external_interactions"

    date_start: Annotated[datetime, column("date", key=True)]
    interaction: Annotated[str, column("channel", key=True, vocabulary="channel", max_length=200)]
    customer_id: Annotated[
        int, column("customer", "customers", key=True, refers_to="customers", ge=1, le=INT8)
    ]


class ProductsOfDiscussion(Contract, frozen=True, kw_only=True):
    """Which product the company talked about in a month."""

    dataset = "products_of_discussion"
    table = "products_of_discussion"

    month: Annotated[date, column("date", key=True)]
    product: Annotated[str, column("products", key=True, vocabulary="product", max_length=200)]


def describe(row: type[Contract], *before: Dataset) -> Dataset:
    """Turn a contract into a dataset. `before` holds the datasets that it may refer to."""
    columns = tuple(_columns(row))
    parents = {dataset.name: dataset for dataset in before}
    return Dataset(
        name=row.dataset,
        description=row.__doc__ or "",
        json_schema=msgspec.json.schema(row),
        schema=row.schema,
        table=row.table,
        columns=columns,
        references=tuple(
            Reference(
                columns=(column.name,),
                to=parents[column.refers_to].target,
                to_columns=parents[column.refers_to].key,
                to_name=column.refers_to,
            )
            for column in columns
            if column.refers_to
        ),
        json_part=row.json_part,
        also_in=row.also_in,
        on_update=row.on_update,
        mirrored=row.schema == "data",
    )


def _columns(row: type[Contract]) -> Iterator[DatasetColumn]:
    hints = get_type_hints(row, include_extras=True)
    for number, field in enumerate(structs.fields(row), 1):
        hint = hints[field.name]
        nullable = get_origin(hint) in {Union, types.UnionType}
        python_type, meta = get_args(next(iter(get_args(hint))) if nullable else hint)
        own = meta.extra
        missing = field.default is NODEFAULT
        kind: Kind = "sql" if own["sql"] else KINDS.get(python_type, "text")
        default = None if missing or field.default is None else str(field.default)
        yield DatasetColumn(
            name=field.name,
            cell=f"c{number}",
            kind=kind,
            type=SQL_TYPES[kind],
            choices=get_args(python_type) if get_origin(python_type) is Literal else (),
            needs_heading=missing,
            needs_value=missing and not nullable,
            default=None if default is None else f"{literal(default)}::{SQL_TYPES[kind]}",
            key=own["key"],
            refers_to=own["refers_to"],
            vocabulary=own["vocabulary"],
            aliases=own["aliases"],
            least=meta.ge,
            most=meta.le,
            longest=meta.max_length,
        )


def _described(*rows: type[Contract]) -> tuple[Dataset, ...]:
    found: list[Dataset] = []
    for row in rows:
        found.append(describe(row, *found))
    return tuple(found)


DATASETS: tuple[Dataset, ...] = _described(
    Queries,
    Metrics,
    Layouts,
    MetricRecords,
    Customers,
    ExternalInteractions,
    ProductsOfDiscussion,
)
"""All built-in datasets. A dataset comes after the datasets that it refers to."""


def find(name: str) -> Dataset | None:
    """Find a built-in dataset by name."""
    return find_among(DATASETS, name)
