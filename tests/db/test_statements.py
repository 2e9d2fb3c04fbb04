"""Every named statement runs on the migrated database and gives the columns of its Struct."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import service
from service.database.gateway import Transaction
from service.database.queries import Command, Statement
from service.imports.datasets import find
from service.imports.plan.cells import check, create_landed


def _statements() -> Iterator[Statement[Any] | Command]:
    seen: set[str] = set()
    for module in pkgutil.walk_packages(service.__path__, "service."):
        if module.name == "service.__main__":
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Statement | Command) and value.sql not in seen:
                seen.add(value.sql)
                yield value


STATEMENTS = list(_statements())


def test_there_are_statements_to_check():
    assert {"list_metrics", "record_event", "is_running"} <= {statement.name for statement in STATEMENTS}


@pytest.fixture
async def temporary_tables(tx: Transaction):
    """The tables of an import that some statements work on."""
    customers = find("customers")
    assert customers
    await tx._connection.execute(create_landed(customers))
    await tx._connection.execute(check(customers))


@pytest.mark.usefixtures("temporary_tables")
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
async def test_a_statement_fits_the_database_and_its_struct(
    tx: Transaction, statement: Statement[Any] | Command
):
    prepared = await tx._connection.prepare(statement.sql)
    columns = [attribute.name for attribute in prepared.get_attributes()]
    expected = list(statement.row.__struct_fields__) if isinstance(statement, Statement) else []
    assert columns[: len(expected)] == columns
    assert columns == expected[: len(columns)]
    required = [field for field in _fields(statement) if field.required]
    assert len(columns) >= len(required)


def _fields(statement: Statement[Any] | Command) -> tuple[Any, ...]:
    import msgspec

    return msgspec.structs.fields(statement.row) if isinstance(statement, Statement) else ()
