"""What an answer depends on, read from Postgres's plan, and how changes of it become known.

A table that carries our triggers announces each change at commit. Of any other we poll the counters that
Postgres keeps: no cost for writers, but a session reports its counts at most once a second, and what it did
since then only after 10 idle seconds or when it ends.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from msgspec import Struct

from service.database.gateway import Database
from service.database.queries import SqlFile
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
    """Differs whenever rows of the table changed; empty when there is no such table."""

    name: str
    mark: str
    announces: bool


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_RELATIONS: Final = _SQL.rows("list_relations", Relation)
_LIST_FUNCTIONS: Final = _SQL.rows("list_functions", Function)
_LIST_MARKS: Final = _SQL.rows("list_marks", Mark)

_LITERAL: Final = re.compile(r"'(?:[^']|'')*'")
_CALL: Final = re.compile(r'("(?:[^"]|"")+"|[a-z_][\w$]*)\(')
_CLOCK: Final = re.compile(r"\b(?:CURRENT_(?:DATE|TIME|TIMESTAMP)|LOCALTIME|LOCALTIMESTAMP)\b")
_CLOCK_LITERAL: Final = re.compile(r"'\s*(?:now|today|tomorrow|yesterday)\b(?!\()", re.IGNORECASE)
_OPAQUE_NODES: Final = frozenset({"Foreign Scan", "Custom Scan"})
# What gives a plan its tables. pg_class and pg_attribute are left out: any temporary table moves them.
_DEFINITIONS: Final = tuple(
    f"pg_catalog.{table}" for table in ("pg_rewrite", "pg_proc", "pg_policy", "pg_inherits")
)
_PLAIN_KINDS: Final = frozenset("rpm")  # tables, partitioned tables, materialized views


class Dependencies(Struct, frozen=True):
    """What an answer hangs on.

    `timed`: also on the clock or on what the plan does not show, so time bounds it too.
    """

    tables: tuple[str, ...]
    timed: bool


class Changes:
    """Tables that answers depend on, with what is known of how they tell of changes."""

    def __init__(self, database: Database, generations: Generations, clock: Callable[[], float]) -> None:
        self._database = database
        self._generations = generations
        self._clock = clock
        self._marks: dict[str, Mark] = {}

    async def dependencies(self, sql: str, plan: dict[str, Any]) -> Dependencies:
        """Read a plan (EXPLAIN VERBOSE, generic); from then on its tables' changes are followed."""
        nodes = list(_nodes(plan))
        named = sorted({(node["Schema"], node["Relation Name"]) for node in nodes if "Relation Name" in node})
        relations = await self._database.read(
            _LIST_RELATIONS, [schema for schema, _ in named], [name for _, name in named]
        )
        texts = [_LITERAL.sub("''", text) for node in nodes for text in _texts(node)]
        names = {name.strip('"').replace('""', '"') for text in texts for name in _CALL.findall(text)}
        functions = await self._database.read(_LIST_FUNCTIONS, sorted(names))
        hidden = any(
            node["Node Type"] in _OPAQUE_NODES or "Subplans Removed" in node for node in nodes
        ) or any(relation.kind not in _PLAIN_KINDS or relation.inherits for relation in relations)
        tables = tuple(relation.name for relation in relations)
        await self._follow(tables)
        return Dependencies(
            tables=tables,
            timed=hidden
            or bool(functions)
            or any(_CLOCK.search(text) for text in texts)
            or _CLOCK_LITERAL.search(sql) is not None,
        )

    def max_age(self, tables: Iterable[str]) -> int:
        """Seconds by which a change may be known too late: 0 where all of them announce."""
        announced = all((mark := self._marks.get(table)) and mark.announces for table in tables)
        return 0 if announced else COUNTERS_LAG_S

    async def keep(self, on_redefined: Callable[[], None]) -> None:
        """Poll all followed tables together, until cancelled.

        `on_redefined` runs when views, functions, policies or partitions changed: what plans said is old.
        """
        while True:
            await asyncio.sleep(POLL_S)
            with suppress(DatabaseUnavailable):  # what is missed meanwhile shows at the next poll
                if await self.poll():
                    on_redefined()

    async def poll(self) -> bool:
        """Raise the generations of what moved without a word; whether anything was redefined."""
        redefined = False
        for mark in await self._database.read(_LIST_MARKS, [*self._marks, *_DEFINITIONS]):
            before = self._marks.setdefault(mark.name, mark)
            self._marks[mark.name] = mark
            if mark != before and not (mark.announces and before.announces):
                self._generations.moved(mark.name, self._clock())
                redefined = redefined or mark.name in _DEFINITIONS
        if redefined:
            self._generations.renew(self._clock())
        return redefined

    async def _follow(self, tables: Iterable[str]) -> None:
        """Know where the counters stand before the first run, so that no change falls between."""
        unknown = [table for table in tables if table not in self._marks]
        if unknown:
            for mark in await self._database.read(_LIST_MARKS, unknown):
                self._marks.setdefault(mark.name, mark)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [plan]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        yield node


def _texts(node: dict[str, Any]) -> Iterator[str]:
    """Everything in a node that can be an expression."""
    for name, value in node.items():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and name != "Plans":
            yield from (item for item in cast("list[Any]", value) if isinstance(item, str))
