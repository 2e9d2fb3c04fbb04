"""Sessions of the reader: the settings under which stored SQL runs, and the pool of such connections."""

from typing import Any, Final
from weakref import WeakSet

import asyncpg

from service.database.breaker import Breaker
from service.database.connect import asyncpg_arguments
from service.database.driver import Pool
from service.database.gateway import refuse_lost
from service.database.stored_sql.connection import RESET, STATEMENTS, UNLOCK, ReaderConnection
from service.database.stored_sql.limiter import GRACE_S
from service.settings import Database as DatabaseSettings

DESCRIBERS: Final = 2
"""Connections that prepare and plan new SQL, beside those that run it."""
LOCK_TIMEOUT_MS: Final = 1000


async def make_pool(url: str, settings: DatabaseSettings, breaker: Breaker | None = None) -> Pool:
    """A pool that connects when it is used. `breaker` is that of the server that the address leads to."""
    own = settings.reader_pooler == "none"
    connections: WeakSet[ReaderConnection] = WeakSet()

    async def prepare(connection: Any) -> None:
        connection.reset_sql = RESET if own else UNLOCK
        connections.add(connection)

    def abandon() -> None:
        """Give up all connections, those in use too: what they run is only read."""
        for connection in tuple(connections):
            connection.abort()

    pool = asyncpg.create_pool(
        **asyncpg_arguments(url, _session(settings) if own else None),
        min_size=0,
        max_size=settings.reader_pool_size + DESCRIBERS,
        connection_class=ReaderConnection,
        init=prepare,
        command_timeout=settings.statement_timeout_ms / 1000 + GRACE_S,
        max_cacheable_statement_size=1 << 20,
        statement_cache_size=STATEMENTS if own else 0,
        connect=None if breaker is None else breaker.connect,
        setup=refuse_lost,
    )
    await pool
    if breaker is not None:
        breaker.watch(abandon)
    return pool


def _session(settings: DatabaseSettings) -> dict[str, str]:
    """Session settings that apply while stored SQL runs."""
    return {
        "application_name": "tally reader",
        "default_transaction_read_only": "on",
        "statement_timeout": str(settings.statement_timeout_ms),
        "lock_timeout": str(min(LOCK_TIMEOUT_MS, settings.statement_timeout_ms)),
        "search_path": ", ".join(f'"{name}"' for name in settings.data_schemas),
        "timezone": settings.time_zone,
        "datestyle": "ISO",
        "intervalstyle": "iso_8601",
    }


# A policy may read the setting, also while its statement is planned. Left empty by an earlier caller, it is
# not JSON.
NO_CLAIMS: Final = "{}"
SET_NO_CLAIMS: Final = f"pg_catalog.set_config('request.claims', '{NO_CLAIMS}', true)"


def begin_sql(settings: DatabaseSettings) -> str:
    """SQL that begins a transaction with the settings of `_session`, independent of the session's own."""
    session = [(name, value.replace("'", "''")) for name, value in _session(settings).items()]
    calls = ", ".join(f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in session)
    return f"BEGIN READ ONLY; SELECT {calls}"
