"""A connection of the reader: it counts the bytes that arrive and leaves nothing behind."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

import asyncpg

from service.database.stored_sql.exact import ExactConnection

UNLOCK: Final = "SELECT pg_catalog.pg_advisory_unlock_all();"


# RESET ALL spares the role.
RESET: Final = f"{UNLOCK} CLOSE ALL; UNLISTEN *; RESET ALL; RESET SESSION AUTHORIZATION"


# What one connection keeps prepared, and what a single statement may take of it, in bytes of memory.
STATEMENTS: Final = 100


STATEMENT_BYTES: Final = 4 << 20


HEAVY_STATEMENT: Final = 512 << 10


# Name and type (`pg_type.oid`) of each column.
Shape = tuple[tuple[str, int], ...]


class ReaderConnection(ExactConnection):
    """A connection that counts what arrives and leaves nothing behind for its next borrower."""

    def __init__(self, protocol: Any, transport: Any, *args: Any) -> None:
        super().__init__(protocol, transport, *args)
        self.cap = ByteCap(protocol, transport)
        transport.set_protocol(self.cap)
        self.at_end = RESET
        self.itself = self
        """The way through the pool's proxy, which makes every use of it a search."""
        self.mark: str | None = None
        """What its session is called behind a pooler while it has a transaction."""
        self.proxy: Any = None
        """What the pool knows the connection by while it has lent it."""
        self.borrowings = 0
        """Which time of borrowing it was made in: see `Loans.retire`."""
        self._skip_reset = False
        self._to_forget = ""
        self._statement: Any = None
        self._asked = ("", 0)
        self._prepared_bytes = 0
        self._shapes: dict[str, Shape] = {}

    def skip_reset(self) -> None:
        """Say that what runs next changes nothing that a reset would put back."""
        self._skip_reset = True

    def take_back(self) -> bool:
        """End the vouching; whether the connection can be lent on as it is."""
        skip_reset, self._skip_reset = self._skip_reset, False
        return skip_reset and not self.is_closed() and not self.is_in_transaction()

    def forget(self, statement: str) -> None:
        """Let a statement prepared under a name of its own go when the borrower does."""
        self._to_forget += f'DEALLOCATE "{statement}";'

    async def fetch_some(
        self, sql: str, args: Sequence[Any], limit: int
    ) -> tuple[list[asyncpg.Record], Shape]:
        """Up to `limit` rows, and what they are made of."""
        driver: Any = super()
        # The protocol's own limit, as `fetchrow` uses it with 1.
        records: list[asyncpg.Record] = await driver._execute(sql, args, limit, None)  # noqa: SLF001
        return records, self._shape()

    def prepares(self, sql: str, weight: int) -> bool:
        """Note what is asked for next, and say whether it will be kept prepared.

        If not, only a reset ends it: an unnamed statement, which goes with the next simple query.
        """
        self._asked = (sql, weight)
        return weight <= HEAVY_STATEMENT

    def _shape(self) -> Shape:
        statement = self._statement
        shape = self._shapes.get(statement.name) if statement.name else None
        if shape is None:
            shape = shape_of(statement._get_attributes())  # noqa: SLF001 (the driver's own statement)
            if statement.name:
                self._shapes[statement.name] = shape
        return shape

    async def _get_statement(self, query: str, *args: Any, **options: Any) -> Any:
        driver: Any = super()
        asked, weight = self._asked
        if query == asked and weight > HEAVY_STATEMENT:
            options["use_cache"] = False
        if self._prepared_bytes > STATEMENT_BYTES or len(self._shapes) > 2 * STATEMENTS:
            self._let_go()
        statement = self._statement = await driver._get_statement(query, *args, **options)  # noqa: SLF001
        if query == asked and statement.name and statement.name not in self._shapes:
            self._prepared_bytes += weight
        return statement

    def _let_go(self) -> None:
        """Keep nothing prepared any longer; the driver closes it all when it has prepared the next."""
        cache: Any = self
        cache._stmt_cache.clear()  # noqa: SLF001 (the driver's own)
        self._shapes.clear()
        self._prepared_bytes = 0

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 (the driver's signature)
        """End what is open and forget what was set, in one round trip, or none where nothing can be."""
        if self.take_back():
            return
        rollback = "ROLLBACK;" if self.is_in_transaction() else ""
        forget, self._to_forget = self._to_forget, ""
        async with asyncio.timeout(timeout):
            await self.execute(rollback + forget + self.at_end)


class ByteCap(asyncio.Protocol):
    """Stands between the socket and the driver, and cuts the connection when a result passes its cap."""

    def __init__(self, driver: Any, transport: Any) -> None:
        self._driver = driver
        self._transport = transport
        self._cap = self._left = -1
        self.exceeded = False

    @property
    def received(self) -> int:
        """Bytes that came since it was started."""
        return self._cap - self._left

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
