"""Decode values of stored SQL exactly as Postgres writes them, without a detour through Python types.

The driver reads integers, double precision, booleans, text and bytea without loss. Every other type is
transferred as Postgres's own text, marked as JSON where that text is JSON. Composites, records and vectors
have no such text. They are `json_columns`: a statement selects `ROW(to_json(value), value)` for them. The
JSON gives names and texts; the value's binary form gives the types of all parts. So each part is encoded as
it would be outside a composite. Domains and parts with the same name stay as Postgres writes them.

`decode_pairs` can run in a thread, as large arrays of composites take long.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from service.database.driver import BUILTIN_TYPES, DriverConnection

_COMPOSITE: Final = b"c"
_DOMAIN: Final = b"d"
# Fixed oids of pg_type.
_INT2VECTOR: Final = 22
_OIDVECTOR: Final = 30
RECORD: Final = 2249
_JSON: Final = 114
_JSONB: Final = 3802
_BYTEA: Final = 17

# Parts of binary forms: a number; a field's type and length; an array's dimensions, nulls and element type.
_INT: Final = struct.Struct("!i")
_FIELD: Final = struct.Struct("!Ii")
_ARRAY: Final = struct.Struct("!iiI")


class ExactConnection(DriverConnection):
    """A connection that decodes values exactly, and knows Postgres's built-in types without a query."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.json_columns: set[int] = {RECORD, _INT2VECTOR, _OIDVECTOR}
        for oid, name in BUILTIN_TYPES.items():
            if decoder := _DECODERS.get(name):
                self.decode_text(oid, name, decoder, "pg_catalog")
        self.decode_binary(RECORD, "record", Pair)

    def introspected(self, types: Iterable[Any]) -> list[Any]:
        """Leave only arrays and domains to the driver; it must not decode types whose parts come as text."""
        found: dict[int, Any] = {kind["oid"]: kind for kind in types}
        for oid in found:  # parts of composites too, as the driver would decode them
            self._register(oid, found)
        return [kind for oid, kind in found.items() if not self.has_codec(oid)]

    def _register(self, oid: int, found: dict[int, Any]) -> None:
        if self.has_codec(oid):
            return
        kind = found[oid]
        base = kind["basetype"] if kind["kind"] == _DOMAIN else kind["elemtype"]
        if base and oid not in self.json_columns:
            self._register(base, found)
            if base not in self.json_columns:
                return
        if base or kind["kind"] == _COMPOSITE:
            self.json_columns.add(oid)
        self.decode_text(oid, kind["name"], str, kind["ns"])


def _number(text: str) -> msgspec.Raw | float:
    """A JSON number exactly as Postgres writes it. NaN and the infinities are floats, which JSON has not."""
    return float(text) if text[-1] in "Ny" else msgspec.Raw(text.encode())


def _embedded_json(text: str) -> msgspec.Raw:
    # In JSON, raw newlines occur only between tokens; without them a record stays one line of NDJSON.
    return msgspec.Raw(text.replace("\n", " ").replace("\r", " ").encode())


def _timestamp(text: str) -> str:
    """ISO 8601 for years 1 to 9999, else Postgres's text (infinity, BC, later years)."""
    return text if text[4] != "-" or text[-1] == "C" else text[:10] + "T" + text[11:]


def _timestamptz(text: str) -> str:
    """RFC 3339 in UTC for any time zone of the session; Postgres's text in the cases of `_timestamp`."""
    if text[4] != "-" or text[-1] == "C":
        return text
    return text[:10] + "T" + text[11:-3] + "Z" if text[-3:] == "+00" else _in_utc(text)


