"""All that we use of asyncpg beyond its documented interface.

asyncpg is pinned to one minor version in pyproject.toml. Before an upgrade, compare each method of this file
with asyncpg's own in `connection.py` and `protocol/`: an override must still be called, with the same
arguments. Then run tests/db/test_exact.py (codecs), tests/adversity/test_reader.py (row limit, prepared
statements), tests/db/test_listen.py (notifications) and tests/db/test_driver.py (cancelled connections).
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from asyncpg.protocol.protocol import BUILTIN_TYPE_OID_MAP

if TYPE_CHECKING:  # generic for the type checker only
    RawConnection = asyncpg.Connection[asyncpg.Record]
    Connection = RawConnection | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    RawConnection = Connection = asyncpg.Connection
    Pool = asyncpg.Pool

BUILTIN_TYPES: Final[dict[int, str]] = BUILTIN_TYPE_OID_MAP
"""Names of Postgres's built-in types by oid."""


class DriverConnection(RawConnection):
    """A connection whose subclasses decide on codecs and on which statements stay prepared."""

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        self._codecs: Any = protocol.get_settings()
        self.last_statement: Any = None

    def has_codec(self, oid: int) -> bool:
        return self._codecs.get_data_codec(oid) is not None

    def decode_text(self, oid: int, name: str, decoder: Callable[[str], Any], schema: str) -> None:
        """Receive values of a type in text form. `str` encodes arguments."""
        self._codecs.add_python_codec(oid, name, schema, None, "scalar", str, decoder, "text")

    def decode_binary(self, oid: int, name: str, decoder: Callable[[bytes], Any]) -> None:
        self._codecs.add_python_codec(oid, name, "pg_catalog", None, "scalar", bytes, decoder, "binary")

    def introspected(self, types: Iterable[Any]) -> list[Any]:
        """Add codecs for new types. Return the types that are left to the driver."""
        raise NotImplementedError

    def keeps(self, query: str) -> bool:
        """Whether a statement that is prepared now stays prepared."""
        raise NotImplementedError

    def prepared(self, query: str, name: str) -> None:
        """Note that a statement was prepared. One that does not stay prepared has no name."""
        raise NotImplementedError

    async def fetch_limited(self, sql: str, args: Sequence[Any], limit: int) -> list[asyncpg.Record]:
        """Up to `limit` rows, by the protocol's row limit. `fetchrow` uses it with 1.

        A statement that is prepared already is executed without the driver's layers, whose checks and retry
        take a fifth of the time. So it may raise `InvalidCachedStatementError`.
        """
        driver: Any = self
        statement = driver._stmt_cache.get((sql, driver._protocol.get_record_class(), False))  # noqa: SLF001
        if statement is None:
            return await super()._execute(sql, args, limit, None)  # type: ignore[misc]
        self.last_statement = statement
        timeout: float | None = driver._protocol._get_timeout(None)  # noqa: SLF001
        with driver._stmt_exclusive_section:  # noqa: SLF001
            return await driver._protocol.bind_execute(statement, args, "", limit, False, timeout)  # noqa: SLF001

    def last_attributes(self) -> Iterable[Any]:
        """Name and type of each column of the statement that was executed last."""
        return self.last_statement._get_attributes()  # noqa: SLF001

    def drop_prepared(self) -> None:
        """Drop all prepared statements. The driver closes them after it has prepared the next one."""
        cache: Any = self
        cache._stmt_cache.clear()  # noqa: SLF001

    async def _introspect_types(self, typeoids: Collection[int], *limits: Any) -> Any:
        driver: Any = super()
        types, statement = await driver._introspect_types(typeoids, *limits)  # noqa: SLF001
        return self.introspected(types), statement

    async def _get_statement(self, query: str, *args: Any, **options: Any) -> Any:
        driver: Any = super()
        if not self.keeps(query):
            options["use_cache"] = False
        self.last_statement = await driver._get_statement(query, *args, **options)  # noqa: SLF001
        self.prepared(query, self.last_statement.name)
        return self.last_statement


class ListenConnection(asyncpg.Connection):
    """Calls the listeners as soon as a notification is read.

    asyncpg schedules them at the end of the event loop's queue instead. Requests before them in that queue
    would then be served stale results, and the socket would already be empty.
    """

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        for listener in self._listeners.get(channel, ()):
            listener.cb(self, pid, channel, payload)

    def file_number(self) -> int:
        """The file descriptor of the socket."""
        connection: Any = self
        return int(connection._transport.get_extra_info("socket").fileno())  # noqa: SLF001


def give_place_back(released: Any) -> None:
    """Give the pool the place of a connection back that was closed while it was lent; after its release.

    A session that Postgres ends between two statements is closed by the driver at the next one, without
    a word to the pool, which would keep the place for ever.
    """
    connection: Any = getattr(released, "_con", None)  # None if the pool knows
    if connection is not None and connection.is_closed():
        connection._cleanup()  # noqa: SLF001 (what the driver does for any other loss)


def terminate_idle(pool: Any) -> None:
    """Close a pool's idle connections without a word to the server. Those in use are closed on release."""
    pool._generation += 1  # noqa: SLF001 (`expire_connections`, which may be called between two turns only)
    for holder in pool._holders:  # noqa: SLF001
        if holder.is_idle():
            holder.terminate()


class CancelledConnects(logging.Filter):
    """Drops asyncio's error about a connection that was given up while Postgres answered its wish for TLS.

    asyncpg (`connect_utils.TLSUpgradeProto.data_received`) then answers a future that is cancelled already.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (isinstance(error, asyncio.InvalidStateError) and "TLSUpgradeProto" in record.getMessage())


_CANCELLED_CONNECTS: Final = CancelledConnects()


def ignore_cancelled_connects() -> None:
    """Keep connections that were given up out of the log. May be called again."""
    logging.getLogger("asyncio").addFilter(_CANCELLED_CONNECTS)
