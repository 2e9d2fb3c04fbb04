"""What an answer depends on, read from Postgres's plan, and how changes of it become known.

A table that carries our triggers announces each change at commit. Of any other we poll the counters that
Postgres keeps: no cost for writers, but a session reports its counts at most once a second, and what it did
since then only after 10 idle seconds or when it ends; nothing during one call, be it of a procedure that
commits inside itself. Of a table that announces they count when it has been quiet for so long: there may
have been writing past its triggers. So what is announced moves it once more when it has been quiet.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from service.database.gateway import Database
from service.database.queries import SqlFile
from service.database.stored_sql.reach import CLOCK
from service.database.stored_sql.reader import Description
from service.errors import DatabaseUnavailable
from service.results.freshness import Generations

CHANNEL: Final = "tally_data"
POLL_S: Final = 1.0
COUNTERS_LAG_S: Final = 12
"""Postgres's 10 idle seconds (PGSTAT_IDLE_INTERVAL), its 1 s between reports, and our poll."""


class Relation(Struct, frozen=True):
    name: str
    kind: str
    inherits: bool


class Function(Struct, frozen=True):
    """One whose answers may differ from call to call."""

    name: str


class Mark(Struct, frozen=True):
    """What shows changes of a table or a view; empty when there is none of this name.

    `identity` is of what bears the name, `storage` of the file with its rows, `counters` are Postgres's.
    """

    name: str
    identity: str
    storage: str
    counters: str
    announces: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_RELATIONS: Final = _SQL.rows("list_relations", Relation)
_LIST_FUNCTIONS: Final = _SQL.rows("list_functions", Function)
_LIST_MARKS: Final = _SQL.rows("list_marks", Mark)

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
    """

    tables: tuple[str, ...]
    followed: tuple[str, ...]
    timed: bool


class Changes:
    """Tables that answers depend on, with what is known of how they tell of changes."""

    def __init__(self, database: Database, generations: Generations, clock: Callable[[], float]) -> None:
        self._database = database
        self._generations = generations
        self._clock = clock
        self._marks: dict[str, Mark] = {}

    async def dependencies(self, sql: str, description: Description) -> Dependencies:
        """Read a text and what Postgres says of it; from then on its tables' changes are followed."""
        plan, reach = description.plan, description.reach
        relations = await self._relations(reach.tables)
        # The plan shows what functions and policies do, the texts what it folds away or does not print.
        said = "\n".join([sql, *(rule.text for rule in reach.rules), *plan.texts])
        names = {name.replace('""', '"') for calls in _CALLS for name in calls.findall(said)}
        functions = await self._database.read(_LIST_FUNCTIONS, sorted({*names, *map(str.lower, names)}))
        hidden = plan.hides or any(
            relation.kind not in _PLAIN_KINDS or relation.inherits for relation in relations
        )
        others = await self._relations(reach.passed_over)
        tables = tuple(relation.name for relation in relations)
        followed = {*tables, *(relation.name for relation in others)}
        await self._follow({*followed, *(rule.relation for rule in reach.rules)})
        return Dependencies(
            tables=tables,
            followed=tuple(sorted(followed)),
            timed=hidden or plan.cut or bool(functions or CLOCK.search(said) or _DISGUISE.search(sql)),
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

    async def keep(self, on_redefined: Callable[[], None]) -> None:
        """Poll all followed tables together, until cancelled.

        `on_redefined` runs when what plans said is old.
        """
        while True:
            await asyncio.sleep(POLL_S)
            with suppress(DatabaseUnavailable):  # what is missed meanwhile shows at the next poll
                if await self.poll():
                    on_redefined()

    async def poll(self) -> bool:
        """Raise the generations of what moved without a word; whether plans may have become others.

        They do when views, functions, policies or partitions changed, or what bears a name.
        """
        redefined = False
        marks = await self._database.read(_LIST_MARKS, [*self._marks, *_DEFINITIONS])
        now = self._clock()
        for mark in marks:
            before = self._marks.setdefault(mark.name, mark)
            if mark == before:
                continue
            only_counted = mark == msgspec.structs.replace(before, counters=mark.counters)
            if only_counted and mark.announces and not self._quiet(mark.name, now):
                continue  # it may be what was announced
            self._marks[mark.name] = mark
            self._generations.moved(mark.name, now)
            redefined = redefined or mark.identity != before.identity or mark.name in _DEFINITIONS
        if redefined:
            self._generations.renew(now)
        return redefined

    def _quiet(self, table: str, now: float) -> bool:
        """Whether all that was announced of the table must be in its counters by now."""
        return self._generations.stood_since(self._generations.of([table]), now - COUNTERS_LAG_S)

    async def _follow(self, tables: Iterable[str]) -> None:
        """Know where the counters stand before the first run, so that no change falls between."""
        unknown = [table for table in tables if table not in self._marks]
        if unknown:
            for mark in await self._database.read(_LIST_MARKS, unknown):
                self._marks.setdefault(mark.name, mark)
