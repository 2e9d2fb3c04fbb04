"""Check that the server knows the time zone of stored SQL: its list of zones may be older than ours."""

import asyncpg

from service.database.connect import asyncpg_arguments
from service.errors import Stop


async def refuse_unknown_zone(url: str, name: str) -> None:
    """Raise `Stop` (exit status 2) for a zone that Postgres does not know; ignore an unreachable server."""
    try:
        connection = await asyncpg.connect(**asyncpg_arguments(url, {"timezone": name}))
        await connection.close()
    except asyncpg.InvalidParameterValueError as error:
        message = f"TIME_ZONE={name!r}: the database does not know this time zone ({error})"
        raise Stop(message, exit_code=2) from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return  # other connection errors are reported where the connection is used
