"""Validate stored SQL: `parse` reads one statement within limits, `validate_sql` allows or refuses it."""

from service.sql.validation.foreign import foreign
from service.sql.validation.limits import UnknownCall, Unread
from service.sql.validation.parsing import Statement, UnparsedStatement, parse, unparsed
from service.sql.validation.reading import validate_sql

__all__ = [
    "Statement",
    "UnknownCall",
    "UnparsedStatement",
    "Unread",
    "foreign",
    "parse",
    "unparsed",
    "validate_sql",
]
