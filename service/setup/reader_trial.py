"""Find out what the reader can really do: by trying, as the reader, in a transaction that is rolled back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from service.setup.findings import Finding

_TRIAL: Final = Path(__file__).with_name("trial.sql").read_text()
_NAME: Final = "tally_doctor"
_SHOWN: Final = 20
_ATTEMPTS: Final = {
    "make schemas": f"CREATE SCHEMA {_NAME}",
    "make roles": f"CREATE ROLE {_NAME}",
    "read files of the server": "SELECT pg_read_file('PG_VERSION')",
    "list files of the server": "SELECT pg_ls_dir('.')",
}
_MENDS: Final = {
    "make schemas": "REVOKE CREATE ON DATABASE {database} FROM {reader}, PUBLIC;",
    "make roles": "ALTER ROLE {reader} NOCREATEROLE;",
    "read files of the server": "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM {reader}, PUBLIC;",
    "list files of the server": "REVOKE EXECUTE ON FUNCTION pg_ls_dir(text) FROM {reader}, PUBLIC;",
}


def try_reader(reader_url: str, schemas: tuple[str, ...]) -> list[Finding]:
    """What the reader can do beyond reading `schemas`. Raises `psycopg.Error` when it cannot log in."""
    with psycopg.connect(reader_url, autocommit=True, prepare_threshold=None) as session:
        reader = sql.Identifier(session.info.user).as_string(None)
        try:
            notices = _try_tables(session, schemas)
        except psycopg.Error as error:
            reason = str(error).splitlines()[0]
            return [Finding("reader", "note", f"its rights on tables could not be tried: {reason}")]
        found = [*_table_findings(notices, reader), *_try_others(session, reader)]
    return found or [Finding("reader", "ok", "it tried to write and to look outside, and could not")]


def _try_tables(session: psycopg.Connection, schemas: tuple[str, ...]) -> list[str]:
    notices: list[str] = []
    session.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    session.execute("BEGIN READ ONLY")
    try:
        session.execute("SELECT set_config('statement_timeout', '60000', true)")
        session.execute("SELECT set_config('lock_timeout', '200', true)")
        session.execute("SELECT set_config('tally.schemas', %s, true)", [",".join(schemas)])
        session.execute(_TRIAL.encode())
    finally:
        session.execute("ROLLBACK")
    return notices


def _table_findings(notices: list[str], reader: str) -> Iterator[Finding]:
    for verb, action, rights in (
        ("read", "look outside DATA_SCHEMAS: read", "ALL"),
        ("write", "write to", "INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER"),
    ):
        names = sorted({notice.partition(" ")[2] for notice in notices if notice.startswith(f"{verb} ")})
        if not names:
            continue
        shown = names[:_SHOWN]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield Finding(
            "reader",
            "act",
            f"it can {action} {', '.join(shown)}{more}",
            "\n".join(f"REVOKE {rights} ON {name} FROM {reader}, PUBLIC;" for name in shown),
        )


def _try_others(session: psycopg.Connection, reader: str) -> Iterator[Finding]:
    database = sql.Identifier(session.info.dbname).as_string(None)
    names = session.execute(
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
    ).fetchall()
    for (name,) in names:
        schema = sql.Identifier(name).as_string(None)
        if _succeeds(session, f"CREATE TABLE {schema}.{_NAME} ()"):
            mend = f"REVOKE CREATE ON SCHEMA {schema} FROM {reader}, PUBLIC;"
            yield Finding("reader", "act", f"it can make tables in {name}", mend)
    for name, attempt in _ATTEMPTS.items():
        if _succeeds(session, attempt):
            mend = _MENDS[name].format(reader=reader, database=database)
            yield Finding("reader", "act", f"it can {name}", mend)


def _succeeds(session: psycopg.Connection, attempt: str) -> bool:
    session.execute("BEGIN READ WRITE")
    try:
        session.execute(attempt.encode())
    except psycopg.Error:
        return False
    else:
        return True
    finally:
        session.execute("ROLLBACK")
