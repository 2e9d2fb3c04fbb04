"""Write a result as an Arrow IPC stream, with the extra `arrow`. Every value is exact.

A column has the Arrow type of its Postgres type. A column with a value that this type cannot hold
("infinity", 24:00:00, more than 76 digits) is text instead, as in CSV.
"""

import re
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from itertools import accumulate
from math import inf, isnan
from struct import Struct as Layout
from typing import Any, Final, TypeVar
from uuid import UUID

from msgspec import Raw

from service.http import bodies
from service.metrics.formats import Outcome

_VALUES_OF_A_PART: Final = 20_000
"""Values of a column after which the event loop serves other requests."""
_DIGITS_128: Final = 38
_DIGITS_256: Final = 76
_LONGEST_NUMBER: Final = _DIGITS_256 + 3
"""Characters, with the sign, the point and the zero before it."""
_MICROSECONDS: Final = 1_000_000
_DAY_US: Final = 86_400 * _MICROSECONDS
_INT64: Final = 1 << 63
_INT32: Final = 1 << 31
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (timestamps without zone)
_EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = _EPOCH.toordinal()
_DATE: Final = re.compile(
    r"(\d+)-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?"
    r"(?:([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?|Z)?( BC)?"
)
_INTERVAL: Final = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?"
    r"(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d{1,6}))?S)?)?"
)
_MONTH_DAY_NANO: Final = Layout("<iiq")
_INFINITIES: Final = {inf: b"Infinity", -inf: b"-Infinity"}
_CUT: Final = {"tally.truncated": "true"}
"""Metadata of the schema of a result that has more rows than ROW_LIMIT."""

T = TypeVar("T")
Column = Sequence[Any]
Made = tuple[Any, Any]
"""The schema of a field and its array."""
Work = Generator[bytes, None, T]
"""Work in parts: what it yields is empty, and lets the event loop serve other requests."""
Maker = Callable[[Any, Column], Work[Made]]


class _Unfit(Exception):  # noqa: N818 (it is no error)
    """A value that the column's Arrow type cannot hold."""


def available() -> bool:
    """Whether the extra `arrow` is installed."""
    return find_spec("nanoarrow") is not None


def encode(outcome: Outcome) -> Iterator[bytes]:
    """Yield the stream. Empty parts only let the event loop serve other requests."""
    # An extra, and nobody else pays for its import. It has no types.
    na: Any = import_module("nanoarrow")
    ipc: Any = import_module("nanoarrow.ipc")
    count = len(outcome.rows)
    columns: list[Column] = list(zip(*outcome.rows, strict=True)) if count else [()] * len(outcome.columns)
    fields: dict[str, Any] = {}
    arrays: list[Any] = []
    for described, values in zip(outcome.columns, columns, strict=True):
        fields[described.name], made = yield from _column(na, described.type, values)
        arrays.append(made)
    kind = na.c_schema(na.struct(fields))
    if outcome.truncated:
        kind = kind.modify(metadata=_CUT)
    batch = na.c_array_from_buffers(kind, count, [None], children=arrays)
    out = BytesIO()
    with ipc.StreamWriter.from_writable(out) as writer:
        writer.write_stream(batch)
    yield out.getvalue()


def _column(na: Any, type_name: str, values: Column) -> Work[Made]:
    """Return the field and the array of a column."""
    maker = _MAKERS.get(type_name) or _maker_for(values)
    try:
        return (yield from maker(na, values))
    except _Unfit:
        return (yield from _text(na, values))


def _maker_for(values: Column) -> Maker:
    """How to write a type that only the database knows: by its values, as text unless all are of one kind."""
    kinds: list[type] = [*{type(value) for value in values if value is not None}]
    return _BY_KIND.get(kinds[0], _text) if len(kinds) == 1 else _text


def _mapped(values: Column, change: Callable[[Any], T]) -> Work[list[T | None]]:
    """Return the changed values, null staying null."""
    found: list[T | None] = []
    for at in range(0, len(values), _VALUES_OF_A_PART):
        found += [None if each is None else change(each) for each in values[at : at + _VALUES_OF_A_PART]]
        yield b""
    return found


