"""Which commits changed which tables, as far as this process heard of them: for whoever explains a result."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from msgspec import Struct

MOST_TABLES: Final = 1024
MOST_COMMITS: Final = 64


class Commit(Struct, frozen=True):
    """A change of a table, heard at `at` (epoch seconds). One that a poll found has no transaction."""

    table: str
    at: float
    transaction: int | None = None


class Heard(Struct, frozen=True):
    """The commits of a time, oldest first. `complete`: no other one can have happened in it."""

    commits: tuple[Commit, ...]
    complete: bool


class CommitLog:
    """Keeps the last commits of each table. `now` is the wall clock."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._tables: OrderedDict[str, deque[Commit]] = OrderedDict()
        self._heard_since = inf
        self._redefined: deque[tuple[str, float]] = deque(maxlen=MOST_COMMITS)
        self._forgotten_at = -inf
        self._dropped: dict[str, float] = {}

    def note(self, table: str, transaction: int | None = None) -> None:
        commits = self._tables.get(table)
        if commits is None:
            if len(self._tables) >= MOST_TABLES:
                forgotten, _ = self._tables.popitem(last=False)
                self._dropped.pop(forgotten, None)
                self._forgotten_at = self._now()
            commits = self._tables[table] = deque()
        else:
            self._tables.move_to_end(table)
            if len(commits) >= MOST_COMMITS:
                self._dropped[table] = commits.popleft().at
        commits.append(Commit(table, self._now(), transaction))

    def silent(self, *, is_silent: bool) -> None:
        """Note that changes may go unnoticed from now on, or that they are noticed again."""
        if is_silent:
            self._heard_since = inf
        elif self._heard_since == inf:
            self._heard_since = self._now()

    def redefined(self, names: Iterable[str]) -> None:
        """Note changed definitions: of tables and views by name, of others by kind (`functions`, ...)."""
        at = self._now()
        self._redefined.extend((name, at) for name in sorted(names))

    def redefinitions(self, since: float, until: float) -> tuple[tuple[str, float], ...]:
        """What was redefined after `since`, up to `until`, and when that was noticed."""
        return tuple((name, at) for name, at in self._redefined if since < at <= until)

    def between(self, tables: Iterable[str], since: float, until: float) -> Heard:
        """What was heard of these tables after `since`, up to `until`."""
        names = set(tables)
        found = [each for name in names for each in self._tables.get(name, ()) if since < each.at <= until]
        found.sort(key=_at)
        dropped = any(self._dropped.get(name, -inf) > since for name in names)
        complete = self._heard_since <= since and self._forgotten_at <= since and not dropped
        return Heard(tuple(found), complete)


def _at(commit: Commit) -> float:
    return commit.at
