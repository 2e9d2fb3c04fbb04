"""Read a result's dependencies from Postgres's plan, and detect their changes.

A table with our triggers announces each change at commit. For every other table we poll the counters of
Postgres. Polling costs writers nothing, but the counters lag: a session reports its counts at most once a
second, and its last counts only after 10 idle seconds or at its end. A session reports nothing during one
call, not even when the called procedure commits.

An announcing table may be written past its triggers. Its counters therefore count once it has been quiet for
`COUNTERS_LAG_S`. An announced change thus raises the table's generation once more after that time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.database.queries import SqlFile
from service.database.session import Session
from service.database.snapshots import Requirement
from service.database.stored_sql.describing import Description
from service.errors import Problem
from service.results.freshness import Generations

CHANNEL: Final = "tally_data"
POLL_S: Final = 1.0
POLL_DEADLINE_S: Final = 3.0
LONGEST_PAUSE_S: Final = 1.5
"""A changed definition goes unnoticed for at most this pause plus the deadline."""
POLL_SHARE: Final = 20
"""The pause after a slow poll is this many times its duration."""
COUNTERS_LAG_S: Final = 12
"""Sum of Postgres's 10 idle seconds (PGSTAT_IDLE_INTERVAL), its 1 s between reports, and our poll."""


class Relation(Struct, frozen=True):
    name: str
    kind: str
    inherits: bool


class RowType(Struct, frozen=True):
    name: str


class Fingerprint(Struct, frozen=True):
    """The fingerprint of something that every statement may depend on: functions, types, a role, ..."""

    name: str
    value: str


class TableFingerprint(Struct, frozen=True):
    """The fingerprint of a table or view, for change detection. It is empty if the name does not exist.

    `identity` covers the relation and its definition: columns, rights, policies, ... `storage` identifies the
    file of its rows. `counters` are Postgres's counts of written rows.
    """

    name: str
    identity: str
    owner: int | None
    storage: str
    counters: str
    announces: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_RELATIONS: Final = _SQL.rows("list_relations", Relation)
_LIST_ROW_TYPES: Final = _SQL.rows("list_row_types", RowType)
_LIST_TABLES: Final = _SQL.rows("list_table_fingerprints", TableFingerprint)
_LIST_FINGERPRINTS: Final = _SQL.rows("list_fingerprints", Fingerprint)

_PLAIN_KINDS: Final = frozenset("rpm")  # tables, partitioned tables, materialized views


class Dependencies(Struct, frozen=True):
    """The dependencies of a result.

    `tables` are the tables that its plan reads. `followed` adds the tables that another plan might read. A
    change of any of them ends the freshness. `watched` adds what defines them: views and row types.
    `timed`: the result also depends on the clock or on something that the plan does not show, so time limits
    its freshness too. `settled`: we followed every dependency before we read it, so we cannot have missed a
    change.
    """

    tables: tuple[str, ...]
    followed: tuple[str, ...]
    watched: tuple[str, ...]
    timed: bool
    settled: bool


