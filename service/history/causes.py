"""Why a result differs from the one before: what happened between the two, as far as anybody knows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec import Struct

from service.database.gateway import Transaction
from service.database.queries import SqlFile
from service.history.models import (
    Cause,
    CommitCause,
    DefinitionCause,
    ImportCause,
    MigrationCause,
    RedefinitionCause,
    TimeCause,
    UnknownCause,
    UnwatchedCause,
)
from service.results.commits import Commit, CommitLog, Heard

MOST_CAUSES: Final = 10
"""Commits and imports that are told, the newest ones."""
XMIN: Final = 1 << 32
"""A row knows only the low half of the number of its transaction."""
NOT_HEARD: Final = (
    "this service heard no announcements for a part of that time, so other commits may be missing"
)
NOTHING: Final = "nothing was noticed that explains it"


class Between(Struct, frozen=True, kw_only=True):
    """What is known of two results: the time between them, and what the later one depends on."""

    metric_id: UUID
    since: datetime
    until: datetime
    versions: tuple[int, int]
    updated_at: datetime
    tables: tuple[str, ...]
    watched: tuple[str, ...]
    unwatched: tuple[str, ...]
    timed: bool


class _Import(Struct, frozen=True):
    id: UUID
    dataset: str
    source: str
    rows_read: int
    inserted: int
    updated: int
    gone: int
    actor: str
    at: datetime
    transaction: int
    derived_table: str

    def cause(self) -> ImportCause:
        shown = [getattr(self, name) for name in ImportCause.__struct_fields__]
        return ImportCause(*shown)


class _Author(Struct, frozen=True):
    actor: str
    action: str
    target: str
    transaction: int


class _Definition(Struct, frozen=True):
    actor: str
    at: datetime


class _Migration(Struct, frozen=True):
    id: str
    at: datetime


SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_FIND_IMPORTS: Final = SQL.rows("find_imports", _Import)
_FIND_AUTHORS: Final = SQL.rows("find_authors", _Author)
_FIND_DEFINITION: Final = SQL.rows("find_definition", _Definition)
_FIND_MIGRATIONS: Final = SQL.rows("find_migrations", _Migration)

TableOf = Mapping[str, str]
"""The table of each built-in dataset, as announcements name it."""


async def find_causes(tx: Transaction, between: Between, log: CommitLog, table_of: TableOf) -> list[Cause]:
    """All known causes, in the order of their time. There is always at least one."""
    since, until = between.since.timestamp(), between.until.timestamp()
    heard = log.between(between.tables, since, until)
    imports = await _imports(tx, between, heard, table_of)
    commits = await _commits(tx, heard, {each.transaction for each in imports})
    redefined = _redefined(between, log.redefinitions(since, until))
    commits = [each for each in commits if each.transaction is not None or not _named(each, redefined)]
    migrations = [each for each in await tx.read(_FIND_MIGRATIONS, between.since) if each.at <= between.until]
    found: list[Cause] = [
        *sorted([*(each.cause() for each in imports), *commits], key=_at)[-MOST_CAUSES:],
        *await _definition(tx, between),
        *(MigrationCause(each.id, each.at) for each in migrations),
        *redefined,
    ]
    return found + _without_certainty(between, heard, found)


def _at(cause: ImportCause | CommitCause) -> datetime:
    return cause.at


async def _imports(tx: Transaction, between: Between, heard: Heard, table_of: TableOf) -> list[_Import]:
    """Imports whose transactions were heard; by their time and tables where not all were heard."""
    found = await tx.read(_FIND_IMPORTS, between.since)
    known = {each.transaction % XMIN for each in heard.commits if each.transaction is not None}
    tables = set(between.tables)

    def is_cause(each: _Import) -> bool:
        if each.transaction in known:
            return True
        in_time = between.since < each.at <= between.until
        table = each.derived_table or table_of.get(each.dataset)
        return in_time and not heard.complete and table in tables

    return [each for each in found if is_cause(each)]


async def _commits(tx: Transaction, heard: Heard, told: set[int]) -> list[CommitCause]:
    """The heard transactions that are not told yet, with their authors."""
    grouped: dict[int, list[Commit]] = {}
    others: list[Commit] = []
    for each in heard.commits:
        if each.transaction is None:
            others.append(each)
        elif each.transaction % XMIN not in told:
            grouped.setdefault(each.transaction, []).append(each)
    authors = await tx.read(_FIND_AUTHORS, [each % XMIN for each in grouped]) if grouped else []
    by_transaction = {each.transaction: each for each in authors}
    announced = {each.table for each in heard.commits if each.transaction is not None}
    causes = [
        _commit(transaction, commits, by_transaction.get(transaction % XMIN))
        for transaction, commits in grouped.items()
    ]
    # Counters show an announced commit once more, some seconds later.
    causes += [CommitCause((each.table,), _time(each.at)) for each in others if each.table not in announced]
    return causes


def _commit(transaction: int, commits: Sequence[Commit], author: _Author | None) -> CommitCause:
    tables = tuple(sorted({each.table for each in commits}))
    at = _time(min(each.at for each in commits))
    if author is None:
        return CommitCause(tables, at, transaction)
    return CommitCause(tables, at, transaction, author.actor, author.action, author.target)


async def _definition(tx: Transaction, between: Between) -> list[Cause]:
    before, version = between.versions
    if before == version:
        return []
    found = await tx.read_one(_FIND_DEFINITION, str(between.metric_id), between.since)
    at = found.at if found is not None else between.updated_at
    return [DefinitionCause(version, before, at, None if found is None else found.actor)]


def _redefined(between: Between, noticed: Iterable[tuple[str, float]]) -> list[RedefinitionCause]:
    """Redefinitions of what the metric reads. Others count only if no table or view explains them."""
    by_time: dict[float, list[str]] = {}
    for name, at in noticed:
        if name in between.watched or "." not in name:
            by_time.setdefault(at, []).append(name)
    return [RedefinitionCause(tuple(names), _time(at)) for at, names in by_time.items()]


def _named(commit: CommitCause, redefined: Sequence[RedefinitionCause]) -> bool:
    return any(not {*each.names}.isdisjoint(commit.tables) for each in redefined)


def _without_certainty(between: Between, heard: Heard, found: Sequence[Cause]) -> list[Cause]:
    """What else may have been the cause."""
    causes: list[Cause] = []
    exact = any(isinstance(each, ImportCause | DefinitionCause) for each in found)
    if between.unwatched and not exact:
        causes.append(UnwatchedCause(between.unwatched))
    if not heard.complete and not exact:
        causes.append(UnknownCause(NOT_HEARD))
    if not found and between.timed:
        causes.append(TimeCause())
    elif not found and not causes:
        causes.append(UnknownCause(NOTHING))
    return causes


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
