"""Bring the database up to date: yoyo's migrations under a lock of our own, then the reader's rights.

yoyo's own lock is a row that outlives a killed process; an advisory lock ends with its session, so N
starting instances migrate once and a killed one blocks nobody.
"""

from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg
import yoyo
from msgspec import Struct
from psycopg import sql

from service import bundled
from service.database.gateway import Database, address
from service.database.queries import Statement
from service.errors import Stop

MIGRATIONS: Final = bundled("migrations")
_LOCK: Final = 7_382_559  # any number of ours: every Tally on one database takes the same


class Applied(Struct, frozen=True):
    migration_id: str


class Migrated(Struct, frozen=True):
    """What `migrate` did: ids newly applied, and grants that the owner may not give itself."""

    applied: list[str]
    missing_grants: list[str]


class Found(Struct, frozen=True):
    found: bool


_HAS_MIGRATIONS: Final = Statement(
    "has_migrations", "SELECT to_regclass('app._yoyo_migration') IS NOT NULL AS found", Found
)
_LIST_APPLIED: Final = Statement("list_applied", "SELECT migration_id FROM app._yoyo_migration", Applied)


async def pending(database: Database) -> list[str]:
    """Ids of migrations that the database lacks."""
    applied: set[str] = set()
    if (table := await database.read_one(_HAS_MIGRATIONS)) and table.found:
        applied = {row.migration_id for row in await database.read(_LIST_APPLIED)}
    return [name for name in _names() if name not in applied]


def migrate(owner_url: str, reader_url: str | None, schemas: tuple[str, ...]) -> Migrated:
    """Apply what is missing and give the reader its rights; waits while another instance does it.

    Raises `Stop` when the server cannot be reached or refuses the owner.
    """
    try:
        with psycopg.connect(owner_url, autocommit=True) as session:
            session.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            session.execute("CREATE SCHEMA IF NOT EXISTS app")
            applied = _apply(owner_url)
            return Migrated(applied, _grant(session, reader_url, schemas) if reader_url else [])
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise Stop(f"cannot reach the database at {address(owner_url)}: {reason}") from None


def _names() -> list[str]:
    return sorted(path.stem for path in MIGRATIONS.glob("[0-9]*.sql") if not path.stem.endswith(".rollback"))


def backend_url(owner_url: str) -> str:
    """yoyo's form of a connection string: psycopg 3, its own tables in schema `app`."""
    parts = urlsplit(owner_url)
    query = "&".join(filter(None, [parts.query, "schema=app"]))
    return urlunsplit(("postgresql+psycopg", parts.netloc, parts.path, query, ""))


def _apply(owner_url: str) -> list[str]:
    backend = yoyo.get_backend(backend_url(owner_url))  # pyright: ignore[reportUnknownMemberType] (untyped)
    try:
        found = yoyo.read_migrations(str(MIGRATIONS))  # pyright: ignore[reportUnknownMemberType] (untyped)
        missing = backend.to_apply(found)
        names = [migration.id for migration in missing]
        backend.apply_migrations(missing)
    finally:
        backend.connection.close()
    return names


def _grant(session: psycopg.Connection, reader_url: str, schemas: tuple[str, ...]) -> list[str]:
    """Make the reader and its rights; what the owner may not do comes back as SQL for somebody who may."""
    refused: list[str] = []
    warnings: list[str] = []  # a GRANT or REVOKE without the right to it only warns
    session.add_notice_handler(lambda notice: warnings.append(notice.severity_nonlocalized or ""))
    for statement in _reader_statements(session, reader_url, schemas):
        warnings.clear()
        try:
            session.execute(statement)
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.InvalidSchemaName,
            psycopg.errors.UndefinedObject,  # the role that could not be made
        ):
            warnings.append("WARNING")
        if "WARNING" in warnings:
            refused.append(statement.as_string(session) + ";")
    return refused


def _reader_statements(
    session: psycopg.Connection, reader_url: str, schemas: tuple[str, ...]
) -> list[sql.Composed]:
    parts = urlsplit(reader_url)
    name = unquote(parts.username or "")
    reader, database = sql.Identifier(name), sql.Identifier(session.info.dbname)
    statements: list[sql.Composed] = []
    if session.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is None:
        password = sql.Literal(unquote(parts.password or ""))
        statements.append(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(reader, password))
    statements += [
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, reader),
        sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(database),
        sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(reader),
    ]
    for schema in map(sql.Identifier, schemas):
        statements += [
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, reader),
            sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(schema, reader),
            sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(
                schema, reader
            ),
        ]
    return statements
