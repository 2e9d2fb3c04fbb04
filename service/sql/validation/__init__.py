"""May this SQL run: `parse` reads one statement within limits, `validate_sql` allows it or says what it may
not.
"""

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
