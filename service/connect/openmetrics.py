"""The values of a dashboard's results, as Prometheus reads them.

A scrape reads results that are held already and runs no statement, neither to plan a metric nor to fill the
cache. Results that it reads count as asked for, so a change of their tables runs them while they are hot.
`MissingResults` learns of those that it misses.
"""

import asyncio
import re
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from service.connect.missing import Missed, MissingResults
from service.database.stored_sql.describing import NUMBER_TYPES, ResultColumn
from service.errors import FieldError, InvalidInput
from service.metrics.catalog import Dashboard
from service.metrics.execute import Executor
from service.metrics.models import Metric
from service.observe.exposition import braces, head, sample
from service.observe.families import Family
from service.results.cache import Results
from service.results.table import CacheOutcome
from service.sql.parameters import label

MOST_SERIES: Final = 10_000
"""Series of values in one answer. Small results leave what they do not need to those after them."""
MOST_CHARACTERS: Final = 16 << 20
"""Characters of all values in one answer, which long labels may reach first."""
LONGEST_LABEL: Final = 1_000
"""Characters of a label's value; longer ones are cut."""

INFO: Final = Family("tally_result", "info", "Metrics of the dashboard.", ("metric", "query", "title"))
HELD: Final = Family(
    "tally_result_held",
    "gauge",
    "Whether a result is held, so that its values are here. A scrape waits for none: a missing one is run "
    "behind it, for the next.",
    ("metric",),
)
AS_OF: Final = Family(
    "tally_result_as_of_seconds",
    "gauge",
    "When the run of the result began, as a Unix time.",
    ("metric",),
    unit="seconds",
)
STALE: Final = Family(
    "tally_result_stale",
    "gauge",
    "Whether the data may have changed since the run of the result.",
    ("metric",),
)
TRUNCATED: Final = Family(
    "tally_result_truncated", "gauge", "Whether the statement has more rows than ROW_LIMIT.", ("metric",)
)
LEFT_OUT: Final = Family(
    "tally_result_series_left_out",
    "gauge",
    f"Values that are not here. limit: the answer has {MOST_SERIES} series already (at most so many more). "
    "duplicate: a row before has the same labels. range: the number is beyond those of Prometheus.",
    ("metric", "reason"),
)
Reason = Literal["limit", "duplicate", "range"]
REASONS: Final[tuple[Reason, ...]] = ("limit", "duplicate", "range")

_COLUMN: Final = "column"
# `le` and `quantile` belong to histograms and summaries.
_TAKEN: Final = frozenset({_COLUMN, "le", "quantile"})
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_UNFIT: Final = re.compile(r"[^a-z0-9]+")
_NEVER_NUMBERS: Final = frozenset({"json", "jsonb", "boolean", "text", "character varying", "oid"})
_NULL: Final = b"null"
_ROW: Final = msgspec.json.Decoder(dict[str, Raw])
_STRING: Final = msgspec.json.Decoder(str)
_NUMBER_STARTS: Final = b"-0123456789"
_SURE_LENGTH: Final = 300
"""Numbers with fewer digits and no exponent are within the range of a double."""
_ROWS_OF_A_PART: Final = 500
_KEPT_TEXTS: Final = 8
_LARGEST_KEPT: Final = 4 << 20
"""Characters of an answer that is kept for the next scrape."""


class _Held(Struct, frozen=True):
    """What a scrape reads of a result's JSON."""

    columns: tuple[ResultColumn, ...]
    records: list[Raw]
    truncated: bool
    as_of: datetime


class _Values(Struct):
    """The lines of one result's values, what more there is room for, and how many values are left out."""

    series: int
    characters: int
    lines: list[str]
    left_out: Counter[Reason]

    def add(self, line: str) -> bool:
        """Add a line if there is room for it."""
        if len(self.lines) >= self.series or len(line) > self.characters:
            return False
        self.characters -= len(line)
        self.lines.append(line)
        return True


