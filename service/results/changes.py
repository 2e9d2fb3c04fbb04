"""What an answer depends on, read from Postgres's plan, and how changes of it become known.

A table that carries our triggers announces each change at commit. Of any other we poll the counters that
Postgres keeps: no cost for writers, but a session reports its counts at most once a second, and what it did
since then only after 10 idle seconds or when it ends; nothing during one call, be it of a procedure that
commits inside itself. Of a table that announces they count when it has been quiet for so long: there may
have been writing past its triggers. So what is announced moves it once more when it has been quiet.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.database.queries import SqlFile
from service.database.session import Session
from service.database.stored_sql.reader import Description
from service.errors import Problem
from service.results.freshness import Generations
from service.sql.clock import CLOCK

CHANNEL: Final = "tally_data"
POLL_S: Final = 1.0
POLL_DEADLINE_S: Final = 3.0
LONGEST_PAUSE_S: Final = 1.5
"""With the deadline, this is how long a change of a definition may go unnoticed."""
POLL_SHARE: Final = 20
"""A poll that takes long rests for so many times as long."""
COUNTERS_LAG_S: Final = 12
"""Postgres's 10 idle seconds (PGSTAT_IDLE_INTERVAL), its 1 s between reports, and our poll."""


class Relation(Struct, frozen=True):
    name: str
    kind: str
    inherits: bool


class Function(Struct, frozen=True):
    """One whose answers may differ from call to call."""

    name: str


class RowType(Struct, frozen=True):
    name: str


class Fingerprint(Struct, frozen=True):
    """Of a part of the database that every statement may depend on: functions, types, a role, ..."""

    name: str
    value: str


class TableFingerprint(Struct, frozen=True):
    """What shows changes of a table or a view; empty when there is none of this name.

    `identity` is of what bears the name and of all that defines it: columns, rights, policies, ...; `storage`
    of the file with its rows, `counters` are Postgres's.
    """

    name: str
    identity: str
    owner: int | None
    storage: str
    counters: str
    announces: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_RELATIONS: Final = _SQL.rows("list_relations", Relation)
_LIST_FUNCTIONS: Final = _SQL.rows("list_functions", Function)
_LIST_ROW_TYPES: Final = _SQL.rows("list_row_types", RowType)
_LIST_MARKS: Final = _SQL.rows("list_marks", TableFingerprint)
_LIST_FINGERPRINTS: Final = _SQL.rows("list_fingerprints", Fingerprint)

# Read in literals and comments too: what is found too much only makes a result short-lived.
_CALLS: Final = (
    re.compile(r'(?<!")"((?:[^"]|""){1,63}+)"\s*+\('),
    re.compile(r'(?<![\w$])([^\W\d][\w$]*+)"?\s*+(?:\(|--|/\*)'),
)
# A literal with escapes or in several parts need not look like what it says.
_DISGUISE: Final = re.compile(r"(?<![\w'])(?:e'|u&['\"])|'[^\S\n]*+\n\s*+'", re.IGNORECASE)
# What gives a plan its tables. pg_class and pg_attribute are left out: any temporary table moves them.
_DEFINITIONS: Final = tuple(
    f"pg_catalog.{table}" for table in ("pg_rewrite", "pg_proc", "pg_policy", "pg_inherits")
)
_PLAIN_KINDS: Final = frozenset("rpm")  # tables, partitioned tables, materialized views


class Dependencies(Struct, frozen=True):
    """What an answer hangs on.

    `tables` are those that its plan reads, `followed` also those that another plan might: a change of any
    ends its freshness. `timed`: also on the clock or on what the plan does not show, so time bounds it too.
    `settled`: all of it was followed before it was read, so that no change of it can have been missed.
    """

    tables: tuple[str, ...]
    followed: tuple[str, ...]
    timed: bool
    settled: bool


