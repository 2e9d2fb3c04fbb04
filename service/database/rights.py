"""Grant the reader its missing rights; return the SQL for those that the owner may not grant.

Nothing is changed but the reader and its rights. Settings apply to this database only.
"""

from collections.abc import Iterator
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import sql

from service.errors import Stop
from service.postgres_url import parameters

READ_ONLY: Final = "default_transaction_read_only"

_HAS_SETTING: Final = """
SELECT FROM pg_db_role_setting AS s
WHERE s.setrole = %(reader)s::regrole AND %(setting)s = ANY (s.setconfig)
    AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
_UNREADABLE: Final = """
SELECT FROM pg_class AS c
WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind IN ('r', 'v', 'm', 'f', 'p')
    AND NOT has_table_privilege(%(reader)s, c.oid, 'SELECT')
"""
# Roles that own or may create tables here, and whose new tables the reader could not select from.
_CREATORS: Final = """
SELECT r.rolname
FROM pg_roles AS r
WHERE (r.rolname = session_user OR r.oid IN (
        SELECT relowner FROM pg_class
        WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'v', 'm', 'f', 'p')
    ))
    AND r.rolname <> %(reader)s
    AND NOT pg_has_role(%(reader)s, 'pg_read_all_data', 'USAGE')
    AND NOT EXISTS (
        SELECT FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS a
        WHERE d.defaclrole = r.oid AND d.defaclobjtype = 'r'
            AND d.defaclnamespace IN (0, %(schema)s::regnamespace)
            AND a.privilege_type = 'SELECT'
            AND (a.grantee = 0 OR pg_has_role(%(reader)s, a.grantee, 'USAGE'))
    )
ORDER BY r.rolname <> session_user, r.rolname
"""


class _Right(Struct, frozen=True):
    """One statement, and a query that returns rows while the statement is still needed.

    Without a query the statement is always needed.
    """

    statement: sql.Composed
    lacking: str | None = None
    arguments: dict[str, str] = {}


def refuse_missing_schemas(session: psycopg.Connection, schemas: tuple[str, ...], created: str) -> None:
    """Raise `Stop` for schemas that do not exist; `created` is the one that migrations create."""
    for name in schemas:
        if name != created and session.execute(
            "SELECT to_regnamespace(quote_ident(%s))", [name]
        ).fetchone() == (None,):
            raise Stop(f"DATA_SCHEMAS: the database has no schema {name}", exit_code=2)


def grant(session: psycopg.Connection, reader: str, reader_url: str, schemas: tuple[str, ...]) -> list[str]:
    """Create the reader and grant its rights; return the SQL that the owner may not run."""
    refused: list[str] = []
    warnings: list[str] = []  # Postgres only warns about a GRANT that the role may not give
    session.add_notice_handler(lambda notice: warnings.append(notice.severity_nonlocalized or ""))
    for right in _rights(session, reader, reader_url, schemas):
        if not _lacks(session, right):
            continue
        warnings.clear()
        try:
            session.execute(right.statement)
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.UndefinedObject,  # the role that could not be created
        ):
            warnings.append("WARNING")
        if "WARNING" in warnings and _lacks(session, right):
            refused.append(right.statement.as_string(session) + ";")
    return refused


def _lacks(session: psycopg.Connection, right: _Right) -> bool:
    if right.lacking is None:
        return True
    try:
        return session.execute(right.lacking, right.arguments).fetchone() is not None  # type: ignore[arg-type]
    except psycopg.errors.UndefinedObject:  # no such role yet
        return True


def _rights(
    session: psycopg.Connection, reader: str, reader_url: str, schemas: tuple[str, ...]
) -> Iterator[_Right]:
    role, database = sql.Identifier(reader), sql.Identifier(session.info.dbname)
    who = {"reader": reader}
    if session.execute("SELECT FROM pg_roles WHERE rolname = %s", [reader]).fetchone() is None:
        password = sql.Literal(parameters(reader_url).get("password", ""))
        yield _Right(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password),
            "SELECT WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %(reader)s)",
            who,
        )
    yield _Right(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role),
        "SELECT WHERE NOT has_database_privilege(%(reader)s, current_database(), 'CONNECT')",
        who,
    )
    yield _Right(
        sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = on").format(role, database, sql.SQL(READ_ONLY)),
        f"SELECT WHERE NOT EXISTS ({_HAS_SETTING})",
        {"reader": sql.Identifier(reader).as_string(session), "setting": f"{READ_ONLY}=on"},
    )
    for name in schemas:
        yield from _schema_rights(session, reader, name)


def _schema_rights(session: psycopg.Connection, reader: str, name: str) -> Iterator[_Right]:
    schema, role = sql.Identifier(name), sql.Identifier(reader)
    where = {"reader": reader, "schema": schema.as_string(session)}
    yield _Right(
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role),
        "SELECT WHERE NOT has_schema_privilege(%(reader)s, %(schema)s::regnamespace, 'USAGE')",
        where,
    )
    yield _Right(
        sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(schema, role), _UNREADABLE, where
    )
    try:
        creators = [row[0] for row in session.execute(_CREATORS, where)]
    except psycopg.errors.UndefinedObject:  # no such role yet
        creators = [session.info.user]
    for creator in creators:
        yield _Right(
            sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(
                sql.Identifier(creator), schema, role
            ),
            f"SELECT FROM ({_CREATORS}) AS creator WHERE creator.rolname = %(creator)s",
            where | {"creator": creator},
        )
