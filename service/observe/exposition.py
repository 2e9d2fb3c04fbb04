"""Write metrics as text, as Prometheus reads it: format 0.0.4 or OpenMetrics 1.0."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from service.observe.counters import Exemplar, Labels, Totals
from service.observe.families import FAMILIES, Family

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPED: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_ESCAPED_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_SUFFIX: Final = {"counter": "_total", "info": "_info", "gauge": "", "histogram": ""}


def exposition(totals: Totals, *, openmetrics: bool) -> str:
    """Write all families. Exemplars are only in OpenMetrics."""
    values: dict[str, list[tuple[Labels, list[float]]]] = {family.name: [] for family in FAMILIES}
    for (name, labels), numbers in sorted(totals.values.items()):
        values[name].append((labels, numbers))
    lines: list[str] = []
    for family in FAMILIES:
        lines += head(family, openmetrics=openmetrics)
        for labels, numbers in values[family.name]:
            if family.kind == "histogram":
                exemplars = totals.exemplars.get((family.name, labels), []) if openmetrics else []
                lines += _histogram(family, labels, numbers, exemplars)
            else:
                lines.append(sample(family, labels, _number(numbers[0])))
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def head(family: Family, *, openmetrics: bool) -> Iterator[str]:
    """The lines before the samples of a family."""
    if openmetrics:
        yield f"# TYPE {family.name} {family.kind}"
        if family.unit:
            yield f"# UNIT {family.name} {family.unit}"
        yield f"# HELP {family.name} {family.help.translate(_ESCAPED)}"
        return
    name = family.name + _SUFFIX[family.kind]
    yield f"# HELP {name} {family.help.translate(_ESCAPED_HELP)}"
    yield f"# TYPE {name} {'gauge' if family.kind == 'info' else family.kind}"


def _histogram(
    family: Family, labels: Labels, numbers: list[float], exemplars: list[Exemplar | None]
) -> Iterator[str]:
    *counts, total = numbers
    bounds = [*map(repr, family.buckets), "+Inf"]
    for index, (bound, count) in enumerate(zip(bounds, accumulate(counts), strict=True)):
        exemplar = exemplars[index] if exemplars else None
        labelled = braces((*family.labels, "le"), (*labels, bound))
        yield f"{family.name}_bucket{labelled} {_number(count)}{_exemplar(exemplar)}"
    yield f"{family.name}_sum{braces(family.labels, labels)} {_number(total)}"
    yield f"{family.name}_count{braces(family.labels, labels)} {_number(sum(counts))}"


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    trace, span = exemplar.trace
    return f' # {{trace_id="{trace:032x}",span_id="{span:016x}"}} {exemplar.value!r} {exemplar.at:.3f}'


def sample(family: Family, labels: Labels, number: str) -> str:
    """A line with one number of a family that is no histogram."""
    return f"{family.name}{_SUFFIX[family.kind]}{braces(family.labels, labels)} {number}"


def braces(names: Sequence[str], values: Sequence[str]) -> str:
    """The labels of a sample, with their values escaped."""
    if not names:
        return ""
    pairs = (f'{name}="{value.translate(_ESCAPED)}"' for name, value in zip(names, values, strict=True))
    return f"{{{','.join(pairs)}}}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
