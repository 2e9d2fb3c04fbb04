"""A metric's rows as JSON, CSV or NDJSON bytes, exactly as Postgres gave them."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import starmap
from math import isfinite
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from service.database.stored_sql.reader import Column
from service.errors import NotAcceptable
from service.metrics.models import Metric, Result
from service.results.headers import VARY

Format = Literal["json", "csv", "ndjson"]

MEDIA_TYPES: Final[dict[Format, str]] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}
# Makes a row's values into what is encoded as its record.
RecordMaker = Callable[..., Any]
# What a Struct's field cannot be renamed to.
_UNFIT: Final = re.compile(r'["\\\x00-\x1f]')
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")

# Much the fastest way from the driver's record to a tuple.
_values: Final = itemgetter(slice(None))
# Parameters hold Decimals; the rows never do.
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class Outcome(Struct, frozen=True, kw_only=True):
    """What a run gave, before it is written in a format."""

    metric: Metric
    parameters: dict[str, Any]
    columns: tuple[Column, ...]
    record: RecordMaker
    rows: Sequence[Any]
    truncated: bool
    as_of: datetime


def record_maker(columns: Sequence[Column]) -> RecordMaker:
    """What makes a record, encoded under the columns' names, of a row's values."""
    names = [column.name for column in columns]
    if any(_UNFIT.search(name) for name in names):
        return lambda *values: dict(zip(names, values, strict=True))
    fields: list[tuple[str, Any]] = [(f"c{number}", Any) for number in range(len(columns))]
    rename = {f"c{number}": name for number, name in enumerate(names)}
    return msgspec.defstruct("Record", fields, rename=rename, frozen=True, gc=False)


def render(outcome: Outcome, form: Format, *, excel: bool = False) -> bytes:
    """Write an outcome; `excel` prefixes CSV cells that a spreadsheet would run as a formula."""
    if form == "csv":
        return _csv(outcome, excel=excel)
    records = list(starmap(outcome.record, map(_values, outcome.rows)))
    if form == "ndjson":
        return _encoder.encode_lines(records)
    metric = outcome.metric
    return _encoder.encode(
        Result(
            id=metric.id,
            title=metric.shown_title,
            query_id=metric.query_id,
            is_editable=metric.is_editable,
            layouts=metric.layouts,
            parameters=outcome.parameters,
            columns=outcome.columns,
            records=records,
            row_count=len(records),
            truncated=outcome.truncated,
            as_of=outcome.as_of,
        )
    )


def _csv(outcome: Outcome, *, excel: bool) -> bytes:
    """RFC 4180 with a header row; null is an empty cell, nested values are their JSON."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(column.name, excel=excel) for column in outcome.columns])
    for row in outcome.rows:
        writer.writerow([_cell(value, excel=excel) for value in row])
    return text.getvalue().encode()


def _cell(value: Any, *, excel: bool) -> str:
    match value:
        case None:
            return ""
        case str():
            return f"'{value}" if excel and value.startswith(_FORMULA_STARTS) else value
        case msgspec.Raw():
            return bytes(value).decode()
        case float() if not isfinite(value):  # null, as in JSON
            return ""
        case _:  # numbers, booleans, bytes and arrays read as in JSON
            return _encoder.encode(value).decode().strip('"')


def choose(accept: str, asked: str | None) -> Format:
    """The format of an answer: `?format=` wins over `Accept`; `NotAcceptable` if it is none of ours."""
    if asked is None:
        if not accept:
            return "json"
        weights: dict[Format, float] = {
            form: _weight(accept, media_type.split(";")[0]) for form, media_type in MEDIA_TYPES.items()
        }
        best = max(weights, key=weights.__getitem__)
        if weights[best]:
            return best
    elif asked in MEDIA_TYPES:
        return asked
    raise NotAcceptable(headers={"Vary": VARY})


def _weight(accept: str, media_type: str) -> float:
    """Preference of a media type in an Accept header (RFC 9110): the most specific range decides."""
    if not accept.strip():
        return 1.0
    found: tuple[int, float] = (-1, 0.0)
    for part in accept.split(","):
        name, *options = (piece.strip() for piece in part.lower().split(";"))
        ranges = (media_type, f"{media_type.split('/', maxsplit=1)[0]}/*", "*/*")
        if name in ranges:
            found = max(found, (2 - ranges.index(name), _quality(options)))
    return found[1]


def _quality(options: Sequence[str]) -> float:
    for option in options:
        if option.startswith("q="):
            try:
                return min(max(float(option[2:]), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
