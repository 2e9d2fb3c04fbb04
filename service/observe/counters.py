"""Counters in memory that all workers share: each worker writes a page of its own, a scrape reads all pages.

A worker takes over the page of a dead one and counts on from there, so no count is lost and none counts
twice. A page is a list of series; each has its length, its key, and its values as doubles. It only grows.
"""

import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from multiprocessing.sharedctypes import RawArray
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from service.observe.families import FAMILIES, Family
from service.observe.log import escape

if TYPE_CHECKING:  # generic for the type checker only
    Doubles = memoryview[float]
else:
    Doubles = memoryview

PAGE_BYTES: Final = 1 << 18
GAUGES_LAST_S: Final = 10.0
"""Gauges of a page that nobody has written for so long are those of a dead worker."""
LABEL_CHARACTERS: Final = 100
OTHER: Final = "other"

_DOUBLE: Final = 8
_PAGE: Final = PAGE_BYTES // _DOUBLE
_USED, _WRITTEN_AT, _HEADER = 0, 1, 2
"""The head of a page: doubles in use, and when the gauges were written."""
_EXEMPLAR: Final = 5
"""An exemplar: when, its value, two halves of the trace id, and the span id."""

Labels = tuple[str, ...]
Series = tuple[str, Labels]
"""Name of the family, and values of its labels."""
Trace = tuple[int, int]
"""Ids of a trace and a span."""

_BY_NAME: Final = {family.name: family for family in FAMILIES}


class Exemplar(NamedTuple):
    """A value of a histogram with the trace that it came from. `at` is Unix time."""

    at: float
    value: float
    trace: Trace


class Totals(NamedTuple):
    """The values of all workers. Those of a histogram: a count for each bucket, then the sum."""

    values: dict[Series, list[float]]
    exemplars: dict[Series, list[Exemplar | None]]


class SharedCounters:
    """All pages. Without shared memory it is one page that only this process sees."""

    def __init__(self, memory: Any = None) -> None:
        if memory is None:
            memory = array("d", bytes(PAGE_BYTES))
        doubles = memoryview(memory).cast("B").cast("d")
        self._pages = [doubles[at : at + _PAGE] for at in range(0, len(doubles), _PAGE)]
        self._found: list[list[_Found]] = [[] for _ in self._pages]

    @staticmethod
    def memory(number: int) -> Any:
        """Memory for a number of pages that child processes inherit."""
        return RawArray("d", number * _PAGE)

    def counters(self, page: int) -> "Counters":
        return Counters(self._pages[page])

    def end_gauges(self, page: int) -> None:
        """The worker of this page is dead: its counts stay, its gauges go."""
        self._pages[page][_WRITTEN_AT] = 0.0

    def totals(self, now: float) -> Totals:
        """Combine the values of all workers. `now` is monotonic."""
        totals = Totals({}, {})
        for page, found in zip(self._pages, self._found, strict=True):
            found.extend(_series(page, found[-1].end if found else _HEADER))
            alive = now - page[_WRITTEN_AT] < GAUGES_LAST_S
            for each in found:
                if alive or each.family.kind != "gauge":
                    _combine(totals, page, each)
        return totals


class _Found(NamedTuple):
    """A series of a page: its first value, and where the next series begins."""

    family: Family
    series: Series
    start: int
    end: int


def _series(page: Doubles, after: int) -> Iterator[_Found]:
    text = page.cast("B")
    used = int(page[_USED])
    while after < used:
        length, size = int(page[after]), int(page[after + 1])
        begin = (after + 2) * _DOUBLE
        name, *labels = msgspec.json.decode(text[begin : begin + length], type=list[str])
        start = after + 2 + _doubles(length)
        after = start + size
        yield _Found(_BY_NAME[name], (name, tuple(labels)), start, after)


def _combine(totals: Totals, page: Doubles, found: _Found) -> None:
    family, series = found.family, found.series
    size = len(family.buckets) + 2 if family.kind == "histogram" else 1
    values = page[found.start : found.start + size]
    if (known := totals.values.get(series)) is None:
        totals.values[series] = list(values)
    elif family.combine == "max":
        known[0] = max(known[0], values[0])
    else:
        known[:] = [sum(both) for both in zip(known, values, strict=True)]
    if family.kind == "histogram":
        exemplars = totals.exemplars.setdefault(series, [None] * (size - 1))
        for bucket, newest in enumerate(exemplars):
            each = _exemplar(page, found.start + size + bucket * _EXEMPLAR)
            if each is not None and (newest is None or newest.at < each.at):
                exemplars[bucket] = each