class Changes:
    """Reads the dependencies of results and polls the database for changes of them.

    `session` is a connection for polls alone, so other callers cannot delay a poll. `reader` gives the name
    of the role that runs stored SQL, and `schemas` is its search path. `always` names tables to follow even
    if no stored SQL names them.
    """

    def __init__(
        self,
        database: Database,
        session: Session,
        generations: Generations,
        clock: Callable[[], float],
        *,
        reader: Callable[[], Awaitable[str]],
        schemas: tuple[str, ...],
        always: Iterable[str] = (),
    ) -> None:
        self._database = database
        self._session = session
        self._generations = generations
        self._clock = clock
        self._reader = reader
        self._schemas = list(schemas)
        self._always = frozenset(always)
        self._tables: dict[str, TableFingerprint] = {}
        self._fingerprints: dict[str, str] = {}
        self._digest = b""
        self._polling = asyncio.Lock()

    async def dependencies(self, description: Description) -> Dependencies:
        """Read the dependencies of a statement from its description, and follow its tables."""
        found = description.dependencies
        relations = await self._relations(found.tables)
        hidden = any(relation.kind not in _PLAIN_KINDS or relation.inherits for relation in relations)
        pruned = await self._relations(found.pruned_tables)
        tables = tuple(relation.name for relation in relations)
        followed = {*tables, *(relation.name for relation in pruned)}
        defining = {*followed, *(rule.relation for rule in found.rules)}
        row_types = await self._database.read(_LIST_ROW_TYPES, list(defining))
        watched = {*defining, *(row_type.name for row_type in row_types)}
        settled = await self._follow(watched)
        return Dependencies(
            tables=tables,
            followed=tuple(sorted(followed)),
            watched=tuple(sorted(watched)),
            timed=hidden or found.timed,
            settled=settled,
        )

    async def _relations(self, tables: Iterable[tuple[str, str]]) -> list[Relation]:
        """The relations of these (schema, name) pairs, with all their parents and children."""
        pairs = list(tables)
        if not pairs:
            return []
        return await self._database.read(
            _LIST_RELATIONS, [schema for schema, _ in pairs], [name for _, name in pairs]
        )

    def max_age(self, tables: Iterable[str]) -> int:
        """Seconds that a change may stay unnoticed: 0 if all tables announce their changes."""
        announced = all(
            (fingerprint := self._tables.get(table)) and fingerprint.announces for table in tables
        )
        return 0 if announced else COUNTERS_LAG_S

    def unwatched(self, tables: Iterable[str]) -> tuple[str, ...]:
        """Those of these relations that hold rows and do not announce their changes."""
        known = [self._tables.get(table) for table in tables]
        return tuple(each.name for each in known if each and each.storage and not each.announces)

    async def keep(self, on_redefined: Callable[[], Awaitable[None]]) -> None:
        """Poll all followed tables until cancelled. A poll that fails or hangs counts as silence.

        `on_redefined` runs when a changed definition may have changed plans.
        """
        pause = POLL_S
        while True:
            await asyncio.sleep(pause)
            began = self._clock()
            try:
                async with asyncio.timeout(POLL_DEADLINE_S):
                    redefined = await self.poll()
            except (TimeoutError, Problem):  # the next poll shows changes missed meanwhile
                self._generations.silent(self._clock(), "poll")
                continue
            self._generations.polled()
            if redefined:
                await on_redefined()
            pause = min(max(POLL_S, POLL_SHARE * (self._clock() - began)), LONGEST_PAUSE_S)

    def digest(self, tables: Iterable[str]) -> bytes:
        """A digest of all definitions that results of these tables depend on, as this node knows them.

        It also covers the counters of tables that do not announce their changes. A result of another node
        counts only if that node knew the same.
        """
        known = [self._tables.get(table) for table in tables]
        parts = [
            (each.name, each.identity, each.storage, "" if each.announces else each.counters)
            for each in known
            if each is not None
        ]
        return _digest((self._digest, parts))

    def requirement(self, dependencies: Dependencies) -> Requirement | None:
        """What a standby must show of these tables now; None if changes may go unnoticed."""
        if self._generations.silent_since is not None:
            return None
        return self._generations.proofs.requirement(dependencies.watched, timed=dependencies.timed)

    @property
    def is_proving(self) -> bool:
        """Whether the database tells snapshots, so that runs can be proven to other nodes."""
        return self._generations.proofs.incarnation is not None

    def renew(self) -> None:
        """Make all existing results suspect."""
        self._generations.renew(self._clock())

    async def poll(self) -> frozenset[str]:
        """Raise the generations of changed tables. Returns the names of changed definitions."""
        async with self._polling:
            tables = await self._session.read(
                _LIST_TABLES, list(self._always.union(self._tables)), self._schemas
            )
            owners = {fingerprint.owner for fingerprint in tables if fingerprint.owner is not None}
            found = await self._session.read(_LIST_FINGERPRINTS, await self._reader(), list(owners))
        now = self._clock()
        redefined = {fingerprint.name for fingerprint in tables if self._record(fingerprint, now)}
        # A new part is no change. For example, a newly followed table adds its owner.
        previous, self._fingerprints = self._fingerprints, {each.name: each.value for each in found}
        redefined |= {name for name, value in previous.items() if self._fingerprints.get(name) != value}
        if previous != self._fingerprints:
            self._digest = _digest(sorted(self._fingerprints.items()))
        if redefined:
            self._generations.renew(now)
            self._generations.commits.redefined(redefined)
        return frozenset(redefined)

    def _record(self, fingerprint: TableFingerprint, now: float) -> bool:
        """Record a new fingerprint. Returns whether the definition changed."""
        previous = self._tables.setdefault(fingerprint.name, fingerprint)
        if fingerprint == previous:
            return False
        only_counted = fingerprint == msgspec.structs.replace(previous, counters=fingerprint.counters)
        if only_counted and fingerprint.announces and not self._quiet(fingerprint.name, now):
            return False  # the announcement may have covered this change
        self._tables[fingerprint.name] = fingerprint
        digested = not (only_counted and fingerprint.announces)
        self._generations.moved(fingerprint.name, now, digested=digested)
        return fingerprint.identity != previous.identity

    def _quiet(self, table: str, now: float) -> bool:
        """Whether the counters must by now include every announced change of the table."""
        return self._generations.stood_since([table], now - COUNTERS_LAG_S)

    async def _follow(self, tables: Iterable[str]) -> bool:
        """Follow these tables from now on. Returns whether all of them were followed before."""
        settled = bool(self._fingerprints)
        if not settled:
            await self.poll()
        unknown = [table for table in tables if table not in self._tables]
        if unknown:
            for fingerprint in await self._database.read(_LIST_TABLES, unknown, self._schemas):
                self._tables.setdefault(fingerprint.name, fingerprint)
        return settled and not unknown


def _digest(parts: Any) -> bytes:
    return blake2b(msgspec.json.encode(parts), digest_size=16).digest()
