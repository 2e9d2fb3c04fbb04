"""A dedicated connection to Postgres, for work that must not wait for the pool or keep others waiting."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import asyncpg

from service.database.breaker import Breaker
from service.database.connect import asyncpg_arguments
from service.database.driver import Connection, RawConnection
from service.database.gateway import LOST_CONNECTION, Verbs, translated, use_json
from service.errors import DatabaseUnavailable

CLOSE_WAIT_S = 1.0


class Session(Verbs):
    """Connects on first use and reconnects after any failure; one caller at a time.

    Every failure is `DatabaseUnavailable`. `timeout_s` bounds connecting and each statement.
    """

    def __init__(self, url: str, name: str, timeout_s: float, breaker: Breaker | None = None) -> None:
        """`breaker` is that of the server that the address leads to."""
        self._url = url
        self._breaker = breaker
        self._name = name
        self._timeout_s = timeout_s
        self._connection: RawConnection | None = None
        if breaker is not None:
            breaker.watch(self._drop)

    @asynccontextmanager
    async def _borrow(self) -> AsyncGenerator[Connection]:
        try:
            if self._breaker is not None:
                self._breaker.check()
            with translated():
                yield await self._connected()
        except asyncpg.PostgresError as error:
            self._drop()
            raise DatabaseUnavailable(headers={"Retry-After": "2"}) from error
        except BaseException:
            self._drop()
            raise

    async def aclose(self) -> None:
        if self._connection is not None:
            with suppress(*LOST_CONNECTION):
                await self._connection.close(timeout=CLOSE_WAIT_S)

    async def _connected(self) -> RawConnection:
        if self._connection is None or self._connection.is_closed():
            settings = {"application_name": self._name, "timezone": "UTC", "search_path": "pg_catalog"}
            arguments = asyncpg_arguments(self._url, settings)
            arguments["timeout"] = self._timeout_s
            connect = asyncpg.connect if self._breaker is None else self._breaker.connect
            self._connection = await connect(**arguments)
            assert self._connection is not None, "or it would have raised"
            await use_json(self._connection)
        return self._connection

    def _drop(self) -> None:
        """Terminate the connection, so that a hanging statement cannot delay the next one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
