"""`tally doctor`: try what the service needs and what nobody should be able to do, and say what mends it."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import sql

from service.database.migrate import unapplied
from service.database.plain import select
from service.database.preflight import Login, NoLogin, log_in, refuse_unfit
from service.database.rights import CREATED_SCHEMA, lacking
from service.errors import Stop
from service.postgres_url import where
from service.settings import Settings
from service.setup.engines import READ_SIGNS, engine_findings
from service.setup.findings import Finding
from service.setup.inspect import SQL, existing_schemas, tables_of
from service.setup.machine import check_machine
from service.setup.poolers import pooler_at
from service.setup.reader_trial import try_reader

CLOCK_S: Final = 5.0
LAG_S: Final = 10.0
SHOWN: Final = 20
_HEARD_S: Final = 3.0
_CHANNEL: Final = "tally_doctor"


class BrokenWatch(Struct, frozen=True):
    name: str
    wrong: str


class ServerState(Struct, frozen=True):
    """`clock_s` is the server's clock; `lag_s` how old a standby's newest transaction is."""

    standby: bool
    clock_s: float
    lag_s: float
    system: str
    database: str


class Powers(Struct, frozen=True):
    superuser: bool
    attributes: list[str]
    memberships: list[str]


_UNTRIED_RIGHTS: Final = Finding("rights", "note", "not checked while the reader is no role apart")
_UNTRIED_READER: Final = Finding("reader", "note", "not tried while the reader is no role apart")
_LIST_BROKEN: Final = SQL.rows("list_broken_watches", BrokenWatch)
_READ_SERVER: Final = SQL.rows("read_server", ServerState)
_READ_POWERS: Final = SQL.rows("read_powers", Powers)


class _Patient(Struct, frozen=True):
    """A database that let both roles in."""

    settings: Settings
    owner: Login
    reader: Login
    session: psycopg.Connection
    state: ServerState

    @property
    def owner_url(self) -> str:
        return self.settings.database.direct_url or ""

    @property
    def reader_url(self) -> str:
        return self.settings.database.reader_url or ""

    @property
    def one_role(self) -> bool:
        """Whether stored SQL runs as the owner, whom no right may be taken from."""
        return bool(self.owner.roles & self.reader.roles)


_Check = Callable[[_Patient], Iterator[Finding]]


def examine(settings: Settings, environ: Mapping[str, str], *, quick: bool = False) -> list[Finding]:
    """All findings; `quick` leaves out what takes time: the trial as the reader, poolers, LISTEN.

    `settings` have the addresses of a database that runs, also of the embedded one.
    """
    found = check_machine(settings, environ)
    config = settings.database
    if config.url is None or config.reader_url is None:
        return found
    owner, reader = _login("owner", config.direct_url or ""), _login("reader", config.reader_url)
    if isinstance(owner, Finding) or isinstance(reader, Finding):
        return found + [each for each in (owner, reader) if isinstance(each, Finding)]
    try:
        with psycopg.connect(config.direct_url or "", autocommit=True, prepare_threshold=None) as session:
            (state,) = select(session, _READ_SERVER)
            patient = _Patient(settings, owner, reader, session, state)
            for name, check in (_QUICK if quick else _QUICK | _SLOW).items():
                found += _checked(name, check, patient)
    except psycopg.Error as error:
        found.append(Finding("owner", "unreachable", str(error).splitlines()[0]))
    return found


def _login(name: str, url: str) -> Login | Finding:
    try:
        return log_in(url)
    except NoLogin as error:
        return Finding(name, "unreachable", str(error), _mend_login(name, refused=error.refused))


def _mend_login(name: str, *, refused: bool) -> str:
    variable = "DATABASE_URL" if name == "owner" else "READER_DATABASE_URL"
    if not refused:
        return f"start Postgres or mend {variable}"
    return (
        f"mend the password in {variable}, or let the role in (LOGIN, pg_hba.conf); `tally connect` makes it"
    )


def _checked(name: str, check: _Check, patient: _Patient) -> list[Finding]:
    try:
        return list(check(patient)) or [Finding(name, "ok", "fine")]
    except psycopg.Error as error:
        return [Finding(name, "note", f"not checked: {str(error).splitlines()[0]}")]


def _versions(patient: _Patient) -> Iterator[Finding]:
    for variable, login in (("DATABASE_URL", patient.owner), ("READER_DATABASE_URL", patient.reader)):
        try:
            refuse_unfit(login)
        except Stop as stop:
            yield Finding("versions", "act", str(stop).replace("DATABASE_URL", variable, 1))
    yield Finding("versions", "ok", f"Postgres {patient.owner.version}, {patient.owner.encoding}")


def _roles(patient: _Patient) -> Iterator[Finding]:
    reader = sql.Identifier(patient.reader.session_user).as_string(None)
    if patient.one_role:
        mend = "tally connect, without READER_DATABASE_URL: it makes a role"
        yield Finding("roles", "act", f"stored SQL runs as the owner's role {reader}", mend)
        return
    for powers in select(patient.session, _READ_POWERS, patient.reader.session_user):
        if powers.superuser:
            yield Finding(
                "roles", "act", f"the reader {reader} is a superuser", f"ALTER ROLE {reader} NOSUPERUSER;"
            )
            return
        for attribute in powers.attributes:
            mend = f"ALTER ROLE {reader} NO{attribute};"
            yield Finding("roles", "act", f"the reader {reader} has {attribute}", mend)
        for other in powers.memberships:
            role = sql.Identifier(other).as_string(None)
            mend = f"REVOKE {role} FROM {reader};"
            yield Finding("roles", "act", f"the reader {reader} is a member of {other}", mend)


def _same_database(patient: _Patient) -> Iterator[Finding]:
    with psycopg.connect(patient.reader_url, autocommit=True, prepare_threshold=None) as session:
        (seen,) = select(session, _READ_SERVER)
    if (seen.system, seen.database) != (patient.state.system, patient.state.database):
        yield Finding(
            "databases",
            "act",
            f"READER_DATABASE_URL leads to another database ({seen.database} at {where(patient.reader_url)})",
            "tally connect",
        )
    if seen.standby and seen.lag_s > LAG_S:
        yield Finding(
            "databases", "note", f"the reader's standby is {seen.lag_s:.0f} s behind: results are too"
        )
    if patient.state.standby:
        yield Finding(
            "databases",
            "act",
            "DATABASE_URL leads to a standby, which cannot be written to",
            "set DATABASE_URL to the primary's address",
        )


def _migrations(patient: _Patient) -> Iterator[Finding]:
    if missing := unapplied(patient.session):
        yield Finding("migrations", "act", f"missing: {', '.join(missing)}", "tally migrate")


def _rights(patient: _Patient) -> Iterator[Finding]:
    schemas = patient.settings.database.data_schemas
    there = existing_schemas(patient.session, schemas)
    if missing := [name for name in schemas if name not in there]:
        message = f"DATA_SCHEMAS names {', '.join(missing)}, which the database does not have"
        yield Finding("rights", "act", message, f"DATA_SCHEMAS={','.join(there) or CREATED_SCHEMA}")
        return
    if unapplied(patient.session):
        return
    if patient.one_role:
        yield _UNTRIED_RIGHTS
        return
    reader = patient.reader.session_user
    if statements := lacking(patient.session, reader, patient.reader_url, schemas):
        mend = "\n".join(["-- `tally migrate` runs what the owner may", *statements])
        more = sum(" REVOKE " in f" {statement}" for statement in statements)
        told = [(len(statements) - more, "lacks {} rights"), (more, "has {} rights too many")]
        shown = " and ".join(text.format(number) for number, text in told if number)
        yield Finding("rights", "act", f"the reader {shown}", mend)


def _watches(patient: _Patient) -> Iterator[Finding]:
    incomplete = select(patient.session, _LIST_BROKEN)
    for broken in incomplete:
        mend = f"tally watch '{broken.name}'"
        yield Finding("watch", "act", f"{broken.name} is watched but {broken.wrong}", mend)
    if incomplete:
        return
    schemas = patient.settings.database.data_schemas
    tables = [each for each in tables_of(patient.session, schemas) if each.schema in schemas]
    if silent := [each.shown for each in tables if each.can_announce and not each.watched]:
        yield Finding(
            "watch",
            "note",
            f"{len(silent)} tables do not announce changes, which then show within 12 s:"
            f" {', '.join(silent[:SHOWN])}",
            "tally watch SCHEMA.TABLE, unless it is written hundreds of times a second",
        )


def _clock(patient: _Patient) -> Iterator[Finding]:
    sent = time.time()
    (state,) = select(patient.session, _READ_SERVER)
    difference = state.clock_s - (sent + time.time()) / 2
    if abs(difference) > CLOCK_S:
        way = "ahead of" if difference > 0 else "behind"
        yield Finding(
            "clock",
            "act",
            f"the database's clock is {abs(difference):.0f} s {way} this machine's",
            "synchronise both by NTP (timedatectl set-ntp true)",
        )


def _engine(patient: _Patient) -> Iterator[Finding]:
    for signs in select(patient.session, READ_SIGNS, list(patient.settings.database.data_schemas)):
        yield from engine_findings(signs)


def _poolers(patient: _Patient) -> Iterator[Finding]:
    if pooler_at(patient.owner_url) == "transaction":
        yield Finding(
            "poolers",
            "act",
            "DATABASE_URL is a pooler in transaction mode: no change can be heard through it (LISTEN)",
            "set LISTEN_DATABASE_URL to Postgres's own address",
        )
    mode = patient.settings.database.reader_pooler
    if pooler_at(patient.reader_url) == "transaction" and mode == "none":
        mend = "READER_POOLER=transaction"
        yield Finding("poolers", "act", "READER_DATABASE_URL is a pooler in transaction mode", mend)


def _listening(patient: _Patient) -> Iterator[Finding]:
    """Send a notification and wait for it, as changes are announced."""
    with psycopg.connect(patient.owner_url, autocommit=True, prepare_threshold=None) as listener:
        listener.execute(f"LISTEN {_CHANNEL}")
        patient.session.execute(f"NOTIFY {_CHANNEL}")
        heard = [*listener.notifies(timeout=_HEARD_S, stop_after=1)]
    if not heard:
        yield Finding(
            "listening",
            "act",
            "a notification was sent and not heard: results follow changes within 12 s only",
            "set DATABASE_URL to Postgres's own address",
        )


def _trial(patient: _Patient) -> Iterator[Finding]:
    powers = select(patient.session, _READ_POWERS, patient.reader.session_user)
    if patient.one_role or any(each.superuser for each in powers):
        yield _UNTRIED_READER
    else:
        yield from try_reader(patient.reader_url, patient.settings.database.data_schemas)


_QUICK: Final[dict[str, _Check]] = {
    "versions": _versions,
    "roles": _roles,
    "databases": _same_database,
    "migrations": _migrations,
    "rights": _rights,
    "watch": _watches,
    "clock": _clock,
    "engine": _engine,
}
_SLOW: Final[dict[str, _Check]] = {"poolers": _poolers, "listening": _listening, "reader": _trial}
