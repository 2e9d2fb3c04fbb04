"""Recognise servers that speak Postgres and differ from it, and say what that means for freshness."""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from service.setup.findings import Finding
from service.setup.inspect import SQL


class Signs(Struct, frozen=True):
    """By what the servers are known, and relations of the data schemas that cannot announce changes."""

    citus: bool
    yugabyte: bool
    aurora: bool
    rds: bool
    neon: bool
    foreign_tables: int
    materialized_views: int


READ_SIGNS: Final = SQL.rows("read_signs", Signs)

_MEANINGS: Final = {
    "citus": "Citus: distributed tables take no statement triggers, so time bounds results on them "
    "(FRESH_FOR_S)",
    "yugabyte": "YugabyteDB: LISTEN is off by default; without it each result is run again, and nodes "
    "share nothing",
    "aurora": "Aurora: its readers do not stream WAL, so they cannot stand in REPLICA_DATABASE_URLS; "
    "nodes share results as on Postgres",
    "rds": "RDS: as Postgres; read replicas may stand in REPLICA_DATABASE_URLS",
    "neon": "Neon: while the compute sleeps nothing is announced, and each wake-up begins with an empty "
    "shared store; switch off scale-to-zero, and use its direct address for LISTEN_DATABASE_URL",
}


def engine_findings(signs: Signs) -> Iterator[Finding]:
    """What differs from Postgres itself. Aurora has the signs of RDS too."""
    for name, meaning in _MEANINGS.items():
        if getattr(signs, name) and not (name == "rds" and signs.aurora):
            yield Finding("engine", "note", meaning)
    if signs.foreign_tables:
        yield Finding(
            "engine",
            "note",
            f"{signs.foreign_tables} foreign tables announce nothing: time bounds results on them "
            "(FRESH_FOR_S)",
        )
    if signs.materialized_views:
        yield Finding(
            "engine",
            "note",
            f"{signs.materialized_views} materialized views: a refresh is noticed by the poll, within 12 s",
        )
