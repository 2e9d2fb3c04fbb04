"""Grant the reader its missing rights; return the SQL for those that the owner may not grant.

Nothing is changed but the reader and its rights. Settings apply to this database only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import sql

from service.database.plain import run, select
from service.database.queries import SqlFile
from service.errors import Stop
from service.postgres_url import parameters

CREATED_SCHEMA: Final = "data"
"""The schema of DATA_SCHEMAS that migrations create."""
READ_ONLY: Final = "default_transaction_read_only"
MADE_FOR_TALLY: Final = "Made for Tally: runs its stored SQL"
"""The comment of a reader role that did not exist before, so that `uninstall` may drop it."""


class Name(Struct, frozen=True):
    name: str


class OwnerRights(Struct, frozen=True):
    may_create: bool


class Revocation(Struct, frozen=True):
    statement: str


class KnownReader(Struct, frozen=True):
    """A reader role and the statements that would have revoked its rights before Tally."""

    name: str
    had: list[str]


class Made(Struct, frozen=True):
    made: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_IN_THE_WAY: Final = _SQL.rows("list_schemas_in_the_way", Name)
_READ_OWNER_RIGHTS: Final = _SQL.rows("read_owner_rights", OwnerRights)
_LIST_READER_RIGHTS: Final = _SQL.rows("list_reader_rights", Revocation)
_REMEMBER_READER: Final = _SQL.command("remember_reader")
_IS_MADE: Final = _SQL.rows("is_made_for_tally", Made)
LIST_READERS: Final = _SQL.rows("list_readers", KnownReader)

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
# Rights that were given to the reader itself in a schema.
_READABLE: Final = """
SELECT FROM pg_class AS c, aclexplode(c.relacl) AS a
JOIN pg_roles AS r ON r.oid = a.grantee
WHERE c.relnamespace = %(schema)s::regnamespace AND a.privilege_type = 'SELECT' AND r.rolname = %(reader)s
"""
_READABLE_LATER: Final = """
SELECT FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS a
JOIN pg_roles AS r ON r.oid = a.grantee
WHERE d.defaclnamespace = %(schema)s::regnamespace AND d.defaclobjtype = 'r' AND r.rolname = %(reader)s
    AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
