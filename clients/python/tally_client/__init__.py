"""Tally's API for Python, typed, with and without an event loop."""

from ._generated import models
from ._generated.types import UNSET
from .aio import AsyncClient
from .answers import Answer
from .client import Client
from .credentials import ClientCredentials
from .errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    ProblemError,
    TallyError,
    TimedOutError,
    UnauthorizedError,
    UnexpectedAnswerError,
    UnreachableError,
    UpstreamError,
)
from .exact import JsonNumber
from .live import LiveEvent
from .version import __version__

__all__ = [
    "UNSET",
    "Answer",
    "AsyncClient",
    "BusyError",
    "Client",
    "ClientCredentials",
    "ConflictError",
    "ForbiddenError",
    "InvalidInputError",
    "JsonNumber",
    "LiveEvent",
    "NotFoundError",
    "ProblemError",
    "TallyError",
    "TimedOutError",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UnreachableError",
    "UpstreamError",
    "__version__",
    "models",
]
