"""What the tests of validation share."""

import pytest

from service.errors import SqlRefused
from service.sql.validation import Statement, Verdict, validate_sql


def verdict(sql: str | Statement, *schemas: str, **options) -> Verdict:
    return validate_sql(sql, schemas=schemas or ("data",), **options)


def refusal(sql: str, *schemas: str, **options) -> SqlRefused:
    with pytest.raises(SqlRefused) as caught:
        verdict(sql, *schemas, **options)
    return caught.value
