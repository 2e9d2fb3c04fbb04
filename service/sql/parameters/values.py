"""Typed values: turn a caller's text or JSON into one canonical text, which we bind and use in the cache key.

Every value is bound as text and cast in SQL (`$1::text::date`), so that no codec of the driver changes it:
asyncpg would send 9999-12-31 as `infinity`, and would raise its own errors for numbers out of range.
"""

import re
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, tzinfo
from decimal import Context, Decimal
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from service.http.bodies import exact
from service.sql.words import CLOCK

Word = Literal["text", "integer", "number", "boolean", "date", "timestamp", "uuid", "enum"]
Canonical: TypeAlias = str | list[str] | None
Shown: TypeAlias = str | int | float | bool | Decimal | list[Any] | None

BYTES_LIMIT = 65_536  # of a text, or of all texts of a list
ELEMENTS_LIMIT = 1000
UTF8_BYTES = 4  # the maximum per character
EXPONENT_LIMIT = 1000
INTEGER_BITS = {"int2": 15, "int4": 31, "int8": 63}
FLOATS = {"float4": "<f", "float8": "<d"}
INTEGER = re.compile(r"[+-]?[0-9]{1,100}")
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
MOMENT = re.compile(
    rf"({DAY.pattern})(?:[Tt ]([0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,6}})?)?)"
    r"(?:[Zz]|([+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")
BOOLEANS = {
    **dict.fromkeys(("true", "t", "1", "yes", "on"), "true"),
    **dict.fromkeys(("false", "f", "0", "no", "off"), "false"),
}
EXAMPLES: dict[Word, str] = {
    "text": "abc",
    "integer": "7",
    "number": "12.5",
    "boolean": "true",
    "date": "2025-06-30",
    "timestamp": "2025-06-30T12:00:00Z",
    "uuid": "c797b618-df12-45f7-bbb2-cc6695a48e46",
}
POSTGRES_WORDS: dict[str, Word] = {
    **dict.fromkeys(INTEGER_BITS, "integer"),
    **dict.fromkeys(("numeric", *FLOATS), "number"),
    "bool": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "uuid": "uuid",
}
DECLARED_POSTGRES: dict[Word, str] = {
    "text": "text",
    "integer": "int8",
    "number": "numeric",
    "boolean": "bool",
    "date": "date",
    "timestamp": "timestamp",
    "uuid": "uuid",
}
SURROGATE = re.compile("[\ud800-\udfff]")
JSON_DECODER = msgspec.json.Decoder(float_hook=exact)


class Kind(Struct, frozen=True):
    """The type of a value: our word for it, and the Postgres type of its cast, named as in `pg_type`.

    For an array, `postgres` is the element's type. It is empty until Postgres's prepare resolves it.
    """

    word: Word = "text"
    postgres: str = ""
    array: bool = False
    values: tuple[str, ...] = ()

    @property
    def cast(self) -> str:
        """The cast of a bound text; a value of type text needs only one cast."""
        ends = "[]" if self.array else ""
        further = "" if self.postgres in {"", "text"} else f"::{self._spelled}{ends}"
        return f"::text{ends}{further}"

    @property
    def is_validated_here(self) -> bool:
        """Whether we can validate this type ourselves; otherwise only Postgres can."""
        return self.postgres in {"", "text", *POSTGRES_WORDS}

    @property
    def _spelled(self) -> str:
        return self.postgres if self.is_validated_here else '"' + self.postgres.replace('"', '""') + '"'

    @property
    def expected(self) -> str:
        """The end of the sentence "must be ...", with an example for types that we validate ourselves."""
        if self.word == "enum":
            expected = "one of " + ", ".join(self.values[:20])
            example = ",".join(self.values[:2]) if self.array else ""
        elif self.is_validated_here:
            expected, example = _article(self.word), EXAMPLES[self.word]
        else:
            expected, example = f"text that Postgres reads as {self.postgres}", ""
        each = "a list, comma-separated or a JSON array, each " if self.array else ""
        return f"{each}{expected}, such as {example}" if example else f"{each}{expected}"


def kind_of(name: str, declared: Kind | None = None) -> Kind:
    """The kind of a type that Postgres resolved, named as in `pg_type` (`int4`, `text[]`, `mood`).

    A declared enum keeps its values and takes only the type from Postgres.
    """
    element = name.removesuffix("[]")
    if declared is not None:
        array = declared.array or element != name
        return Kind(declared.word, element, array, declared.values)
    return Kind(POSTGRES_WORDS.get(element, "text"), element, element != name)


def from_text(kind: Kind, text: str, zone: tzinfo = UTC) -> str | list[str]:
    """The canonical value of a query-string text; ValueError with the sentence's end if it is not valid.

    `zone` is the session's time zone: a timestamp without zone is a local time in it.
    """
    if not kind.array:
        return _scalar(kind, text, zone)
    _check_text(kind, text)
    if not text.startswith("["):
        return _elements(kind, list(text.split(",")), zone)
    try:
        decoded = JSON_DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(kind.expected) from None
    return from_json(kind, decoded, zone)


