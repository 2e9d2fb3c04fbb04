"""JSON whose numbers keep every digit.

A JSON number may have more digits than a float can hold. Text is read into numbers that remember their text,
and the records of a result become what the types of its columns ask for.
"""

import json
import secrets
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Self, cast
from uuid import UUID

FLOATS: Final = ("double precision", "real", "float8", "float4")
INT_DIGITS: Final = 4300
"""Longer texts Python refuses to turn into `int`, since that takes quadratic time."""


class JsonNumber(float):
    """A float that remembers the digits it was read from."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def exact(self) -> Decimal:
        return Decimal(self.text)


def _whole(text: str) -> int | JsonNumber:
    return int(text) if len(text) <= INT_DIGITS else JsonNumber(text)


def loads(content: bytes) -> Any:
    """Read JSON. Records of results get the types that their columns name."""
    document = json.loads(content, parse_float=JsonNumber, parse_int=_whole)
    _complete(document)
    return document


def _complete(part: Any) -> None:
    if isinstance(part, list):
        for each in cast("list[Any]", part):
            _complete(each)
    elif isinstance(part, dict):
        members = cast("dict[str, Any]", part)
        columns, records = members.get("columns"), members.get("records")
        if isinstance(columns, list) and isinstance(records, list):
            _type_records(cast("list[Any]", columns), cast("list[Any]", records))
        else:
            for each in members.values():
                _complete(each)


def _type_records(columns: list[Any], records: list[Any]) -> None:
    types: dict[str, str] = {
        str(column["name"]): str(column["type"])
        for column in columns
        if isinstance(column, dict) and column.keys() >= {"name", "type"}
    }
    changed = {name: kind for name, kind in types.items() if kind not in _UNCHANGED}
    for record in records:
        if isinstance(record, dict):
            values = cast("dict[str, Any]", record)
            for name in changed.keys() & values.keys():
                values[name] = typed(values[name], changed[name])


_UNCHANGED: Final = frozenset(
    ("smallint", "integer", "bigint", "boolean", "text", "character varying", "uuid", "date")
)


def typed(value: Any, kind: str) -> Any:
    """A value of a column: `float` for floats, `Decimal` for numeric and other numbers with a fraction."""
    if isinstance(value, list):
        return [typed(each, kind) for each in cast("list[Any]", value)]
    if isinstance(value, dict):  # json
        return {name: typed(each, kind) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    base = kind.removesuffix("[]").split("(")[0]
    if base in FLOATS:
        return float(value)
    if isinstance(value, JsonNumber):
        return _decimal(value)
    return Decimal(value) if base == "numeric" else value


def _decimal(number: JsonNumber) -> Decimal | JsonNumber:
    try:
        return number.exact()
    except InvalidOperation:  # an exponent that no Decimal has
        return number


def _marked(part: Any, mark: str) -> Any:
    """The same with the digits of numbers that were read: a float would be written with fewer."""
    if isinstance(part, JsonNumber):
        number = _decimal(part)
        return f"{mark}{number if isinstance(number, Decimal) else part.text}"
    if isinstance(part, dict):
        return {name: _marked(each, mark) for name, each in cast("dict[Any, Any]", part).items()}
    if isinstance(part, list | tuple):
        return [_marked(each, mark) for each in cast("list[Any]", part)]
    return part


def dumps(value: Any) -> bytes:
    """Write JSON. `Decimal` keeps its digits; dates and ids become text."""
    mark = f"\0{secrets.token_hex(8)}:"

    def other(part: Any) -> Any:
        if isinstance(part, Decimal):
            if not part.is_finite():
                raise ValueError(f"JSON has no number {part}")
            return f"{mark}{part}"
        if isinstance(part, datetime | date | time):
            return part.isoformat()
        if isinstance(part, UUID):
            return str(part)
        raise TypeError(f"{type(part).__name__} cannot be written as JSON: {part!r}")

    text = json.dumps(_marked(value, mark), default=other, allow_nan=False, ensure_ascii=False)
    begin = json.dumps(mark)[:-1]
    first, *rest = text.split(begin)
    return "".join([first, *(each.replace('"', "", 1) for each in rest)]).encode()
