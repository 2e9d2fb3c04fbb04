"""Encode a metric's rows as JSON, CSV or NDJSON. Values stay exactly as Postgres returned them."""

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import starmap
from math import isfinite
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from service.database.stored_sql.describing import ResultColumn
from service.errors import NotAcceptable, ResultTooLarge
from service.http import bodies
from service.http.csv_cells import quoted
from service.http.fields import media_type_of, media_weight, weights
from service.metrics.models import Metric, Result
from service.results.headers import VARY

Format = Literal["json", "csv", "csv-bom", "ndjson", "arrow"]
"""`csv-bom` is CSV that begins with a byte order mark, by which spreadsheets know UTF-8."""

MEDIA_TYPES: Final[dict[Format, str]] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "csv-bom": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}
CSV: Final[frozenset[Format]] = frozenset({"csv", "csv-bom"})
_OBJECTS: Final = frozenset({"json", "ndjson"})
"""Formats that repeat the columns' names in each record."""
_ASKED: Final[dict[str, Format]] = {"json": "json", "csv": "csv", "ndjson": "ndjson", "arrow": "arrow"}
_NO_ARROW: Final = "Arrow needs the extra `arrow` on the server: pip install 'tally-metrics[arrow]'."
# Turns a row's values into the object that is encoded as its record.
RecordMaker = Callable[..., Any]
# Characters that the name of a Struct's field cannot contain.
_UNFIT: Final = re.compile(r'["\\]')
_CELLS_OF_A_PART: Final = 60_000
_BYTES_OF_A_PART: Final = 1 << 19
"""Values, and their approximate bytes, in one part. Other callers are served between parts."""
_BESIDE_NAME: Final = 4
_LONG_TEXTS_FROM: Final = 1 << 20
_PIECE: Final = 1 << 17
_ONE_EMPTY: Final = '""'
"""A line with one empty cell. Without quotes the line would be blank."""
_NO_LIMIT: Final = 1 << 62
_BOM: Final = b"\xef\xbb\xbf"
_RECORDS: Final = b',"records":['
_NO_RECORDS: Final = _RECORDS + b"]"
_FORMULA: Final = re.compile(
    r"(?![+-](?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z)[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
)
"""How a text begins that a spreadsheet may run: also with wide signs, but not a number with its sign."""

# The fastest way from the driver's record to a tuple.
_values: Final = itemgetter(slice(None))


class Outcome(Struct, frozen=True, kw_only=True, gc=False):
    """The result of a run, before it is encoded in a format."""

    metric: Metric
    parameters: dict[str, Any]
    columns: tuple[ResultColumn, ...]
    record: RecordMaker
    rows: Sequence[Any]
    truncated: bool
    as_of: datetime
    received: int = 0
    """Bytes received from Postgres; 0 if they are few. Texts of a large result may take long to encode."""


Encoder = Callable[[Outcome], Iterator[bytes]]
"""Writes an outcome in parts that take milliseconds each."""


def record_maker(columns: Sequence[ResultColumn]) -> RecordMaker:
    """Return a function that turns a row's values into a record with the columns' names as fields."""
    names = [column.name for column in columns]
    if any(_UNFIT.search(name) for name in names):
        return lambda *values: dict(zip(names, values, strict=True))
    fields: list[tuple[str, Any]] = [(f"c{number}", Any) for number in range(len(columns))]
    rename = {f"c{number}": name for number, name in enumerate(names)}
    return msgspec.defstruct("Record", fields, rename=rename, frozen=True, gc=False)


def render(outcome: Outcome, form: Format, *, excel: bool = False) -> bytes:
    """Encode an outcome. `excel` prefixes CSV cells that a spreadsheet would run as a formula."""
    return b"".join(parts(outcome, form, excel=excel))


def parts(
    outcome: Outcome,
    form: Format,
    *,
    excel: bool = False,
    limit: int = _NO_LIMIT,
    encoder: Encoder | None = None,
) -> Iterator[bytes]:
    """Yield the bytes of `render` in parts that take milliseconds each. `encoder` writes Arrow.

    Raises `ResultTooLarge` past `limit` bytes, and before encoding if the columns' names alone exceed it.
    """
    left = limit
    if form in _OBJECTS and len(outcome.rows) * _names_bytes(outcome.columns) > left:
        raise _too_large(limit)
    written = _written(outcome, form, limit, excel=excel) if encoder is None else encoder(outcome)
    for part in written:
        left -= len(part)
        if left < 0:
            raise _too_large(limit)
        yield part


def _too_large(limit: int) -> ResultTooLarge:
    return ResultTooLarge(
        f"The result takes more than {limit} bytes (RESULT_BYTES_LIMIT) as it is written: select fewer "
        "columns or rows, or give the columns shorter names."
    )


def _names_bytes(columns: Sequence[ResultColumn]) -> int:
    """Bytes of a record without its values: the names, each with quotes, colon and comma."""
    return sum(len(column.name.encode()) + _BESIDE_NAME for column in columns)