def from_json(kind: Kind, value: Any, zone: tzinfo = UTC) -> str | list[str]:
    """The same for a JSON value: a string may have any type, a number or boolean only its own type."""
    if not kind.array:
        return _scalar(kind, _json_text(kind, value), zone)
    if isinstance(value, str):
        return from_text(kind, value, zone)
    if not isinstance(value, list):
        raise ValueError(kind.expected)  # noqa: TRY004 (a caller's value, not a programmer's type)
    elements = cast("list[Any]", value)[: ELEMENTS_LIMIT + 1]
    return _elements(kind, [_json_text(kind, element) for element in elements], zone)


def shown(kind: Kind, canonical: Canonical) -> Shown:
    """The canonical value as JSON: numbers are exact, all other types appear as they are bound."""
    if canonical is None:
        return None
    if isinstance(canonical, list):
        return [shown(Kind(kind.word, kind.postgres), element) for element in canonical]
    if kind.word == "integer":
        return int(canonical)
    if kind.word == "number":
        return float(canonical) if kind.postgres in FLOATS else Decimal(canonical)
    return canonical == "true" if kind.word == "boolean" else canonical


def says_now(canonical: Canonical) -> bool:
    """Whether a text depends on the clock once it is cast to a time."""
    texts = canonical if isinstance(canonical, list) else [canonical or ""]
    return any(CLOCK.search(text) for text in texts)


def _check_text(kind: Kind, text: str) -> None:
    if not text:
        raise ValueError(f"{kind.expected}; it is empty")
    if len(text) * UTF8_BYTES > BYTES_LIMIT:
        _check_bytes(kind, text)
    if "\0" in text or (not text.isascii() and SURROGATE.search(text)):
        raise ValueError(f"{kind.expected}; it has a NUL character or a lone surrogate")


def _check_bytes(kind: Kind, text: str) -> None:
    if len(text.encode("utf-8", "replace")) > BYTES_LIMIT:
        raise ValueError(f"{kind.expected}; it has more than {BYTES_LIMIT} bytes")


def _elements(kind: Kind, texts: list[str], zone: tzinfo) -> list[str]:
    if len(texts) > ELEMENTS_LIMIT:
        raise ValueError(f"a list of at most {ELEMENTS_LIMIT} values")
    if sum(map(len, texts)) * UTF8_BYTES > BYTES_LIMIT:
        _check_bytes(kind, "".join(texts))
    return [_scalar(kind, text, zone) for text in texts]


def _json_text(kind: Kind, value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            allowed = kind.word == "boolean"
        case int() | float() | Decimal():
            allowed = kind.word in {"integer", "number"}
        case _:
            allowed = False
    if not allowed:
        raise ValueError(kind.expected)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _scalar(kind: Kind, text: str, zone: tzinfo) -> str:
    _check_text(kind, text)
    reader = READERS.get(kind.word)
    try:
        if kind.word == "timestamp":
            read = _moment(kind, text, zone)
        else:
            read = reader(kind, text) if reader else text
    except (ValueError, OverflowError):
        read = None
    if read is None:
        raise ValueError(kind.expected)
    return read


def _enum(kind: Kind, text: str) -> str | None:
    if text not in kind.values:
        return None
    return _scalar(Kind(POSTGRES_WORDS.get(kind.postgres, "text"), kind.postgres), text, UTC)


def _integer(kind: Kind, text: str) -> str | None:
    if not INTEGER.fullmatch(text):
        return None
    limit, value = 1 << INTEGER_BITS.get(kind.postgres, 63), int(text)
    return str(value) if -limit <= value < limit else None


def _number(kind: Kind, text: str) -> str | None:
    if len(text) > EXPONENT_LIMIT or not NUMBER.fullmatch(text):
        return None
    if form := FLOATS.get(kind.postgres):
        value = struct.unpack(form, struct.pack(form, float(text)))[0]
        return None if value in {float("inf"), float("-inf")} else repr(value or 0.0)
    exact = Decimal(text)
    if not exact:
        return "0"
    if abs(exact.adjusted()) > EXPONENT_LIMIT:
        return None
    return format(Context(prec=EXPONENT_LIMIT).normalize(exact), "f")


def _day(kind: Kind, text: str) -> str | None:
    del kind
    return date.fromisoformat(text).isoformat() if DAY.fullmatch(text) else None


def _moment(kind: Kind, text: str, zone: tzinfo) -> str | None:
    """Without zone, the session reads the text as its local time; a day without time is midnight there."""
    if not MOMENT.fullmatch(text):
        return None
    read = datetime.fromisoformat(text.upper())
    if read.tzinfo is None:
        return read.isoformat(timespec="microseconds")
    aware = kind.postgres == "timestamptz"
    moment = read.astimezone(UTC if aware else zone).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + ("+00" if aware else "")


def _uuid(kind: Kind, text: str) -> str | None:
    del kind
    return str(UUID(text)) if UUID_TEXT.fullmatch(text) else None


def _boolean(kind: Kind, text: str) -> str | None:
    del kind
    return BOOLEANS.get(text.lower())


def _article(word: str) -> str:
    return {"integer": "an integer", "text": "text"}.get(word, f"a {word}")


READERS: dict[Word, Callable[[Kind, str], str | None]] = {
    "enum": _enum,
    "integer": _integer,
    "number": _number,
    "date": _day,
    "uuid": _uuid,
    "boolean": _boolean,
}
