"""Evaluate a rule on a result: from the bytes of the result to what an evaluation has seen."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from service.alerts.episodes import Assessment, assess, bands, overdue_at
from service.alerts.models import Bands, Definition, Found, Rule, RulePreview
from service.alerts.series import NotSeries, Shape, Table, read_number, read_table, read_time, shape_of, today
from service.alerts.states import Gap, Seen
from service.alerts.store import RuleRow
from service.database.stored_sql.describing import ResultColumn
from service.http import bodies

AT_ONCE: Final = 500
"""Records that are evaluated on the event loop. More are evaluated in a thread."""


class Document(Struct, frozen=True):
    """The parts of a result that a rule reads."""

    columns: list[ResultColumn]
    records: list[dict[str, Any]]
    truncated: bool
    as_of: str


_DOCUMENT: Final = msgspec.json.Decoder(Document, float_hook=read_number)


class Reviewed(NamedTuple):
    """What one evaluation of a rule found. `due`: when time alone may change it. `row` has new notes."""

    seen: Seen
    row: RuleRow
    due: datetime | None


class NotEvaluable(Exception):  # noqa: N818 (it says what happened)
    """The rule cannot be evaluated on the result. The message says why."""


def read_document(body: bytes) -> Document:
    """Numbers keep their digits, for some tell series apart."""
    try:
        return _DOCUMENT.decode(body)
    except msgspec.ValidationError:  # an integer of thousands of digits
        return msgspec.convert(bodies.decode_exact(body, read_number), Document)


def table_of(rule: Definition, document: Document, zone: tzinfo) -> tuple[Shape, Table]:
    """The series of a rule. Raises `InvalidInput`, `NotSeries` and `NotEvaluable`."""
    shape = shape_of(rule, document.columns)
    if document.truncated:
        raise NotEvaluable(
            "The result has more rows than ROW_LIMIT, so it may lack the newest: select fewer days or series."
        )
    zero = rule.missing == "zero"
    return shape, read_table(document.records, shape, zone, document.as_of, zero=zero)


def later(row: RuleRow, points: Iterable[str], zone: tzinfo) -> RuleRow:
    """The rule after alerts of these points were deleted: points up to the last of them make none again."""
    times: list[datetime] = []
    for point in points:
        with suppress(NotSeries):  # the metric had another shape then
            times.append(read_time(point, zone) + timedelta(seconds=1))
    if row.since is None or not times or max(times) <= read_time(row.since, zone):
        return row
    return msgspec.structs.replace(row, since=max(times).isoformat())


def review(row: RuleRow, rule: Rule, document: Document, now: datetime, zone: tzinfo) -> Reviewed:
    """Evaluate a fresh result. Raises what `table_of` raises."""
    shape, table = table_of(rule, document, zone)
    local = today(now, zone)
    timed = shape.at is not None
    found = assess(table, rule, local, timed=timed)
    gap, overdue = _gap(row, rule, table, local, timed=timed)
    was_current = row.was_current or (overdue is not None and local <= overdue)
    since = None if row.since is None or not timed else read_time(row.since, zone)
    noted = row.since or _newest(found, table, document, timed=timed)
    due = [each.due for each in found.values() if each.due is not None]
    if overdue is not None and was_current and local <= overdue:
        due.append(overdue + timedelta(seconds=1))
    return Reviewed(
        Seen(found, gap, since, timed, zone),
        msgspec.structs.replace(row, since=noted, was_current=was_current, problem=None),
        min((each.replace(tzinfo=zone) for each in due), default=None),
    )


def _gap(
    row: RuleRow, rule: Rule, table: Table, local: datetime, *, timed: bool
) -> tuple[Gap | None, datetime | None]:
    """Whether data of the whole result are missing or old, and when the next point is overdue."""
    if not any(series.points for series in table.series.values()):
        return (None if row.since is None else Gap("nodata", row.since)), None
    overdue = overdue_at(table, rule) if timed else None
    if overdue is not None and row.was_current and local > overdue:
        newest = max(series.points[-1] for series in table.series.values() if series.points)
        return Gap("stale", newest.label), overdue
    return None, overdue


def _newest(found: dict[str, Assessment], table: Table, document: Document, *, timed: bool) -> str | None:
    """The point from which on there are alerts: the newest that could be evaluated."""
    if not table.times:
        return None
    if not timed:
        return document.as_of
    evaluated = [each for series in found.values() for each in series.evaluated.values()]
    if evaluated:
        return max(evaluated, key=lambda each: each.at).label
    points = [point for series in table.series.values() for point in series.points]
    return max(points, key=lambda point: point.at).label


def preview(rule: Definition, document: Document, now: datetime, zone: tzinfo) -> RulePreview:
    """All alerts that the rule would have made in the history of a result, oldest first."""
    shape, table = table_of(rule, document, zone)
    found = assess(table, rule, today(now, zone), timed=shape.at is not None)
    alerts = [
        (
            episode.first.at,
            Found(each.series.labels, episode.first.label, episode.first.value, episode.first.expected),
        )
        for each in found.values()
        for episode in each.episodes
        if shape.at is None or _lasts(episode.lasted_s, rule, table.step_s, ended=episode.end is not None)
    ]
    alerts.sort(key=lambda alert: alert[0])
    return RulePreview(sum(len(each.evaluated) for each in found.values()), [alert for _, alert in alerts])


def _lasts(lasted_s: float, rule: Definition, step_s: float, *, ended: bool) -> bool:
    """An episode that goes on lasts at least until the next point is due."""
    return lasted_s + (0 if ended or not rule.for_s else step_s) >= rule.for_s


def chart(rule: Rule, document: Document, zone: tzinfo) -> Bands:
    """The points of all series with their bands."""
    _, table = table_of(rule, document, zone)
    return Bands(rule.id, rule.metric_id, rule.column, bands(table, rule))


def failing(row: RuleRow, zone: tzinfo, label: str) -> Seen:
    """What an evaluation has seen when there was no fresh result for long."""
    return Seen({}, Gap("stale", row.since or label), None, True, zone)