def _written(outcome: Outcome, form: Format, limit: int, *, excel: bool) -> Iterator[bytes]:
    """Yield parts. An empty part only lets the event loop serve other requests."""
    rows = outcome.rows
    step = _CELLS_OF_A_PART // max(1, len(outcome.columns))
    if outcome.received > _BYTES_OF_A_PART:
        step = min(step, len(rows) * _BYTES_OF_A_PART // outcome.received)
    step = max(1, step)
    slices = [rows] if len(rows) <= step else [rows[at : at + step] for at in range(0, len(rows), step)]
    if form in CSV:
        yield _BOM if form == "csv-bom" else b""
        yield _lines([[column.name for column in outcome.columns]], excel=excel)
        for some in slices:
            yield _lines(some, excel=excel)
        return
    around = b""
    for number, some in enumerate(slices):
        values: Iterable[Sequence[Any]] = map(_values, some)
        if outcome.received > _LONG_TEXTS_FROM:
            values = yield from _with_texts_written(values, limit)
        records = list(starmap(outcome.record, values))
        if form == "ndjson":
            yield bodies.encode_lines(records)
        elif len(slices) == 1:
            yield bodies.encode(_result(outcome, records))
        else:
            if not number:
                head, _, around = bodies.encode(_result(outcome, [])).rpartition(_NO_RECORDS)
                yield head + _RECORDS
            yield (b"," if number else b"") + bodies.encode(records)[1:-1]
    if around:
        yield b"]" + around


def _with_texts_written(
    rows: Iterable[Sequence[Any]], limit: int
) -> Generator[bytes, None, list[Sequence[Any]]]:
    """Encode long texts piece by piece: 50 MB of characters that need escapes take a second."""
    encoded: list[Sequence[Any]] = []
    left = limit
    for row in rows:
        values = list(row)
        for number, value in enumerate(row):
            if isinstance(value, str) and len(value) > _PIECE:
                pieces: list[bytes] = []
                for at in range(0, len(value), _PIECE):
                    pieces.append(bodies.encode(value[at : at + _PIECE])[1:-1])
                    left -= len(pieces[-1])
                    if left < 0:
                        raise _too_large(limit)
                    yield b""
                values[number] = msgspec.Raw(b'"' + b"".join(pieces) + b'"')
        encoded.append(values)
    return encoded


def _result(outcome: Outcome, records: list[Any]) -> Result:
    metric = outcome.metric
    return Result(
        id=metric.id,
        title=metric.shown_title,
        query_id=metric.query_id,
        is_editable=metric.is_editable,
        layouts=metric.layouts,
        parameters=outcome.parameters,
        columns=outcome.columns,
        records=records,
        row_count=len(outcome.rows),
        truncated=outcome.truncated,
        as_of=outcome.as_of,
    )


def _lines(rows: Sequence[Sequence[Any]], *, excel: bool) -> bytes:
    """Encode rows as CSV lines (RFC 4180). Null is an empty cell; nested values are JSON."""
    lines = [",".join([quoted(_cell(value, excel=excel)) for value in row]) for row in rows]
    if rows and len(rows[0]) == 1:
        lines = [line or _ONE_EMPTY for line in lines]
    return ("\r\n".join(lines) + "\r\n").encode() if lines else b""


def _cell(value: Any, *, excel: bool) -> str:
    match value:
        case None:
            return ""
        case str():
            return f"'{value}" if excel and _FORMULA.match(value) else value
        case msgspec.Raw():
            return bytes(value).decode()
        case float() if not isfinite(value):  # null, as in JSON
            return ""
        case _:  # numbers, booleans, bytes and arrays read as in JSON
            text = bodies.encode(value).decode()
            cell = text.strip('"')
            return f"'{cell}" if excel and text.startswith('"') and _FORMULA.match(cell) else cell


_ANYTHING: Final = frozenset({"", "*/*", "application/json"})
"""What most callers accept."""


def choose(accept: str, asked: str | None, *, arrow: bool = False) -> Format:
    """Choose the format of an answer. `?format=` wins over `Accept`. Raises `NotAcceptable`.

    `arrow`: whether the extra of that name is installed.
    """
    if asked is None:
        if accept in _ANYTHING:
            return "json"
        wanted: dict[Format, float] = {
            form: media_weight(accept, media_type_of(media_type))
            for form, media_type in MEDIA_TYPES.items()
            if arrow or form != "arrow"
        }
        best = max(wanted, key=wanted.__getitem__)
        if wanted[best]:
            return best
    elif asked in _ASKED and (arrow or asked != "arrow"):
        return _ASKED[asked]
    wants_arrow = asked == "arrow" or (asked is None and MEDIA_TYPES["arrow"] in weights(accept))
    raise NotAcceptable(_NO_ARROW if wants_arrow and not arrow else "", headers={"Vary": VARY})
