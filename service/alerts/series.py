"""Read the series of a rule from the records of a result: their points in order, and which are missing."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from math import inf, isfinite, nan
from typing import Any, Final, NamedTuple

from msgspec import Struct

from service.alerts.detect import usual_step_s
from service.alerts.models import Definition
from service.database.stored_sql.describing import NUMBER_TYPES, ResultColumn
from service.errors import FieldError, InvalidInput
from service.http import bodies

TIMES: Final = frozenset(
    {"date", "timestamp", "timestamptz", "timestamp without time zone", "timestamp with time zone"}
)
_DAY_S: Final = 86_400
_KEY_LENGTH: Final = 200
_DIGITS: Final = 1000
_SCALE: Final = 16_000
_FILLED: Final = 10_000
_LENGTHS: Final = {4: "-01-01", 7: "-01"}  # a year, a month


class Reading(NamedTuple):
    """A value at a local time. `label` is the time as the result writes it. A missing value is NaN."""

    at: datetime
    label: str
    value: float


class Series(NamedTuple):
    """The points of one series in order of time."""

    key: str
    labels: dict[str, Any]
    points: list[Reading]


class Shape(Struct, frozen=True):
    """The columns of a rule. `at` is None for a result without times, whose rows are one point each."""

    column: str
    by: tuple[str, ...]
    at: str | None


class Table(NamedTuple):
    """All series of a result, the times of all points in order, and the usual seconds between them."""

    series: dict[str, Series]
    times: list[datetime]
    step_s: float


class NotSeries(Exception):  # noqa: N818 (it says what the records are)
    """The records cannot be read as series. The message says why."""


def shape_of(rule: Definition, columns: Sequence[ResultColumn]) -> Shape:
    """Find the columns of a rule in those of a result. Raises `InvalidInput`."""
    types = {column.name: column.type.partition("(")[0] for column in columns}
    known = ", ".join(types) or "none"
    wrong = [
        FieldError(field, f"the metric has no column {name!r}; it has {known}")
        for field, names in (("column", [rule.column]), ("at", [rule.at]), ("by", rule.by or ()))
        for name in names
        if name is not None and name not in types
    ]
    if not wrong and types[rule.column] not in NUMBER_TYPES:
        wrong.append(FieldError("column", f"{rule.column!r} is {types[rule.column]}, not a number"))
    if wrong:
        raise InvalidInput(errors=tuple(wrong))
    given = {rule.column, *(rule.by or ())}
    times = [name for name, kind in types.items() if kind in TIMES and name not in given]
    at = rule.at or next(iter(times), None)
    by = rule.by
    if by is None:
        by = tuple(
            name
            for name, kind in types.items()
            if kind not in NUMBER_TYPES | TIMES and name not in {at, rule.column}
        )
    if at is None and rule.kind != "threshold":
        text = f"`{rule.kind}` compares points in time: the metric needs a date or timestamp column"
        raise InvalidInput(errors=(FieldError("at", text),))
    return Shape(rule.column, by, at)


def key_of(labels: dict[str, Any]) -> str:
    """A text that tells a series from the others of its rule."""
    text = json.dumps(labels, sort_keys=True, ensure_ascii=False, default=_canonical)
    return text if len(text) <= _KEY_LENGTH else sha256(text.encode()).hexdigest()


def read_number(text: str) -> Decimal | str:
    """A number of a result, exactly. One that Postgres could not store in a label stays text."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    exponent = number.as_tuple().exponent
    fits = isinstance(exponent, int) and exponent >= -_SCALE and number.adjusted() < _SCALE
    return number if fits else text


def _series_label(value: Any) -> Any:
    """What tells a series apart. Lists and objects are written as JSON, of which Postgres stores less."""
    if isinstance(value, list | dict):
        return bodies.encode(value).decode()
    return value.replace("\0", "\u2400") if isinstance(value, str) else value


def _canonical(value: Any) -> Any:
    """Equal numbers give equal texts: a stored label has another notation than that of a result."""
    if not isinstance(value, Decimal) or abs(value.adjusted()) > _DIGITS:
        return str(value)
    text = format(value, "f")
    whole, _, fraction = text.partition(".")
    return text.rstrip("0") if fraction.strip("0") else int(whole)


def read_table(
    records: Iterable[dict[str, Any]], shape: Shape, zone: tzinfo, as_of: str, *, zero: bool = False
) -> Table:
    """Read all series. `zero`: a missing point is 0. Raises `NotSeries`."""
    found: dict[str, Series] = {}
    for record in records:
        labels = {name: _series_label(record.get(name)) for name in shape.by}
        key = key_of(labels)
        series = found.setdefault(key, Series(key, labels, []))
        label = as_of if shape.at is None else str(record.get(shape.at))
        if shape.at is not None and record.get(shape.at) is None:
            continue
        series.points.append(Reading(read_time(label, zone), label, _number(record.get(shape.column))))
    for series in found.values():
        series.points.sort(key=lambda point: point.at)
        _refuse_repeated(series, shape)
    times = sorted({point.at for series in found.values() for point in series.points})
    step_s = usual_step_s(times)
    if zero and shape.at is not None and times:
        filled = _filled(times, step_s)
        found = {key: _with_zeros(series, filled) for key, series in found.items()}
        times = [at for at, _ in filled]
    return Table(found, times, step_s)


def _refuse_repeated(series: Series, shape: Shape) -> None:
    for before, after in zip(series.points, series.points[1:], strict=False):
        if before.at == after.at:
            where = f"for {after.label}" if shape.at else "in a result without times"
            own = f" of the series {json.dumps(series.labels, default=str)[:200]}" if series.labels else ""
            raise NotSeries(
                f"There are several rows {where}{own}: name the columns that tell them apart in `by`."
            )


def _filled(times: list[datetime], step_s: float) -> list[tuple[datetime, str]]:
    """The times, and for daily points all days between them."""
    if step_s != _DAY_S or (times[-1] - times[0]).days > _FILLED:
        return [(at, _label(at)) for at in times]
    days = (times[-1] - times[0]).days
    return [(at, _label(at)) for at in (times[0] + timedelta(days=day) for day in range(days + 1))]


def _label(at: datetime) -> str:
    is_day = at.time() == datetime.min.time()
    return at.date().isoformat() if is_day else at.isoformat()


def _with_zeros(series: Series, filled: list[tuple[datetime, str]]) -> Series:
    own = {point.at: point for point in series.points}
    return series._replace(points=[own.get(at) or Reading(at, label, 0.0) for at, label in filled])


def read_time(label: str, zone: tzinfo) -> datetime:
    """A date, timestamp, month (`2025-06`) or year as local time. Raises `NotSeries`."""
    text = label + _LENGTHS.get(len(label), "")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise NotSeries(
            f"{label[:60]!r} is no date or time: name the column with the times in `at`."
        ) from None
    return at if at.tzinfo is None else at.astimezone(zone).replace(tzinfo=None)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return nan
    return number if isfinite(number) else nan


def ends_at(at: datetime, step_s: float) -> datetime:
    """When the period of a point is over: a day, an hour, or what the series has."""
    return at if step_s in {0, inf} else at + timedelta(seconds=min(step_s, 400 * _DAY_S))


def today(now: datetime, zone: tzinfo) -> datetime:
    """The moment in local time."""
    return now.astimezone(zone).replace(tzinfo=None)
