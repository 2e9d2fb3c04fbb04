"""Find out whether an address leads to Postgres itself or to a connection pooler."""

from typing import Literal

import psycopg

Pooler = Literal["none", "session", "transaction"]
_TRIES = 3


def pooler_at(url: str) -> Pooler:
    """The pooler that answers at the address. Raises `psycopg.Error` if nothing does.

    Postgres tells its process id at login; a pooler tells a number of its own. In transaction mode a second
    client gets the server process that the first one used.
    """
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as first:
        process = _process(first)
        if first.info.backend_pid == process:
            return "none"
        for _ in range(_TRIES):
            with psycopg.connect(url, autocommit=True, prepare_threshold=None) as second:
                if _process(second) == process or _process(first) != process:
                    return "transaction"
    return "session"


def _process(session: psycopg.Connection) -> int:
    (process,) = session.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    return process
