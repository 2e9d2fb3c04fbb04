"""Validate stored SQL: `parse` reads one statement within limits, `validate_sql` allows or refuses it."""

from service.sql.validation.foreign import foreign
from service.sql.validation.lexer import Unread
from service.sql.validation.lists import FUNCTIONS, NODES, RESERVED
from service.sql.validation.reading import Verdict, is_lossy, parse, validate_sql

__all__ = [
    "FUNCTIONS",
    "NODES",
    "RESERVED",
    "Unread",
    "Verdict",
    "foreign",
    "is_lossy",
    "parse",
    "validate_sql",
]