class Changes:
    """What answers depend on, with what is known of how it tells of changes.

    `session` polls, so that nobody who waits for the database holds up the poll; `reader` gives the name of
    the role that runs stored SQL, `schemas` are those of its search path, `always` tables to follow although
    no stored SQL may name them.
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
        self._marks: dict[str, TableFingerprint] = {}
        self._fingerprints: dict[str, str] = {}
        self._polling = asyncio.Lock()

    async def dependencies(self, sql: str, description: Description) -> Dependencies:
        """Read a text and what Postgres says of it; from then on its tables' changes are followed."""
        plan, reach = description.plan, description.dependencies
        relations = await self._relations(reach.tables)
        # The plan shows what functions and policies do, the texts what it folds away or does not print.
        said = "\n".join([sql, *(rule.text for rule in reach.rules), *plan.texts])
        names = {name.replace('""', '"') for calls in _CALLS for name in calls.findall(said)}
        functions = await self._database.read(_LIST_FUNCTIONS, sorted({*names, *map(str.lower, names)}))
        hidden = plan.hides or any(
            relation.kind not in _PLAIN_KINDS or relation.inherits for relation in relations
        )
        others = await self._relations(reach.pruned_tables)
        tables = tuple(relation.name for relation in relations)
        followed = {*tables, *(relation.name for relation in others)}
        defining = {*followed, *(rule.relation for rule in reach.rules)}
        row_types = await self._database.read(_LIST_ROW_TYPES, list(defining))
        settled = await self._follow({*defining, *(row_type.name for row_type in row_types)})
        return Dependencies(
            tables=tables,
            followed=tuple(sorted(followed)),
            timed=hidden or plan.cut or bool(functions or CLOCK.search(said) or _DISGUISE.search(sql)),
            settled=settled,
        )

    async def _relations(self, tables: Iterable[tuple[str, str]]) -> list[Relation]:
        """These tables by schema and name, and all that they inherit from or pass on to."""
        asked = list(tables)
        if not asked:
            return []
        return await self._database.read(
            _LIST_RELATIONS, [schema for schema, _ in asked], [name for _, name in asked]
        )

    def max_age(self, tables: Iterable[str]) -> int:
        """Seconds by which a change may be known too late: 0 where all of them announce."""
        announced = all((mark := self._marks.get(table)) and mark.announces for table in tables)
        return 0 if announced else COUNTERS_LAG_S

    async def keep(self, on_redefined: Callable[[], Awaitable[None]]) -> None:
        """Poll all that is followed, until cancelled; a poll that fails or hangs is silence.

        `on_redefined` runs when plans may have become others.
        """
        pause = POLL_S
        while True:
            await asyncio.sleep(pause)
            began = self._clock()
            try:
                async with asyncio.timeout(POLL_DEADLINE_S):
                    redefined = await self.poll()
            except (TimeoutError, Problem):  # what is missed meanwhile shows at the next poll
                self._generations.silent(self._clock(), "poll")
                continue
            self._generations.polled()
            if redefined:
                await on_redefined()
            pause = min(max(POLL_S, POLL_SHARE * (self._clock() - began)), LONGEST_PAUSE_S)

    async def poll(self) -> frozenset[str]:
        """Raise the generations of what moved without a word; returns what is defined otherwise by now."""
        async with self._polling:
            marks = await self._session.read(
                _LIST_MARKS, list(self._always.union(self._marks)), self._schemas
            )
            owners = {mark.owner for mark in marks if mark.owner is not None}
            found = await self._session.read(_LIST_FINGERPRINTS, await self._reader(), list(owners))
        now = self._clock()
        redefined = {mark.name for mark in marks if self._moved(mark, now)}
        # A part that was not known of is no change: the owner of a table that is followed since, for one.
        before, self._fingerprints = self._fingerprints, {each.name: each.value for each in found}
        redefined |= {name for name, value in before.items() if self._fingerprints.get(name) != value}
        if redefined:
            self._generations.renew(now)
        return frozenset(redefined)

    def _moved(self, mark: TableFingerprint, now: float) -> bool:
        """Take a mark that differs from the one before; whether it is defined otherwise."""
        before = self._marks.setdefault(mark.name, mark)
        if mark == before:
            return False
        only_counted = mark == msgspec.structs.replace(before, counters=mark.counters)
        if only_counted and mark.announces and not self._quiet(mark.name, now):
            return False  # it may be what was announced
        self._marks[mark.name] = mark
        self._generations.moved(mark.name, now)
        return mark.identity != before.identity

    def _quiet(self, table: str, now: float) -> bool:
        """Whether all that was announced of the table must be in its counters by now."""
        return self._generations.stood_since(self._generations.of([table]), now - COUNTERS_LAG_S)

    async def _follow(self, tables: Iterable[str]) -> bool:
        """Know where they stand from now on; whether that was known of all before."""
        settled = bool(self._fingerprints)
        if not settled:
            await self.poll()
        unknown = [table for table in tables if table not in self._marks]
        if unknown:
            for mark in await self._database.read(_LIST_MARKS, unknown, self._schemas):
                self._marks.setdefault(mark.name, mark)
        return settled and not unknown
