"""Bring the database up to date: yoyo's migrations under an advisory lock, then the reader's rights.

yoyo's own lock is a row that outlives a killed process. An advisory lock ends with its session, so N
starting instances migrate once and a killed instance blocks no other.
"""

from pathlib import Path
from typing import Any, Final

import psycopg
import yoyo
from msgspec import Struct
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import default_migration_table

from service import bundled
from service.database.gateway import Database
from service.database.plain import select
from service.database.preflight import NoLogin, log_in, reader_roles, refuse_same_role, refuse_unfit
from service.database.queries import SqlFile
from service.database.rights import (
    CREATED_SCHEMA,
    grant,
    is_made,
    missing_create,
    refuse_foreign_schemas,
    refuse_missing_schemas,
    remember,
    role_exists,
)
from service.errors import Stop
from service.postgres_url import where

MIGRATIONS: Final = bundled("migrations")
LOCK: Final = 7_382_559  # an arbitrary number: every Tally on one database takes the same lock
_FIRST: Final = "0001.schemas"
_MEMORY: Final = "0095.reader"


class Applied(Struct, frozen=True):
    migration_id: str


class Migrated(Struct, frozen=True):
    """The result of `migrate`: ids newly applied, and grants that the owner may not give."""

    applied: list[str]
    missing_grants: list[str]


class Found(Struct, frozen=True):
    found: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_HAS_MIGRATIONS: Final = _SQL.rows("has_migrations", Found)
_LIST_APPLIED: Final = _SQL.rows("list_applied", Applied)


async def pending(database: Database) -> list[str]:
    """Ids of migrations that the database lacks."""
    applied: set[str] = set()
    if (table := await database.read_one(_HAS_MIGRATIONS)) and table.found:
        applied = {row.migration_id for row in await database.read(_LIST_APPLIED)}
    return [name for name in names() if name not in applied]


def unapplied(session: psycopg.Connection) -> list[str]:
    """Ids of migrations that the database lacks, on a plain session."""
    if not any(row.found for row in select(session, _HAS_MIGRATIONS)):
        return names()
    applied = {row.migration_id for row in select(session, _LIST_APPLIED)}
    return [name for name in names() if name not in applied]


def migrate(owner_url: str, reader_url: str | None, schemas: tuple[str, ...]) -> Migrated:
    """Apply the missing migrations and grant the reader its rights; wait while another instance does it.

    Raises `Stop`, with nothing changed, when the server cannot be reached, rejects the owner's login or is
    not supported, when the reader is the owner, and for schemas that do not exist.
    """
    try:
        owner = log_in(owner_url)
    except NoLogin as error:
        raise Stop(str(error)) from None
    refuse_unfit(owner)
    reader, roles = reader_roles(reader_url) if reader_url else ("", set[str]())
    refuse_same_role(owner, roles)
    try:
        with psycopg.connect(owner_url, autocommit=True) as session:
            session.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            refuse_missing_schemas(session, schemas, CREATED_SCHEMA)
            refuse_foreign_schemas(session)
            if missing := missing_create(session):
                # Rights that a role had before can be told from Tally's only once Tally's schemas exist.
                if reader_url and (is_made(session, reader) or not role_exists(session, reader)):
                    own = tuple(name for name in schemas if name != CREATED_SCHEMA)
                    missing += grant(session, reader, reader_url, own)
                return Migrated([], missing)
            session.execute("CREATE SCHEMA IF NOT EXISTS app")
            applied = _apply(owner_url)
            if reader_url is None:
                return Migrated(applied, [])
            is_upgrade = _MEMORY in applied and _FIRST not in applied
            remember(session, reader, first=not is_upgrade)
            return Migrated(applied, grant(session, reader, reader_url, schemas))
    except psycopg.errors.InsufficientPrivilege as error:
        raise Stop(f"the owner {owner.current_user} may not migrate: {_first_line(error)}") from None
    except psycopg.OperationalError as error:
        raise Stop(f"the database at {where(owner_url)} did not go on: {_first_line(error)}") from None


def roll_back(owner_url: str, last: str) -> list[str]:
    """Roll back each migration after `last`, newest first; their ids. What they added goes, with its rows.

    Raises `Stop`, with the failed migration and those before it still applied.
    """
    try:
        with psycopg.connect(owner_url, autocommit=True) as session:
            session.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            backend = open_backend(owner_url)
            try:
                found = yoyo.read_migrations(str(MIGRATIONS))  # pyright: ignore[reportUnknownMemberType] (untyped)
                applied = [each for each in backend.to_rollback(found) if each.id > last]
                for migration in applied:
                    backend.rollback_one(migration)
            finally:
                backend.connection.close()
    except psycopg.Error as error:
        raise Stop(f"nothing more was rolled back: {_first_line(error)}") from None
    return [migration.id for migration in applied]


def _first_line(error: psycopg.Error) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def names() -> list[str]:
    """Ids of all migrations, in their order."""
    return sorted(path.stem for path in MIGRATIONS.glob("[0-9]*.sql") if not path.stem.endswith(".rollback"))


class _Backend(PostgresqlPsycopgBackend):
    """yoyo's backend, given the address as libpq reads it: yoyo's own form cannot express all of it."""

    def connect(self, dburi: Any) -> psycopg.Connection:
        self.schema = "app"
        return psycopg.connect(dburi.args["address"], autocommit=True)


def open_backend(owner_url: str) -> Any:
    """Open yoyo's connection to the database: psycopg 3, with yoyo's tables in schema `app`."""
    address = DatabaseURI("postgresql", None, None, None, None, "", {"address": owner_url})
    backend = _Backend(address, default_migration_table)
    backend.init_database()
    return backend


def _apply(owner_url: str) -> list[str]:
    backend = open_backend(owner_url)
    try:
        found = yoyo.read_migrations(str(MIGRATIONS))  # pyright: ignore[reportUnknownMemberType] (untyped)
        missing = backend.to_apply(found)
        names = [migration.id for migration in missing]
        backend.apply_migrations(missing)
    finally:
        backend.connection.close()
    return names
