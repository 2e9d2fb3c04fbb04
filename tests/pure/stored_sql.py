"""What the tests of parameters share: stored SQL, read; what it binds to; what it refuses."""

import msgspec
import pytest

from service.errors import InvalidInput
from service.sql.parameters import analyse
from service.sql.validation import parse, unparsed

START, END = ("start_date", "2025-06-05"), ("end_date", "2025-06-20")
AUTHORED = "SELECT * FROM t WHERE day BETWEEN :start_date AND :end_date"


def read(sql, **declared):
    return analyse(parse(sql), declared)


def trusted(sql, **declared):
    """Analyse trusted SQL, which has no tree."""
    return analyse(unparsed(sql), declared)


def where(condition):
    return read(f"SELECT * FROM t WHERE {condition}")


def conditions(condition, *pairs):
    """The condition that runs when these parameters are given."""
    return where(condition).bind(pairs).sql.removeprefix("SELECT * FROM t WHERE ")


def outcome(bind, raw):
    """The bound statement; None after an InvalidInput, which must always be encodable as JSON."""
    try:
        return bind(raw)
    except InvalidInput as refused:
        msgspec.json.encode([refused.detail, refused.errors])
        return None


def refusal(template, *pairs):
    with pytest.raises(InvalidInput) as caught:
        template.bind(pairs)
    return {error.field: error.message for error in caught.value.errors}
