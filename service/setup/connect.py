"""`tally connect`: from the address of a database to one live metric, asking for no more than it must.

Narration goes to stderr. Stdout gets what is to be used: settings (`--print`), SQL for somebody who may run
it, or the address of the metric. A step that is done already says and changes nothing.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, count
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
import psycopg
from msgspec import Struct
from psycopg import sql

from service import postgres_url
from service.database.migrate import migrate
from service.database.preflight import Login, NoLogin, log_in, refuse_same_role, refuse_unfit
from service.database.rights import (
    CREATED_SCHEMA,
    refuse_foreign_schemas,
    refuse_missing_schemas,
    role_exists,
)
from service.database.watch import watch
from service.environment import read_env_file
from service.errors import DatabaseUnavailable, Problem, Stop
from service.settings import Settings
from service.setup import env_file, first_metric
from service.setup.inspect import (
    BUSY_WRITES_PER_S,
    OWN_SCHEMAS,
    Table,
    day_column,
    existing_schemas,
    proposed_schemas,
    shown_bytes,
    tables_of,
)
from service.setup.poolers import pooler_at
from service.setup.report import program, say

SOMEBODY_MUST_ACT: Final = 3
READER: Final = "tally_reader"
SHOWN_TABLES: Final = 20
_MEASURED_S: Final = 1.2  # sessions report their writes once a second
_OWNERS_OWN: Final = ("user", "password", "dbname", "passfile", "sslcert", "sslkey", "sslpassword")

Ask = Callable[[str], str]


class Options(Struct, frozen=True):
    """What the command line says. `watch`: all, none, or names of tables; None asks on a terminal."""

    url: str | None = None
    schemas: tuple[str, ...] = ()
    watch: str | None = None
    print_only: bool = False


class _Found(Struct, frozen=True):
    """The database as it was found. `since` is the time of the counters in `tables`."""

    login: Login
    tables: list[Table]
    since: float


def connect(settings: Settings, options: Options, environ: Mapping[str, str], ask: Ask | None = None) -> int:
    """Connect Tally to a database; exit status 0, or 3 when somebody else must run the SQL on stdout.

    `ask` puts a question to whoever sits at the terminal; None if nobody does. Raises `Stop`.
    """
    settings = _addressed(settings, options, environ)
    url = settings.database.url or ""
    login = _fit(url)
    with psycopg.connect(url, autocommit=True) as session:
        settings = _completed(settings, session)
        found = _Found(login, tables_of(session, settings.database.data_schemas), time.monotonic())
        _refuse_wrong(session, settings, options, found)
        is_new = _keep_settings(settings, options, environ)
        if is_new:
            _describe(settings, found)
        missing = _grant(settings)
        chosen = _tables_to_watch(settings, found, options, session, ask)
        missing += _watch(url, session, chosen)
        if missing:
            return _hand_over(missing, found)
        _check_reader(settings, login)
        return _finish(settings, session, found)


def _addressed(settings: Settings, options: Options, environ: Mapping[str, str]) -> Settings:
    """Settings with the address to connect to. What another database has is forgotten.

    Its `data_schemas` are empty if none were given.
    """
    configured = settings.database.url
    url = options.url or configured
    if url is None:
        raise Stop("which database? connect postgresql://user:password@host:5432/name", exit_code=2)
    postgres_url.check("the address" if options.url else "DATABASE_URL", url)
    reader_url, schemas = settings.database.reader_url, settings.database.data_schemas
    if configured is not None and _place(configured) != _place(url):
        if configured != read_env_file(settings.env_file).get("DATABASE_URL"):
            raise Stop(
                "DATABASE_URL in the environment leads to another database and would win over .env: unset it",
                exit_code=2,
            )
        reader_url, schemas = None, ()
    if not environ.get("DATA_SCHEMAS"):
        schemas = ()
    database = msgspec.structs.replace(
        settings.database, url=url, reader_url=reader_url, data_schemas=options.schemas or schemas
    )
    return msgspec.structs.replace(settings, database=database)


def _place(url: str) -> tuple[object, str]:
    given = postgres_url.parameters(url)
    return postgres_url.hosts(given), given.get("dbname") or given.get("user", "")


def _fit(url: str) -> Login:
    """Log in as the owner; raise `Stop` for a database on which Tally cannot live."""
    try:
        login = log_in(url)
        refuse_unfit(login)
        pooler = pooler_at(url)
        with psycopg.connect(url) as session:
            recovering = session.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    except NoLogin as error:
        raise Stop(str(error)) from None
    except psycopg.Error as error:
        raise Stop(f"cannot use the database at {postgres_url.where(url)}: {error}") from None
    if pooler == "transaction":
        raise Stop(
            f"{postgres_url.where(url)} is a pooler in transaction mode, through which no change can be heard"
            " (LISTEN): give Postgres's own address",
            exit_code=2,
        )
    if recovering:
        raise Stop(f"{postgres_url.where(url)} is a standby: give the primary's address", exit_code=2)
    return login


def _completed(settings: Settings, session: psycopg.Connection) -> Settings:
    """Settings with schemas and a reader, as given, as kept in .env, or proposed."""
    config = settings.database
    schemas = config.data_schemas or proposed_schemas(tables_of(session)) or (CREATED_SCHEMA,)
    if unknown := set(schemas) - {CREATED_SCHEMA, *existing_schemas(session, schemas)}:
        there = ", ".join(proposed_schemas(tables_of(session))) or "none"
        raise Stop(
            f"DATA_SCHEMAS (--schemas): no schema {', '.join(sorted(unknown))};"
            f" those with tables are {there}",
            exit_code=2,
        )
    reader_url = config.reader_url or _new_reader(session, config.url or "")
    database = msgspec.structs.replace(config, data_schemas=schemas, reader_url=reader_url)
    return msgspec.structs.replace(settings, database=database)


def _refuse_wrong(session: psycopg.Connection, settings: Settings, options: Options, found: _Found) -> None:
    """Raise `Stop` for what `migrate` and `watch` would refuse later, while nothing is written yet."""
    refuse_foreign_schemas(session)
    refuse_missing_schemas(session, settings.database.data_schemas, CREATED_SCHEMA)
    if options.watch is not None:
        _named(options.watch, _offered(settings, found))


def _new_reader(session: psycopg.Connection, owner_url: str) -> str:
    """The owner's address with a role that does not exist yet; roles are shared by all databases."""
    database = session.info.dbname
    longer = f"{READER}_{re.sub('[^a-z0-9]+', '_', database.lower())}"[:50]
    names = chain([READER, longer], (f"{longer}_{number}" for number in count(2)))
    name = next(name for name in names if not role_exists(session, name))
    given = postgres_url.parameters(owner_url)
    place = urlsplit(owner_url).netloc.rpartition("@")[2]
    rest = {key: value for key, value in given.items() if key not in (*_OWNERS_OWN, "host", "port")}
    if not place:
        rest |= {key: given[key] for key in ("host", "port") if key in given}
    query = "&".join(f"{key}={quote(value, safe='/')}" for key, value in sorted(rest.items()))
    login = f"{quote(name, safe='')}:{secrets.token_urlsafe(24)}"
    return f"postgresql://{login}@{place}/{quote(database, safe='')}" + (f"?{query}" if query else "")