def _exemplar(page: Doubles, start: int) -> Exemplar | None:
    """The exemplar that stands there; None if there is none, or its worker is just writing it."""
    at = page[start]
    value = page[start + 1]
    high, low, span = page[start + 2 : start + _EXEMPLAR].cast("B").cast("Q")
    return Exemplar(at, value, (high << 64 | low, span)) if at and page[start] == at else None


def _doubles(length: int) -> int:
    """How many doubles a text of so many bytes takes."""
    return -(-length // _DOUBLE)


class Counters:
    """The page of one worker, which only this one writes."""

    def __init__(self, page: Doubles) -> None:
        self._page = page
        self._text = page.cast("B")
        self._bits = self._text.cast("Q")
        page[_USED] = max(page[_USED], _HEADER)
        self._places: dict[Series, int] = {}
        self._numbers: dict[str, int] = {}
        for found in _series(page, _HEADER):
            self._keep(found.series, found.start)
        self.gauges_end()  # those of the worker before

    def add(self, family: Family, labels: Labels = (), by: float = 1.0) -> None:
        """Raise a counter."""
        place = self._places.get((family.name, labels))
        if place is None:
            place = self._new_place(family, labels)
        if place:
            self._page[place] += by

    def put(self, family: Family, labels: Labels, value: float) -> None:
        """Set a gauge."""
        place = self._places.get((family.name, labels)) or self._new_place(family, labels)
        if place:
            self._page[place] = value

    def observe(self, family: Family, value: float, times: int = 1, trace: Trace | None = None) -> None:
        """Count a value of a histogram, `times` times."""
        place = self._places.get((family.name, ())) or self._new_place(family, ())
        if not place:
            return
        bucket = bisect_left(family.buckets, value)
        last = place + len(family.buckets) + 1
        self._page[place + bucket] += times
        self._page[last] += value * times
        if trace is not None:
            start = last + 1 + bucket * _EXEMPLAR
            self._page[start] = 0.0
            self._page[start + 1] = value
            self._bits[start + 2] = trace[0] >> 64
            self._bits[start + 3] = trace[0] & (1 << 64) - 1
            self._bits[start + 4] = trace[1]
            self._page[start] = time.time()

    def gauges_written(self, now: float) -> None:
        """All gauges are those of now, which is monotonic."""
        self._page[_WRITTEN_AT] = now

    def gauges_end(self) -> None:
        """This worker has no gauges any more."""
        self._page[_WRITTEN_AT] = 0.0

    def _new_place(self, family: Family, labels: Labels) -> int:
        """Make a series, and return the place of its first value; 0 if there is no room."""
        series = family.name, tuple(map(shown, labels))
        if series not in self._places and self._numbers.get(family.name, 0) >= family.most:
            series = family.name, (OTHER,) * len(labels)
        place = self._places.get(series)
        if place is None:
            place = self._append(family, series)
            self._keep(series, place)
            self._places[family.name, labels] = place
        return place

    def _append(self, family: Family, series: Series) -> int:
        key = msgspec.json.encode([series[0], *series[1]])
        buckets = len(family.buckets) + 1
        size = buckets + 1 + buckets * _EXEMPLAR if family.kind == "histogram" else 1
        head = int(self._page[_USED])
        start = head + 2 + _doubles(len(key))
        if start + size > _PAGE:
            return 0
        self._page[head], self._page[head + 1] = len(key), size
        self._text[(head + 2) * _DOUBLE : (head + 2) * _DOUBLE + len(key)] = key
        self._page[_USED] = start + size  # last, because others read on meanwhile
        return start

    def _keep(self, series: Series, place: int) -> None:
        self._places[series] = place
        self._numbers[series[0]] = self._numbers.get(series[0], 0) + 1


def shown(label: str) -> str:
    """The value of a label as one short line."""
    text = escape(label)
    return text if len(text) <= LABEL_CHARACTERS else f"{text[:LABEL_CHARACTERS]}..."