class Exporter:
    def __init__(self, executor: Executor, results: Results, missing: MissingResults) -> None:
        self.missing = missing
        self._executor = executor
        self._results = results
        self._texts: OrderedDict[Hashable, str] = OrderedDict()

    async def text(
        self, dashboard: Dashboard, given: Mapping[str, str], claims: str, *, openmetrics: bool
    ) -> str:
        """Write the values. Each metric takes the parameters that it knows.

        Raises `InvalidInput` for a value that a parameter cannot have, and for names that no metric takes.
        """
        self._refuse_unknown(dashboard, given)
        found = [(metric, await self._look(metric, given, claims)) for metric in dashboard.metrics]
        for metric, outcome in found:
            if outcome is None or outcome.stale_s:
                self.missing.want(Missed(metric.id, tuple(sorted(given.items())), claims))
        question = (openmetrics, *[_state(metric, outcome) for metric, outcome in found])
        if (text := self._texts.get(question)) is not None:
            self._texts.move_to_end(question)
            return text
        text = await _text(found, openmetrics=openmetrics)
        if len(text) <= _LARGEST_KEPT:
            self._texts[question] = text
            if len(self._texts) > _KEPT_TEXTS:
                self._texts.popitem(last=False)
        return text

    async def _look(self, metric: Metric, given: Mapping[str, str], claims: str) -> CacheOutcome | None:
        """The held result of a metric. Without a plan there is none: changed definitions need a new one.

        Nor is there one if a needed parameter is not given: other metrics of the dashboard have theirs.
        """
        plan = self._executor.planned(metric)
        if plan is None:
            return None
        taken = [(name, value) for name, value in given.items() if name in plan.template.accepted]
        try:
            request = await self._executor.cache_request(metric, taken, claims=claims)
        except InvalidInput as wrong:
            needed = {name for name in plan.template.kinds if name not in plan.template.defaults}
            if {each.field for each in wrong.errors} <= needed.difference(given):
                return None
            raise
        return self._results.look(request.key)

    def _refuse_unknown(self, dashboard: Dashboard, given: Mapping[str, str]) -> None:
        """Names are only unknown if all metrics are planned."""
        plans = [self._executor.planned(metric) for metric in dashboard.metrics]
        known = {name for plan in plans if plan is not None for name in plan.template.accepted}
        unknown = [name for name in given if name not in known]
        if unknown and None not in plans:
            raise InvalidInput(
                errors=tuple(
                    [FieldError(label(each), "no metric of the dashboard takes it") for each in unknown]
                )
            )


def _family(metric: Metric) -> Family:
    """The family of a metric's values. Its id makes the name safe, unique and the same for ever."""
    title = metric.shown_title or f"Query {metric.query_id}"
    return Family(f"tally_metric_{str(metric.id).replace('-', '_')}", "gauge", _short(title))


def _state(metric: Metric, outcome: CacheOutcome | None) -> Hashable:
    """What the lines of a metric depend on: its title, the bytes of its result, and their freshness."""
    if outcome is None:
        return metric.id, metric.shown_title
    entry = outcome.entry
    return (metric.id, metric.shown_title, entry.etag, outcome.stale_s > 0)


