"""A connection of the reader: it counts received bytes and resets its session on release."""

import asyncio
from collections.abc import Iterable
from math import inf
from pathlib import Path
from typing import Any, Final

from service.database.queries import SqlFile
from service.database.stored_sql.exact import ExactConnection

SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))

UNLOCK: Final = "SELECT pg_catalog.pg_advisory_unlock_all();"


# RESET ALL does not reset the role.
RESET: Final = f"{UNLOCK} CLOSE ALL; UNLISTEN *; RESET ALL; RESET SESSION AUTHORIZATION"


# Limits of one connection's prepared statements: their number, their memory in bytes, and the memory above
# which a single statement is not kept prepared.
STATEMENTS: Final = 100


STATEMENT_BYTES: Final = 4 << 20


HEAVY_STATEMENT: Final = 512 << 10


# Name and type (`pg_type.oid`) of each column.
Shape = tuple[tuple[str, int], ...]


class ReaderConnection(ExactConnection):
    """A connection that counts received bytes and leaves no session state to the next caller."""

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        self.cap = ByteCap(protocol, transport)
        transport.set_protocol(self.cap)
        self.reset_sql = RESET
        self.itself = self
        """The connection behind the pool's proxy; the proxy looks up every attribute, which is slow."""
        self.session_name: str | None = None
        """The application_name of its session behind a pooler, while a transaction is open."""
        self.proxy: Any = None
        """The pool's proxy for the connection while it is acquired."""
        self.pool_generation = 0
        """The limiter's generation when it was acquired from the pool: see `ConnectionLimiter.retire`."""
        self.lineage_known_until = -inf
        """Until when a standby's history need not be compared again, by the event loop's time."""
        self._skip_reset = False
        self._deallocate_sql = ""
        self._next = ("", 0, False)
        self._prepared_bytes = 0
        self._shapes: dict[str, Shape] = {}

    def abort(self) -> None:
        """Give the connection up without a word to the server, as if the network had cut it."""
        self.cap.abort()

    def skip_reset(self) -> None:
        """Declare that the next statement changes nothing that a reset would undo."""
        self._skip_reset = True

    def is_reusable(self) -> bool:
        """Whether the next caller can have the connection without a reset; clears `skip_reset`."""
        skip_reset, self._skip_reset = self._skip_reset, False
        return skip_reset and not self.is_closed() and not self.is_in_transaction()

    def forget(self, statement: str) -> None:
        """Deallocate a statement with an explicit name when the connection is released."""
        self._deallocate_sql += f'DEALLOCATE "{statement}";'

    def expect(self, sql: str, weight: int, *, once: bool = False) -> bool:
        """Note the next statement, and return whether its memory is light enough to be kept.

        A heavy one, and one that is run `once`, is an unnamed statement. It takes memory until the next
        unnamed statement or simple query, such as a reset, replaces it.
        """
        self._next = (sql, weight, once)
        return weight <= HEAVY_STATEMENT

    def shape(self) -> Shape:
        """The shape of the rows that were fetched last."""
        name = self.last_statement.name
        shape = self._shapes.get(name) if name else None
        if shape is None:
            shape = shape_of(self.last_attributes())
            if name:
                self._shapes[name] = shape
        return shape

    def keeps(self, query: str) -> bool:
        if self._prepared_bytes > STATEMENT_BYTES or len(self._shapes) > 2 * STATEMENTS:
            self.drop_prepared()
            self._shapes.clear()
            self._prepared_bytes = 0
        expected, weight, once = self._next
        return query != expected or (weight <= HEAVY_STATEMENT and not once)

    def prepared(self, query: str, name: str) -> None:
        expected, weight, _ = self._next
        if query == expected and name and name not in self._shapes:
            self._prepared_bytes += weight

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 (the driver's signature)
        """Roll back and reset the session in one round trip, or in none where a reset is not needed."""
        if self.is_reusable():
            return
        rollback = "ROLLBACK;" if self.is_in_transaction() else ""
        deallocate, self._deallocate_sql = self._deallocate_sql, ""
        async with asyncio.timeout(timeout):
            await self.execute(rollback + deallocate + self.reset_sql)


class ByteCap(asyncio.Protocol):
    """Sits between the socket and the driver, and aborts the connection when a result exceeds its cap."""

    def __init__(self, driver: Any, transport: Any) -> None:
        self._driver = driver
        self._transport = transport
        self._cap = self._left = -1
        self.exceeded = False

    @property
    def received(self) -> int:
        """Bytes received since `start`."""
        return self._cap - self._left

    def abort(self) -> None:
        self._transport.abort()

    def start(self, cap: int) -> None:
        self._cap = self._left = cap
        self.exceeded = False

    def stop(self) -> None:
        self._left = -1

    def data_received(self, data: bytes) -> None:
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                self.exceeded = True
                self._transport.abort()
                return
        self._driver.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._driver.eof_received()

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


def shape_of(attributes: Iterable[Any]) -> Shape:
    return tuple((attribute.name, attribute.type.oid) for attribute in attributes)
