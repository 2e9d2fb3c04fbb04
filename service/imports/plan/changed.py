"""Values that a column's type takes, and would change: the file would not say what is stored."""

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
NUMBERS = r"'[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?'"


def changes(column: DatasetColumn, cell: str) -> list[Change]:
    """The rules of a column whose type would change values. The cells are valid for the type."""
    base, is_array = column.base.removeprefix("_"), column.kind == "array"
    found: list[Change] = []
    if base in MOMENTS:
        found.append((f"{cell} ~* {NOW}", "wrong-type", "is another time on another day"))
    if test := _rounded(column, base, cell):
        found.append((test, "out-of-range", f"has more digits than {column.type} keeps"))
    if base in UNSIGNED:
        says = f"is below 0, which {column.type} takes for another number"
        found.append((f"{cell} LIKE '%-%'", "out-of-range", says))
    if base == "jsonb":
        repeated = _each("NOT ({0} IS JSON WITH UNIQUE KEYS)", cell, is_array=is_array)
        found.append((repeated, "conflict", f"has a key twice, of which {column.type} keeps one"))
    return found


def _rounded(column: DatasetColumn, base: str, cell: str) -> str:
    """Whether the type rounds the value; empty if it rounds none."""
    is_array = column.kind == "array"
    if base in SHAPES:
        return _of_doubles(cell)
    if base in RANGES:
        return f"{cell} ~ {FINE}"
    if base == "money":
        return _each(_of_cents("{0}"), cell, is_array=is_array)
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


def _of_cents(value: str) -> str:
    """Compare digits, for signs and separators are those of `lc_monetary`."""
    digits = "btrim(regexp_replace({0}, '[^0-9]+', '', 'g'), '0')"
    return f"{digits.format(value)} <> {digits.format(f'{value}::money::text')}"


def _each(test: str, cell: str, *, is_array: bool) -> str:
    """Whether the test holds for the cell, or for an element of an array."""
    if not is_array:
        return test.format(cell)
    return f"EXISTS (SELECT FROM unnest({cell}::text[]) AS e(value) WHERE {test.format('e.value')})"
