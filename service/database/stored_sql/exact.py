"""How values of stored SQL come over the wire: exactly as Postgres writes them, not as Python has them.

Integers, double precision, booleans, text and bytea are what the driver reads without loss; everything else
is Postgres's own text, marked as JSON where that text is JSON. Composites, records and vectors have no such
text: they are odd, and whoever runs a statement asks Postgres to write them as JSON.
"""

from collections.abc import Collection
from typing import Any, Final

import msgspec
from asyncpg.protocol.protocol import BUILTIN_TYPE_OID_MAP

from service.database.gateway import RawConnection

_COMPOSITE: Final = b"c"
_DOMAIN: Final = b"d"
# pg_type's own numbers, which never change.
_INT2VECTOR: Final = 22
_OIDVECTOR: Final = 30
_RECORD: Final = 2249


class ExactConnection(RawConnection):
    """A connection that hands over values exactly, and knows Postgres's own types without asking."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.odd: set[int] = {_RECORD, _INT2VECTOR, _OIDVECTOR}
        protocol: Any = args[0]
        self._codecs: Any = protocol.get_settings()
        for oid, name in BUILTIN_TYPE_OID_MAP.items():
            if decoder := _DECODERS.get(name):
                self._codecs.add_python_codec(oid, name, "pg_catalog", None, "scalar", str, decoder, "text")

    async def _introspect_types(self, typeoids: Collection[int], *limits: Any) -> Any:
        """Leave to the driver only arrays and domains: it takes nothing apart whose parts come as text."""
        driver: Any = super()
        types, statement = await driver._introspect_types(typeoids, *limits)  # noqa: SLF001
        found: dict[int, Any] = {kind["oid"]: kind for kind in types}
        for oid in typeoids:
            self._learn(oid, found)
        derived = [kind for oid, kind in found.items() if self._codecs.get_data_codec(oid) is None]
        return derived, statement

    def _learn(self, oid: int, found: dict[int, Any]) -> None:
        if self._codecs.get_data_codec(oid) is not None:
            return
        kind = found[oid]
        base = kind["basetype"] if kind["kind"] == _DOMAIN else kind["elemtype"]
        if base and oid not in self.odd:
            self._learn(base, found)
            if base not in self.odd:
                return
        if base or kind["kind"] == _COMPOSITE:
            self.odd.add(oid)
        self._codecs.add_python_codec(oid, kind["name"], kind["ns"], None, "scalar", str, _same, "text")


def _same(text: str) -> str:
    return text


def _number(text: str) -> msgspec.Raw | None:
    """A JSON number exactly as Postgres writes it; NaN and the infinities are null."""
    return None if text[-1] in "Ny" else msgspec.Raw(text.encode())


def _embedded_json(text: str) -> msgspec.Raw:
    # Raw newlines can only stand between tokens; without them a record stays one line of NDJSON.
    return msgspec.Raw(text.replace("\n", " ").replace("\r", " ").encode())


def _timestamp(text: str) -> str:
    """ISO 8601 for years 1 to 9999, else Postgres's text (infinity, BC, far years)."""
    return text if text[4] != "-" or text[-1] == "C" else text[:10] + "T" + text[11:]


def _timestamptz(text: str) -> str:
    """RFC 3339 in UTC, which the session's time zone is."""
    return text if text[4] != "-" or text[-1] == "C" else text[:10] + "T" + text[11:-3] + "Z"


_DECODERS: Final = {
    **dict.fromkeys(
        ("date", "time", "timetz", "interval", "uuid", "money", "xml", "char", "jsonpath"), _same
    ),
    **dict.fromkeys(("inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "tsvector", "tsquery"), _same),
    **dict.fromkeys(("point", "box", "line", "lseg", "path", "polygon", "circle"), _same),
    **dict.fromkeys(("pg_lsn", "xid8", "tid", "pg_snapshot", "txid_snapshot"), _same),
    "numeric": _number,
    "float4": _number,
    "json": _embedded_json,
    "jsonb": _embedded_json,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
}