def _keep_settings(settings: Settings, options: Options, environ: Mapping[str, str]) -> bool:
    """Write or print the settings that the environment lacks; whether any was new."""
    config = settings.database
    values = {"DATABASE_URL": config.url or "", "READER_DATABASE_URL": config.reader_url or ""}
    if config.data_schemas != (CREATED_SCHEMA,) or environ.get("DATA_SCHEMAS"):
        values["DATA_SCHEMAS"] = ",".join(config.data_schemas)
    lacking = {name: value for name, value in values.items() if environ.get(name) != value}
    if options.print_only:
        for name, value in lacking.items():
            print(env_file.assignment(name, value), flush=True)
        return bool(lacking)
    if not lacking:
        return False
    in_file = read_env_file(settings.env_file)
    if winning := [name for name in lacking if environ.get(name) and environ[name] != in_file.get(name)]:
        raise Stop(f"{', '.join(winning)} in the environment would win over .env: unset it", exit_code=2)
    changes = env_file.write(settings.env_file, values)
    say(f"{settings.env_file} (readable by you alone):", *(f"  {change}" for change in changes))
    return True


def _describe(settings: Settings, found: _Found) -> None:
    config, login = settings.database, found.login
    say(f"Postgres {login.version}, database {login.database}, as {login.current_user}")
    for table in sorted(found.tables, key=lambda each: -each.bytes)[:SHOWN_TABLES]:
        number = f"{table.estimate:,} row{'' if table.estimate == 1 else 's'}"
        rows = "" if table.kind == "v" else f"  about {number}, {shown_bytes(table.bytes)}"
        say(f"  {table.shown}  {table.kind_name}{rows}")
    if (more := len(found.tables) - SHOWN_TABLES) > 0:
        say(f"  and {more} more")
    if not found.tables:
        say("  no table yet")
    say(
        f"Stored SQL may read {', '.join(config.data_schemas)} (DATA_SCHEMAS)"
        f" as {postgres_url.parameters(config.reader_url or '').get('user', 'the reader')}"
    )