def _validity(values: Column) -> bytes | None:
    """The bitmap of what is not null."""
    if None not in values:
        return None
    bits = "".join(["0" if value is None else "1" for value in reversed(values)])
    return int(bits, 2).to_bytes((len(values) + 7) // 8, "little")


def _fixed(na: Any, kind: Any, values: Column, data: Any) -> Made:
    return kind, na.c_array_from_buffers(kind, len(values), [_validity(values), data])


def _numbers(code: str, name: str) -> Maker:
    """Integers and floats, as the driver gives them."""

    def make(na: Any, values: Column) -> Work[Made]:
        yield b""
        plain = values if None not in values else [0 if value is None else value for value in values]
        try:
            return _fixed(na, getattr(na, name)(), values, array(code, plain))
        except (OverflowError, TypeError):
            raise _Unfit from None

    return make


def _changed(code: str, kind: Callable[[Any], Any], change: Callable[[Any], Any]) -> Maker:
    """Values that become integers or floats."""

    def make(na: Any, values: Column) -> Work[Made]:
        found = yield from _mapped(values, change)
        plain: list[Any] = [0 if value is None else value for value in found]
        try:
            return _fixed(na, kind(na), found, array(code, plain))
        except OverflowError:
            raise _Unfit from None

    return make


def _booleans(na: Any, values: Column) -> Work[Made]:
    yield b""
    bits = "".join(["1" if value else "0" for value in reversed(values)]) or "0"
    return _fixed(na, na.bool_(), values, int(bits, 2).to_bytes((len(values) + 7) // 8, "little"))


def _bytes(na: Any, kind: Any, values: Column) -> Made:
    """Texts and binaries: offsets and one run of bytes."""
    plain = [value or b"" for value in values]
    ends = array("i", accumulate(map(len, plain), initial=0))
    return kind, na.c_array_from_buffers(kind, len(plain), [_validity(values), ends, b"".join(plain)])


def _text(na: Any, values: Column) -> Work[Made]:
    """Texts, and what has no Arrow type of its own, as JSON writes it."""
    found = yield from _mapped(values, _as_text)
    return _bytes(na, na.string(), found)


def _as_text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, float):
        return b"NaN" if isnan(value) else _INFINITIES.get(value) or repr(value).encode()
    return bodies.encode(value)


def _binary(na: Any, values: Column) -> Work[Made]:
    yield b""
    return _bytes(na, na.binary(), values)


def _uuids(na: Any, values: Column) -> Work[Made]:
    found = yield from _mapped(values, _uuid)
    kind = na.extension_type(na.fixed_size_binary(16), "arrow.uuid")
    storage = na.c_array_from_buffers(
        na.fixed_size_binary(16),
        len(found),
        [_validity(found), b"".join([each or bytes(16) for each in found])],
    )
    return kind, storage


def _uuid(text: str) -> bytes:
    return UUID(text).bytes


def _decimals(na: Any, values: Column) -> Work[Made]:
    """Numerics with the largest scale of all values. `NaN` and the infinities are no decimals."""
    parsed = yield from _mapped(values, _digits)
    scale = max((each[1] for each in parsed if each is not None), default=0)
    unscaled = yield from _mapped(parsed, partial(_at_scale, scale))
    digits = max(len(str(max((abs(each) for each in unscaled if each is not None), default=0))), scale)
    if digits > _DIGITS_256:
        raise _Unfit
    small = digits <= _DIGITS_128
    kind = na.decimal128(_DIGITS_128, scale) if small else na.decimal256(_DIGITS_256, scale)
    size = 16 if small else 32
    data = b"".join([(each or 0).to_bytes(size, "little", signed=True) for each in unscaled])
    return _fixed(na, kind, unscaled, data)


def _at_scale(scale: int, parsed: tuple[int, int]) -> int:
    return parsed[0] * 10 ** (scale - parsed[1])


def _digits(value: Any) -> tuple[int, int]:
    """The digits of a numeric as an integer, and its scale."""
    if isinstance(value, float) or len(text := bytes(value)) > _LONGEST_NUMBER:
        raise _Unfit
    whole, _, fraction = text.partition(b".")
    return int(whole + fraction), len(fraction)


def _real(value: Any) -> float:
    return value if isinstance(value, float) else float(bytes(value))


def _day(text: str) -> int:
    try:
        return datetime.fromisoformat(text).toordinal() - _EPOCH_DAY
    except ValueError:
        return _far(text)[0]


def _timestamp(text: str) -> int:
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        return _far_time(text)
    return since.days * _DAY_US + since.seconds * _MICROSECONDS + since.microseconds


def _timestamp_utc(text: str) -> int:
    try:
        since = datetime.fromisoformat(text) - _EPOCH_UTC
    except (ValueError, TypeError):
        return _far_time(text)
    return since.days * _DAY_US + since.seconds * _MICROSECONDS + since.microseconds


def _far_time(text: str) -> int:
    days, rest = _far(text)
    since = days * _DAY_US + rest
    if not -_INT64 <= since < _INT64:
        raise _Unfit
    return since


def _far(text: str) -> tuple[int, int]:
    """Days since 1970 and microseconds of a time that Python's calendar does not have. Raises `_Unfit`."""
    found = _DATE.fullmatch(text)
    if found is None:  # infinity
        raise _Unfit
    year, month, day, hour, minute, second, fraction, sign, *offset, before = found.groups()
    # Days of the proleptic Gregorian calendar, in years that begin in March.
    years = (1 - int(year) if before else int(year)) - (int(month) <= _FEBRUARY)
    months = (int(month) + 9) % 12
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * months + 2) // 5 + int(day) - 1
    seconds = _seconds(hour, minute, second) - (1 if sign == "+" else -1) * _seconds(*offset)
    return days - _DAYS_TO_1970, seconds * _MICROSECONDS + int((fraction or "0").ljust(6, "0"))


_FEBRUARY: Final = 2
_DAYS_TO_1970: Final = 719_468
"""Days from 1 March of year 0."""


def _seconds(hour: str | None, minute: str | None, second: str | None) -> int:
    return int(hour or 0) * 3600 + int(minute or 0) * 60 + int(second or 0)


def _time(text: str) -> int:
    """Microseconds since midnight. Arrow has no 24:00:00."""
    clock, _, fraction = text.partition(".")
    found = _seconds(*clock.split(":")) * _MICROSECONDS + int(fraction.ljust(6, "0") or 0)
    if found >= _DAY_US:
        raise _Unfit
    return found


def _intervals(na: Any, values: Column) -> Work[Made]:
    found = yield from _mapped(values, _interval)
    data = b"".join([each or bytes(16) for each in found])
    return _fixed(na, na.interval_month_day_nano(), found, data)


def _interval(text: str) -> bytes:
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise _Unfit
    years, months, weeks, days, hours, minutes, sign, seconds, fraction = found.groups("")
    all_months = int(years or 0) * 12 + int(months or 0)
    all_days = int(weeks or 0) * 7 + int(days or 0)
    part = int(seconds or 0) * _MICROSECONDS + int(fraction.ljust(6, "0") or 0)
    whole = (int(hours or 0) * 60 + int(minutes or 0)) * 60 * _MICROSECONDS
    nanos = (whole + (-part if sign else part)) * 1000
    if max(abs(all_months), abs(all_days)) >= _INT32 or abs(nanos) >= _INT64:
        raise _Unfit
    return _MONTH_DAY_NANO.pack(all_months, all_days, nanos)


_MAKERS: Final[dict[str, Maker]] = {
    "smallint": _numbers("h", "int16"),
    "integer": _numbers("i", "int32"),
    "bigint": _numbers("q", "int64"),
    "double precision": _numbers("d", "float64"),
    "real": _changed("f", lambda na: na.float32(), _real),
    "numeric": _decimals,
    "boolean": _booleans,
    "date": _changed("i", lambda na: na.date32(), _day),
    "time without time zone": _changed("q", lambda na: na.time64("us"), _time),
    "timestamp without time zone": _changed("q", lambda na: na.timestamp("us"), _timestamp),
    "timestamp with time zone": _changed("q", lambda na: na.timestamp("us", timezone="UTC"), _timestamp_utc),
    "interval": _intervals,
    "uuid": _uuids,
    "bytea": _binary,
    **dict.fromkeys(("text", "character varying", "character", "name", "json", "jsonb"), _text),
}
_BY_KIND: Final = {
    int: _numbers("q", "int64"),
    float: _numbers("d", "float64"),
    bool: _booleans,
    bytes: _binary,
}