def _in_utc(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # in UTC the year is below 1 or above 9999
        return text
    iso = moment.isoformat()
    return f"{iso.rstrip('0') if moment.microsecond else iso}Z"


class Pair(NamedTuple):
    """The binary form of a record, not decoded yet."""

    record: bytes


def decode_pairs(rows: Iterable[Sequence[Any]], columns: Sequence[int]) -> list[list[Any]]:
    """The rows with the values of these columns decoded, which are `Pair`s."""
    decoded: list[list[Any]] = []
    for row in rows:
        values = [*row]
        for column in columns:
            values[column] = _decode_pair(values[column].record)
        decoded.append(values)
    return decoded


def _decode_pair(record: bytes) -> Any:
    """The value of `ROW(to_json(value), value)`; None for any other record, which nobody uses."""
    match [*_fields(record)]:
        case [(oid, bytes(text)), (kind, value)] if oid == _JSON:
            return _exact_json(kind, value, text.replace(b"\n", b" ").replace(b"\r", b" "))
        case _:
            return None


def _exact_json(oid: int, value: bytes | None, text: bytes) -> Any:
    """The exact form of `text`, the JSON of `value`. Only a composite is an object, only an array a list.

    A domain's binary form does not tell its base type.
    """
    if value is None or oid in {_JSON, _JSONB}:
        return msgspec.Raw(text)
    if oid == _BYTEA:
        return value
    if decoder := _UNLIKE_JSON.get(oid):
        return decoder(text.decode().strip('"').replace("T", " ").replace("+00:00", "+00"))
    # The JSON does not match when a type has its own cast to JSON, two parts share a name, or it is too deep.
    with suppress(struct.error, ValueError, msgspec.DecodeError, RecursionError):
        if text[:1] == b"{":
            named = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
            parts = zip(named.items(), _fields(value), strict=True)
            return {name: _exact_json(kind, part, bytes(own)) for (name, own), (kind, part) in parts}
        if text[:1] == b"[":
            dimensions, _, kind = _ARRAY.unpack_from(value)
            if kind not in _SAME_AS_JSON:
                return _list(text, dimensions, kind, _elements(value, dimensions))
    return msgspec.Raw(text)


def _list(text: bytes, dimensions: int, kind: int, elements: Iterator[bytes | None]) -> list[Any]:
    items = map(bytes, msgspec.json.decode(text, type=list[msgspec.Raw]))
    if dimensions > 1:
        return [_list(item, dimensions - 1, kind, elements) for item in items]
    return [_exact_json(kind, next(elements, None), item) for item in items]


def _fields(record: bytes) -> Iterator[tuple[int, bytes | None]]:
    """The type and the value of each field of a record's binary form."""
    (count,) = _INT.unpack_from(record)
    at = _INT.size
    for _ in range(count):
        kind, length = _FIELD.unpack_from(record, at)
        start, at = at + _FIELD.size, at + _FIELD.size + max(length, 0)
        yield kind, None if length < 0 else record[start:at]


def _elements(array: bytes, dimensions: int) -> Iterator[bytes | None]:
    at = _ARRAY.size + 8 * dimensions
    while at < len(array):
        (length,) = _INT.unpack_from(array, at)
        start, at = at + _INT.size, at + _INT.size + max(length, 0)
        yield None if length < 0 else array[start:at]


# oid, real, double precision, numeric, timestamp without and with time zone
_UNLIKE_JSON: Final = {
    **dict.fromkeys((26, 700, 701, 1700), _number),
    1114: _timestamp,
    1184: _timestamptz,
}
# Types whose values to_json writes exactly as we do, so that we need not walk their arrays.
_SAME_AS_JSON: Final = frozenset(BUILTIN_TYPES) - {*_UNLIKE_JSON, _BYTEA, RECORD}
_DECODERS: Final = {
    **dict.fromkeys(("date", "time", "timetz", "interval", "uuid", "money", "xml", "char", "jsonpath"), str),
    **dict.fromkeys(("inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "tsvector", "tsquery"), str),
    **dict.fromkeys(("point", "box", "line", "lseg", "path", "polygon", "circle"), str),
    **dict.fromkeys(("pg_lsn", "xid8", "tid", "pg_snapshot", "txid_snapshot"), str),
    "numeric": _number,
    "float4": _number,
    "json": _embedded_json,
    "jsonb": _embedded_json,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}
