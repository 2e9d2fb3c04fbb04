"""What `doctor` says of servers that speak Postgres."""

import pytest

from service.setup.engines import Signs, engine_findings

PLAIN = {"citus": False, "yugabyte": False, "aurora": False, "rds": False, "neon": False}
NONE = {"foreign_tables": 0, "materialized_views": 0}


@pytest.mark.parametrize(
    ("signs", "starts"),
    [
        ({}, []),
        ({"citus": True}, ["Citus"]),
        ({"yugabyte": True}, ["YugabyteDB"]),
        ({"aurora": True, "rds": True}, ["Aurora"]),
        ({"rds": True}, ["RDS"]),
        ({"neon": True}, ["Neon"]),
        ({"foreign_tables": 2, "materialized_views": 1}, ["2 foreign tables", "1 materialized views"]),
    ],
)
def test_each_server_is_named_with_what_it_means(signs, starts):
    found = list(engine_findings(Signs(**{**PLAIN, **NONE, **signs})))
    assert len(found) == len(starts)
    assert all(each.message.startswith(start) for each, start in zip(found, starts, strict=True))
    assert {each.status for each in found} <= {"note"}
