"""What the tests of validation share."""

import pytest

from service.errors import SqlRefused
from service.sql.validation import Statement, validate_sql


def relations_of(sql: str | Statement, *schemas: str, **options) -> tuple[str, ...]:
    """The relations of SQL that is allowed."""
    return validate_sql(sql, schemas=schemas or ("data",), **options)


def refusal(sql: str, *schemas: str, **options) -> SqlRefused:
    with pytest.raises(SqlRefused) as caught:
        relations_of(sql, *schemas, **options)
    return caught.value


def is_allowed(sql: str | Statement, *schemas: str, **options) -> bool:
    """Raises `SqlRefused` if it is not."""
    relations_of(sql, *schemas, **options)
    return True
