"""Translate the errors of stored SQL into the problems that its callers get."""

from typing import Any

import asyncpg

from service.database.gateway import LOST_CONNECTION
from service.database.stored_sql.connection import ByteCap
from service.errors import (
    DatabaseUnavailable,
    FieldError,
    Problem,
    QueryFailed,
    QueryTimeout,
    ResultTooLarge,
)
from service.settings import Database as DatabaseSettings


def problem_of(error: BaseException, cap: ByteCap, settings: DatabaseSettings) -> Problem | None:
    """The problem that a caller gets for an error; None if the error is not from Postgres."""
    match error:
        case asyncpg.QueryCanceledError() | TimeoutError():
            limit_ms = settings.statement_timeout_ms
            return QueryTimeout(f"The stored SQL ran longer than {limit_ms} ms and was cancelled.")
        case asyncpg.LockNotAvailableError():
            return QueryTimeout("The stored SQL waited too long for a lock on one of its tables.")
        case asyncpg.DiskFullError():
            return DatabaseUnavailable("The database has no disk left.", headers={"Retry-After": "30"})
        case _ if isinstance(error, LOST_CONNECTION):
            return _lost(cap, settings.result_bytes_limit)
        case asyncpg.PostgresError():
            return _query_failed(error)
        case _:
            return None


def _lost(cap: ByteCap, limit: int) -> Problem:
    """The connection was lost: by our own hand, if the result was too large."""
    if cap.exceeded:
        return ResultTooLarge(
            f"The result takes more than {limit} bytes (RESULT_BYTES_LIMIT): select fewer columns or rows."
        )
    return DatabaseUnavailable(headers={"Retry-After": "2"})


def _query_failed(error: asyncpg.PostgresError) -> Problem:
    message = getattr(error, "message", None) or str(error)
    position = getattr(error, "position", None)
    members: dict[str, Any] = {"sqlstate": error.sqlstate}
    if position is not None:
        members["position"] = int(position)
    if hint := getattr(error, "hint", None):
        members["hint"] = hint
    return QueryFailed(f"Postgres: {message}", errors=(FieldError("sql", message),), **members)
