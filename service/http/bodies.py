"""Decode JSON from callers, and encode what they get. An error names the field and the allowed values."""

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from service.errors import FieldError, InvalidInput

_NAMED_FIELD: Final = re.compile(r"(?:unknown|required) field `([^`]*)`")
_INTEGER_DIGITS: Final = 4000
_STEP: Final = re.compile(r"\[[^\]]*\]|\.([^.\[]+)")


_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
encode: Final = _ENCODER.encode
"""Encode JSON. Decimals become numbers with all their digits."""

encode_lines: Final = _ENCODER.encode_lines
"""The same for NDJSON."""

encode_key: Final = msgspec.json.Encoder(order="deterministic", decimal_format="number").encode
"""Encode JSON so that equal values give equal bytes."""


def exact(number: str) -> Decimal:
    """A JSON number exactly as written: the `float_hook` for every decoder of values from callers."""
    try:
        return Decimal(number)
    except InvalidOperation:
        raise ValueError("Number out of range") from None


@cache
def _exact_decoder(number: Callable[[str], Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(float_hook=number)


def decode_exact(text: bytes | str, number: Callable[[str], Any] = exact) -> Any:
    """Decode JSON of our own or of Postgres, which may hold integers of any length.

    Numbers with a fraction or an exponent, and integers that Python does not read, become `number`s. Raises
    `msgspec.DecodeError`, and `ValueError` behind such an integer.
    """
    try:
        return _exact_decoder(number).decode(text)
    except msgspec.ValidationError:

        def whole(digits: str) -> Any:
            return int(digits) if len(digits) <= _INTEGER_DIGITS else number(digits)

        return json.loads(text, parse_float=number, parse_int=whole)


def decode(text: bytes | msgspec.Raw, kind: Any, *, within: str = "") -> Any:
    """Decode JSON as `kind`. Raises `InvalidInput`, which names the field by its path below `within`.

    Numbers with a fraction or an exponent are Decimals where `kind` does not fix their type.
    """
    try:
        return msgspec.json.Decoder(kind, float_hook=exact).decode(text)
    except RecursionError:
        raise InvalidInput(errors=(FieldError(within or "body", "JSON is nested too deep"),)) from None
    except UnicodeDecodeError:
        raise InvalidInput(errors=(FieldError(within or "body", "JSON must be UTF-8"),)) from None
    except msgspec.DecodeError as error:
        raise InvalidInput(errors=(_field_error(str(error), kind, within),)) from None


def _field_error(text: str, kind: Any, within: str) -> FieldError:
    """Split msgspec's message into the fault and the path of the field (from `$`)."""
    message, _, path = text.partition(" - at `$")
    path = path.strip("`")
    named = _NAMED_FIELD.search(message)
    field = ".".join(filter(None, [f"{within}{path}".lstrip("."), named[1] if named else ""]))
    return FieldError(field or "body", message + _choice(message, kind, path))


def _choice(message: str, kind: Any, path: str) -> str:
    """The allowed names, if the caller sent an unknown one."""
    found = [inspect.type_info(kind)]
    for step in _STEP.findall(path):
        found = [inner for info in found for inner in _inner_types(info, step)]
    for info in (each for outer in found for each in _members(outer)):
        if isinstance(info, inspect.LiteralType) and "enum value" in message:
            return f"; one of {', '.join(map(str, info.values))}"
        if isinstance(info, inspect.StructType) and "unknown field" in message:
            return f"; it takes {', '.join(field.encode_name for field in info.fields)}"
    return ""


def _members(info: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(info, inspect.UnionType):
        for member in info.types:
            yield from _members(member)
    elif isinstance(info, inspect.Metadata):
        yield from _members(info.type)
    else:
        yield info


def _inner_types(outer: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """The types of an object's field `name`. Without a name, the item types of a list or map."""
    for info in _members(outer):
        match info:
            case inspect.StructType() if name:
                yield from (field.type for field in info.fields if field.encode_name == name)
            case inspect.DictType() if not name:
                yield info.value_type
            case inspect.VarTupleType() | inspect.ListType() if not name:
                yield info.item_type
            case _:
                pass