def _grant(settings: Settings) -> list[str]:
    config = settings.database
    done = migrate(config.url or "", config.reader_url, config.data_schemas)
    if done.applied:
        say(f"Made Tally's own schemas: {', '.join(OWN_SCHEMAS)}")
    return done.missing_grants


def _tables_to_watch(
    settings: Settings, found: _Found, options: Options, session: psycopg.Connection, ask: Ask | None
) -> list[Table]:
    schemas = settings.database.data_schemas
    offered = _offered(settings, found)
    unwatched = [table for table in offered if not table.watched]
    if options.watch is not None:
        return _named(options.watch, offered)
    if not unwatched or first_metric_of(session) is not None:
        return []
    busy = _busy(session, found, schemas)
    advised = [table for table in unwatched if table.shown not in busy]
    say(
        "A watched table tells Tally of each commit, by four statement triggers and a NOTIFY: results follow",
        "at once. Its commits then take turns with each other. Others are followed within 12 seconds.",
        *(
            f"  {table.shown}"
            + (f"  {busy[table.shown]:,.0f} rows/s: better not" if table.shown in busy else "")
            for table in unwatched
        ),
    )
    if ask is None:
        say(f"None is watched yet: --watch all, --watch schema.table,... or `{program()} watch schema.table`")
        return []
    while answer := ask("Watch which? [Enter: all but the busy ones; all, none, or names] ").strip():
        try:
            return _named(answer, offered)
        except Stop as stop:
            say(str(stop))
    return advised


def _offered(settings: Settings, found: _Found) -> list[Table]:
    schemas = settings.database.data_schemas
    return [each for each in found.tables if each.can_announce and each.schema in schemas]


def first_metric_of(session: psycopg.Connection) -> first_metric.FirstMetric | None:
    try:
        return first_metric.found(session)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None


def _named(words: str, offered: list[Table]) -> list[Table]:
    if words in {"all", "none"}:
        return [table for table in offered if not table.watched] if words == "all" else []
    by_name = {table.shown: table for table in offered}
    names = [words] if words in by_name else [word.strip() for word in words.split(",") if word.strip()]
    if unknown := [name for name in names if name not in by_name]:
        raise Stop(
            f"--watch: no table {', '.join(unknown)}; there are {', '.join(sorted(by_name)) or 'none'}",
            exit_code=2,
        )
    return [by_name[name] for name in names if not by_name[name].watched]