async def _text(found: Sequence[tuple[Metric, CacheOutcome | None]], *, openmetrics: bool) -> str:
    values: list[str] = []
    about: dict[Family, list[str]] = {
        family: [] for family in (INFO, HELD, AS_OF, STALE, TRUNCATED, LEFT_OUT)
    }
    series, characters = MOST_SERIES, MOST_CHARACTERS
    for left, (metric, outcome) in zip(range(len(found), 0, -1), found, strict=True):
        name = str(metric.id)
        about[INFO].append(sample(INFO, (name, metric.query_id, _short(metric.shown_title or "")), "1"))
        about[HELD].append(sample(HELD, (name,), str(int(outcome is not None))))
        if outcome is None:
            continue
        held = msgspec.json.decode(outcome.entry.body, type=_Held)
        own = _Values(series // left, characters, [], Counter())
        await _write(own, metric, held)
        series, characters = series - len(own.lines), own.characters
        about[AS_OF].append(sample(AS_OF, (name,), repr(held.as_of.timestamp())))
        about[STALE].append(sample(STALE, (name,), str(int(outcome.stale_s > 0))))
        about[TRUNCATED].append(sample(TRUNCATED, (name,), str(int(held.truncated))))
        for reason in REASONS:
            if number := own.left_out[reason]:
                about[LEFT_OUT].append(sample(LEFT_OUT, (name, reason), str(number)))
        if own.lines:
            values += (*head(_family(metric), openmetrics=openmetrics), *own.lines)
    for family, lines in about.items():
        values += (*head(family, openmetrics=openmetrics), *lines)
    return "\n".join([*values, *(("# EOF",) if openmetrics else ())]) + "\n"


async def _write(found: _Values, metric: Metric, held: _Held) -> None:
    """Write the values as far as there is room. Between parts the event loop serves other requests."""
    name = _family(metric).name
    numbers: dict[str, str] | None = None
    texts: dict[str, str] = {}
    seen: set[str] = set()
    for at in range(0, len(held.records), _ROWS_OF_A_PART):
        rows = [_ROW.decode(each) for each in held.records[at : at + _ROWS_OF_A_PART]]
        if numbers is None:
            found_numbers = [column.name for column in held.columns if _is_number(column, rows)]
            numbers = {column: name + braces((_COLUMN,), (column,))[:-1] for column in found_numbers}
            others = [column.name for column in held.columns if column.name not in numbers]
            texts = dict(zip(others, label_names(others), strict=True))
        if len(found.lines) >= found.series:
            found.left_out["limit"] += len(numbers) * (len(held.records) - at)
            break
        for row in rows:
            labels = _labels(row, texts)
            rest = braces([*labels], [*labels.values()]).replace("{", ",", 1) or "}"
            for column, begins in numbers.items():
                _add(found, seen, begins + rest, bytes(row[column]))
        await asyncio.sleep(0)


def _add(found: _Values, seen: set[str], series: str, number: bytes) -> None:
    if number == _NULL or number[0] not in _NUMBER_STARTS:
        return
    if (len(number) > _SURE_LENGTH or b"e" in number) and not isfinite(float(number)):
        found.left_out["range"] += 1
    elif series in seen:
        found.left_out["duplicate"] += 1
    elif found.add(f"{series} {number.decode()}"):
        seen.add(series)
    else:
        found.left_out["limit"] += 1


def _is_number(column: ResultColumn, rows: Iterable[Mapping[str, Raw]]) -> bool:
    """Whether a column has numbers. Of types that only the database knows, its first value decides."""
    if column.type in NUMBER_TYPES or column.type in _NEVER_NUMBERS:
        return column.type in NUMBER_TYPES
    values = (bytes(row[column.name]) for row in rows)
    return next((value[0] in _NUMBER_STARTS for value in values if value != _NULL), False)


def _labels(row: Mapping[str, Raw], names: Mapping[str, str]) -> dict[str, str]:
    """The labels of a row. Prometheus takes an empty label for an absent one, so null has none."""
    found: dict[str, str] = {}
    for column, name in names.items():
        value = bytes(row[column])
        if value != _NULL:
            text = _STRING.decode(value) if value[:1] == b'"' else value.decode()
            if text:
                found[name] = _short(text)
    return found


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 3]}..."


def label_names(columns: Sequence[str]) -> list[str]:
    """Names of labels for columns: ASCII in snake case, each once, none that is reserved."""
    taken = set(_TAKEN)
    names: list[str] = []
    for number, column in enumerate(columns, 1):
        ascii_only = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode()
        plain = _UNFIT.sub("_", _CAMEL.sub("_", ascii_only).lower()).strip("_") or f"label_{number}"
        if plain[0].isdigit():
            plain = f"_{plain}"
        name, again = plain, 2
        while name in taken:
            name, again = f"{plain}_{again}", again + 1
        taken.add(name)
        names.append(name)
    return names