"""
# Roles that own or may create tables here, and whose new tables the reader could not select from. The reader
# may not exist yet.
_CREATORS: Final = """
SELECT r.rolname
FROM pg_roles AS r
LEFT JOIN pg_roles AS reader ON reader.rolname = %(reader)s
WHERE ((r.rolname = session_user AND has_schema_privilege(%(schema)s::regnamespace, 'CREATE')) OR r.oid IN (
        SELECT relowner FROM pg_class
        WHERE relnamespace = %(schema)s::regnamespace AND relkind IN ('r', 'v', 'm', 'f', 'p')
    ))
    AND r.rolname <> %(reader)s
    AND pg_has_role(reader.oid, 'pg_read_all_data', 'USAGE') IS NOT TRUE
    AND NOT EXISTS (
        SELECT FROM pg_default_acl AS d, aclexplode(d.defaclacl) AS a
        WHERE d.defaclrole = r.oid AND d.defaclobjtype = 'r'
            AND d.defaclnamespace IN (0, %(schema)s::regnamespace)
            AND a.privilege_type = 'SELECT'
            AND (a.grantee = 0 OR pg_has_role(reader.oid, a.grantee, 'USAGE'))
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


def refuse_foreign_schemas(session: psycopg.Connection) -> None:
    """Raise `Stop` for schemas of Tally's names that somebody else made: nothing may be mixed with theirs."""
    if taken := ", ".join(row.name for row in select(session, _LIST_IN_THE_WAY)):
        raise Stop(
            f"the database has schemas of its own with names that Tally needs: {taken}."
            " Rename them (ALTER SCHEMA ... RENAME TO ...) or give Tally another database",
            exit_code=2,
        )


def missing_create(session: psycopg.Connection) -> list[str]:
    """The statement without which the owner cannot make Tally's schemas; nothing if it can."""
    if all(row.may_create for row in select(session, _READ_OWNER_RIGHTS)):
        return []
    database, role = sql.Identifier(session.info.dbname), sql.Identifier(_current_user(session))
    grant_create = sql.SQL("GRANT CREATE ON DATABASE {} TO {};").format(database, role)
    return [grant_create.as_string(session)]


def _current_user(session: psycopg.Connection) -> str:
    (name,) = session.execute("SELECT current_user").fetchone() or ("",)
    return name


def is_made(session: psycopg.Connection, reader: str) -> bool:
    """Whether the role was made for Tally."""
    return any(row.made for row in select(session, _IS_MADE, reader, MADE_FOR_TALLY))


def role_exists(session: psycopg.Connection, name: str) -> bool:
    return session.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone() is not None


def revocations(session: psycopg.Connection, reader: str) -> list[str]:
    """The statements that would revoke all rights of the role in this database."""
    return [row.statement for row in select(session, _LIST_READER_RIGHTS, reader)]


def remember(session: psycopg.Connection, reader: str, *, first: bool) -> None:
    """Store the rights that the role has before Tally gives it any; `first`: no earlier Tally gave some."""
    had = [] if is_made(session, reader) or not first else revocations(session, reader)
    run(session, _REMEMBER_READER, reader, had)


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


def lacking(session: psycopg.Connection, reader: str, reader_url: str, schemas: tuple[str, ...]) -> list[str]:
    """The statements that `grant` would run or return."""
    rights = _rights(session, reader, reader_url, schemas)
    return [right.statement.as_string(session) + ";" for right in rights if _lacks(session, right)]


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
    if not role_exists(session, reader):
        comment = sql.SQL("COMMENT ON ROLE {} IS {}").format(role, sql.Literal(MADE_FOR_TALLY))
        yield _Right(
            sql.SQL("CREATE ROLE {} LOGIN{};\n{}").format(
                role, _password(session, reader, reader_url), comment
            ),
            "SELECT WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %(reader)s)",
            who,
        )
    yield _Right(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role),
        "SELECT WHERE CASE WHEN has_database_privilege('public', current_database(), 'CONNECT') THEN false"
        " ELSE NOT has_database_privilege(%(reader)s, current_database(), 'CONNECT') END",
        who,
    )
    yield _Right(
        sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = on").format(role, database, sql.SQL(READ_ONLY)),
        f"SELECT WHERE NOT EXISTS ({_HAS_SETTING})",
        {"reader": sql.Identifier(reader).as_string(session), "setting": f"{READ_ONLY}=on"},
    )
    for name in schemas:
        yield from _schema_rights(session, reader, name)
    if CREATED_SCHEMA not in schemas:
        yield from _own_data_no_more(session, reader)


def _own_data_no_more(session: psycopg.Connection, reader: str) -> Iterator[_Right]:
    """Take back what an earlier DATA_SCHEMAS gave in Tally's own schema, as one without tables."""
    schema, role = sql.Identifier(CREATED_SCHEMA), sql.Identifier(reader)
    where = {"reader": reader, "schema": CREATED_SCHEMA}
    if session.execute("SELECT to_regnamespace(%s)", [CREATED_SCHEMA]).fetchone() == (None,):
        return
    yield _Right(
        sql.SQL("REVOKE SELECT ON ALL TABLES IN SCHEMA {} FROM {}").format(schema, role), _READABLE, where
    )
    yield _Right(
        sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} REVOKE SELECT ON TABLES FROM {}").format(schema, role),
        _READABLE_LATER,
        where,
    )
    yield _Right(
        sql.SQL("REVOKE USAGE ON SCHEMA {} FROM {}").format(schema, role),
        "SELECT FROM pg_namespace AS n, aclexplode(n.nspacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee"
        " WHERE n.nspname = %(schema)s AND r.rolname = %(reader)s",
        where,
    )


def _password(session: psycopg.Connection, reader: str, reader_url: str) -> sql.Composable:
    """The role's password as SCRAM's verifier, which is all that logs and histories get to see."""
    password = parameters(reader_url).get("password")
    if password is None:
        return sql.SQL("")
    verifier = session.pgconn.encrypt_password(password.encode(), reader.encode(), b"scram-sha-256")
    return sql.SQL(" PASSWORD {}").format(sql.Literal(verifier.decode()))


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
    for creator in [row[0] for row in session.execute(_CREATORS, where)]:
        yield _Right(
            sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT SELECT ON TABLES TO {}").format(
                sql.Identifier(creator), schema, role
            ),
            f"SELECT FROM ({_CREATORS}) AS creator WHERE creator.rolname = %(creator)s",
            where | {"creator": creator},
        )