def _busy(session: psycopg.Connection, found: _Found, schemas: tuple[str, ...]) -> dict[str, float]:
    """Rows a second of the tables that are written too often to take turns."""
    time.sleep(max(0.0, found.since + _MEASURED_S - time.monotonic()))
    seconds = time.monotonic() - found.since
    before = {table.shown: table.writes for table in found.tables}
    rates = {
        table.shown: (table.writes - before.get(table.shown, table.writes)) / seconds
        for table in tables_of(session, schemas)
    }
    return {name: rate for name, rate in rates.items() if rate > BUSY_WRITES_PER_S}


def _watch(url: str, session: psycopg.Connection, tables: Iterable[Table]) -> list[str]:
    """Watch tables; return the SQL that the owner needs before it may."""
    missing: list[str] = []
    role = sql.Identifier(session.info.user).as_string(None)
    can_watch = session.execute("SELECT to_regnamespace('catalog') IS NOT NULL").fetchone() == (True,)
    for table in tables:
        if not table.usable:
            schema = sql.Identifier(table.schema).as_string(None)
            missing.append(f"GRANT USAGE ON SCHEMA {schema} TO {role};")
        missing += [f"GRANT TRIGGER ON TABLE {name} TO {role};" for name in table.closed]
        if can_watch and table.usable and not table.closed:
            for name in watch(url, sql.Identifier(table.schema, table.name).as_string(None)):
                say(f"{name} announces its changes")
    return list(dict.fromkeys(missing))


def _hand_over(missing: list[str], found: _Found) -> int:
    say("", f"{found.login.current_user} may not do the rest. Give the following to an administrator:", "")
    print(f"-- In database {found.login.database}, as a superuser or as the owner of these objects:")
    print(*missing, sep="\n", flush=True)
    say("", f"Then run `{program()} connect` again: it goes on from here.")
    return SOMEBODY_MUST_ACT


def _check_reader(settings: Settings, owner: Login) -> None:
    """Log in as the reader, in earnest."""
    reader_url = settings.database.reader_url or ""
    try:
        reader = log_in(reader_url)
    except NoLogin as error:
        raise Stop(
            f"the reader (READER_DATABASE_URL) {error}; its password there or pg_hba.conf does not let it in"
        ) from None
    refuse_same_role(owner, {*reader.roles, *reader.member_of})


def _finish(settings: Settings, session: psycopg.Connection, found: _Found) -> int:
    """Show the address of the first metric, made now if there is none."""
    metric = first_metric_of(session)
    if metric is None:
        candidates = _candidates(settings, session, found.tables)
        if not candidates:
            say("There is no table to count yet: make or import one, then run `connect` again.")
            return 0
        try:
            counted = first_metric.make(settings, candidates)
        except DatabaseUnavailable:
            raise
        except Problem as problem:
            raise Stop(f"the first metric was refused: {problem.detail}", exit_code=2) from None
        if counted is None:
            raise Stop(
                "the reader could count no table in time: raise STATEMENT_TIMEOUT_MS, or `tally doctor`"
            )
        metric = counted.metric
        say(f"Made the metric {metric.title!r}, newest row {counted.newest}")
    address = f"{settings.public_url}/api/v1/metrics/{metric.id}"
    token = "" if settings.auth.mode == "off" else f'-H "Authorization: Bearer $({program()} token)" '
    say(
        "",
        f"  start   {program()} serve",
        f"  ask     curl {token}{address}",
        f"  look    {settings.public_url} in a browser",
        "",
    )
    print(address, flush=True)
    return 0


def _candidates(
    settings: Settings, session: psycopg.Connection, tables: list[Table]
) -> list[tuple[Table, str | None]]:
    """Tables to count, the largest first; views only where there is nothing else."""
    schemas = settings.database.data_schemas
    readable = [each for each in tables if each.schema in schemas and each.schema not in OWN_SCHEMAS]
    readable.sort(key=lambda table: (table.kind == "v", -table.estimate, -table.bytes, table.shown))
    return [(table, day_column(session, table)) for table in readable]
