# ruff: noqa: S608 (types and cells are our own texts)
"""Values that a column's type takes, and would change: the file would not say what is stored."""

from collections.abc import Callable

from service.imports.contracts import DatasetColumn, Kind, Reason

Change = tuple[str, Reason, str]
"""Condition of the problem (SQL), reason, message."""

EXACT: dict[Kind, str] = {
    "number": "numeric", "moment": "timestamp", "instant": "timestamptz", "clock": "time",
    "zoned-clock": "timetz",
}  # fmt: skip
"""The type that keeps every value of a kind, within microseconds."""
KEEPING = {
    "interval": "interval", "float4": "numeric", "float8": "numeric", "numeric": "numeric", "name": "text",
    "char": "text", "time": "time", "timetz": "timetz", "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}  # fmt: skip
"""The same by the type below domains, for columns of no kind in EXACT and for elements of arrays."""
FINE = "'[.,][0-9]{6}0*[1-9]'"
"""A fraction of a second with digits beyond microseconds, which no type keeps."""
RANGES = {"tsrange", "tstzrange", "tsmultirange", "tstzmultirange"}
MOMENTS = {*RANGES, "daterange", "datemultirange", "date", "time", "timetz", "timestamp", "timestamptz"}
NOW = "'(now|today|tomorrow|yesterday)'"
SHAPES = {"point", "line", "lseg", "box", "path", "polygon", "circle"}
"""Types of doubles."""
UNSIGNED = {"oid", "xid", "xid8", "cid"}
ZONE = r"' ?([A-Za-z_]+/[A-Za-z0-9_/+-]+)$'"
SHIFTS = ("1 hour", "-1 hour", "30 minutes", "-30 minutes", "2 hours", "-2 hours")
NUMBERS = r"'[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?'"


def changes(column: DatasetColumn, cell: str) -> list[Change]:
    """The rules of a column whose type would change values. The cells are valid for the type."""
    base, is_array = column.base.removeprefix("_"), column.kind == "array"
    found: list[Change] = []
    if base in MOMENTS:
        found.append((f"{cell} ~* {NOW}", "wrong-type", "is another time on another day"))
    if base == "timestamptz" and not is_array:
        found.append(
            (_of_two_hours(cell), "wrong-type", "is passed over or comes twice there: the clocks are changed")
        )
    if base == "interval":
        test = _each(_of_no_unit, cell, is_array=is_array)
        found.append((test, "wrong-type", "is no clear duration: write 1.5 hours or 01:30:00"))
    if base == "money":
        test = _each(_of_another_amount, cell, is_array=is_array)
        found.append(
            (
                test,
                "out-of-range",
                f"may be another amount than {column.type} makes of it: write it as 1234.50",
            )
        )
    if test := _rounded(column, base, cell):
        found.append((test, "out-of-range", f"has more digits than {column.type} keeps"))
    if base in UNSIGNED:
        says = f"is below 0, which {column.type} takes for another number"
        found.append((f"{cell} LIKE '%-%'", "out-of-range", says))
    if base == "jsonb":
        repeated = _each("NOT ({} IS JSON WITH UNIQUE KEYS)".format, cell, is_array=is_array)
        found.append((repeated, "conflict", f"has a key twice, of which {column.type} keeps one"))
    return found


def _rounded(column: DatasetColumn, base: str, cell: str) -> str:
    """Whether the type rounds the value; empty if it rounds none."""
    is_array = column.kind == "array"
    if base in SHAPES:
        return _of_doubles(cell)
    if base in RANGES:
        return f"{cell} ~ {FINE}"
    exact = EXACT.get(column.kind) or KEEPING.get(base)
    if exact is None:
        return ""
    exact += "[]" if is_array else ""
    rounded = f"{cell}::{column.type}::{exact} <> {cell}::{exact}"
    return f"{cell} ~ {FINE} OR {rounded}" if exact.startswith(("time", "interval")) else rounded


def _of_doubles(cell: str) -> str:
    return (
        f"EXISTS (SELECT FROM regexp_matches({cell}, {NUMBERS}, 'g') AS m(found)"
        " WHERE m.found[1]::float8::numeric <> m.found[1]::numeric)"
    )


def _of_another_amount(value: str) -> str:
    """Postgres ignores all separators that are not the decimal sign of `lc_monetary`: `1,5` may become 15."""
    digits = f"regexp_replace({value}, '[^0-9.,]+', '', 'g')"
    return rf"""(
      SELECT abs({value}::money::numeric) IS DISTINCT FROM CASE
        WHEN d ~ '^([0-9]+\.?[0-9]*|\.[0-9]+)$' THEN d::numeric
        WHEN d ~ '^([0-9]+,[0-9]{{1,2}}|[0-9]{{4,}},[0-9]*)$' THEN replace(d, ',', '.')::numeric
        WHEN d ~ '^[0-9]{{1,3}}((,[0-9]{{3}})+\.[0-9]+|(,[0-9]{{3}}){{2,}})$'
          THEN replace(d, ',', '')::numeric
        WHEN d ~ '^[0-9]{{1,3}}((\.[0-9]{{3}})+,[0-9]+|(\.[0-9]{{3}}){{2,}})$'
          THEN translate(d, ',.', '.')::numeric
      END
      FROM (SELECT {digits} AS d) AS written
    )"""


def _of_no_unit(value: str) -> str:
    """Postgres reads a number without a unit as seconds, or as days before a comma (`1,5 hours`)."""
    bare = r"'(^|[[:alpha:]] ?)[+-]?[0-9]*\.?[0-9]+\.?$'"
    return f"({value} ~ '[0-9],[0-9]' OR ({value} ~ {bare} AND {value} ~ '[1-9]'))"


def _of_two_hours(cell: str) -> str:
    """Whether a named zone passes over the local time, or passes it twice, when its clocks are changed."""
    local = f"regexp_replace({cell}, {ZONE}, '')::timestamp"
    there = f"AT TIME ZONE substring({cell} FROM {ZONE})"
    meant = f"{cell}::timestamptz"
    twice = " OR ".join(f"({meant} + interval '{shift}') {there} = {local}" for shift in SHIFTS)
    return f"{cell} ~ {ZONE} AND ({meant} {there} <> {local} OR {twice})"


def _each(test: Callable[[str], str], cell: str, *, is_array: bool) -> str:
    """Whether the test holds for the cell, or for an element of an array."""
    if not is_array:
        return test(cell)
    return f"EXISTS (SELECT FROM unnest({cell}::text[]) AS e(value) WHERE {test('e.value')})"
