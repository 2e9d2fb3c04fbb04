"""The difference of two results: which rows came, went and changed. Pure.

Rows have no declared key. Columns that are no numbers identify them, with as many leading numbers as that
needs; the other numbers are what may change. Without such a key rows are compared whole, each as often as
it occurs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import Struct

from service.database.stored_sql.describing import NUMBER_TYPES, ResultColumn
from service.http import bodies

DIGITS: Final = 200_000
"""More than any two numbers of Postgres differ by."""
_ARITHMETIC: Final = Context(prec=DIGITS, Emax=MAX_EMAX, Emin=MIN_EMIN)

Row = tuple[Any, ...]


class Nested(Struct, frozen=True):
    """A boolean, list or object: compared by how it is written, because `True == 1` in Python."""

    text: bytes


class Table(Struct, frozen=True):
    """A result. Numbers of rows are ints and Decimals, so that they stay exact."""

    columns: tuple[ResultColumn, ...]
    rows: Sequence[Row]


class Changed(Struct, frozen=True):
    """A row of both results: its key, and the columns (by index in `compared`) whose values differ."""

    key: Row
    values: tuple[tuple[int, Any, Any], ...]

    def delta(self, at: int) -> Decimal | int | None:
        """The exact difference of two numbers; None if one of them is none."""
        _, before, after = self.values[at]
        return subtracted(before, after)


class Difference(Struct, frozen=True):
    """What turns the rows before into those after, in the columns that both have (`compared`).

    `keys` are indexes in `compared`; None if rows have no key. `reordered`: the rows are the same, in
    another order or notation.
    """

    compared: tuple[ResultColumn, ...]
    added_columns: tuple[ResultColumn, ...]
    removed_columns: tuple[ResultColumn, ...]
    retyped: tuple[tuple[str, str, str], ...]
    keys: tuple[int, ...] | None
    added: tuple[Row, ...]
    removed: tuple[Row, ...]
    changed: tuple[Changed, ...]
    unchanged: int
    reordered: bool


def difference(before: Table, after: Table) -> Difference:
    """Compare two results. Columns are the same if their names are; equal names count in their order."""
    old_at, new_at = _places(before.columns), _places(after.columns)
    shared = [name for name in new_at if name in old_at]
    compared = tuple(after.columns[new_at[name]] for name in shared)
    old = _picked(before.rows, [old_at[name] for name in shared], len(before.columns))
    new = _picked(after.rows, [new_at[name] for name in shared], len(after.columns))
    keys = _keys(compared, old, new)
    changed: tuple[Changed, ...] = ()
    if keys is None:
        added, removed = _as_bags(old, new)
    else:
        added, removed, changed = _by_key(keys, len(compared), old, new)
    return Difference(
        compared=compared,
        added_columns=tuple(after.columns[at] for name, at in new_at.items() if name not in old_at),
        removed_columns=tuple(before.columns[at] for name, at in old_at.items() if name not in new_at),
        retyped=tuple(_retyped(before, after, [(old_at[name], new_at[name]) for name in shared])),
        keys=keys,
        added=added,
        removed=removed,
        changed=changed,
        unchanged=len(new) - len(added) - len(changed),
        reordered=not (added or removed or changed) and list(before.columns) == list(after.columns),
    )


def subtracted(before: Any, after: Any) -> Decimal | int | None:
    """`after - before` without rounding; None unless both are numbers."""
    if not isinstance(before, int | Decimal) or not isinstance(after, int | Decimal):
        return None
    if isinstance(before, int) and isinstance(after, int):
        return after - before
    return _ARITHMETIC.subtract(Decimal(after), Decimal(before))


def cell(value: Any) -> Any:
    """A decoded JSON value as the cell of a row."""
    if isinstance(value, bool | list | dict):
        return Nested(bodies.encode(value))
    return value


def shown(value: Any) -> Any:
    """A cell as it is written in JSON."""
    return msgspec.Raw(value.text) if isinstance(value, Nested) else value


def _places(columns: Sequence[ResultColumn]) -> dict[tuple[str, int], int]:
    """Where each column stands, by its name and the number of columns of that name before it."""
    seen: Counter[str] = Counter()
    places: dict[tuple[str, int], int] = {}
    for at, column in enumerate(columns):
        places[column.name, seen[column.name]] = at
        seen[column.name] += 1
    return places


def _picked(rows: Sequence[Row], places: Sequence[int], width: int) -> Sequence[Row]:
    if list(places) == list(range(width)):
        return rows
    return [tuple([row[at] for at in places]) for row in rows]


def _retyped(
    before: Table, after: Table, places: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, str, str]]:
    for old, new in places:
        was, now = before.columns[old], after.columns[new]
        if was.type != now.type:
            yield now.name, was.type, now.type


def _keys(columns: Sequence[ResultColumn], old: Sequence[Row], new: Sequence[Row]) -> tuple[int, ...] | None:
    """The columns that identify a row in both results; None if only all columns would, or not even they."""
    numbers = [at for at, column in enumerate(columns) if column.type in NUMBER_TYPES]
    keys = [at for at, column in enumerate(columns) if column.type not in NUMBER_TYPES]
    while numbers:
        if _unique(keys, old) and _unique(keys, new):
            return tuple(sorted(keys))
        keys.append(numbers.pop(0))
    return None


def _unique(keys: Sequence[int], rows: Sequence[Row]) -> bool:
    if len(rows) <= 1:
        return True
    return bool(keys) and len(set(map(_picker(keys), rows))) == len(rows)


def _picker(keys: Sequence[int]) -> Callable[[Row], Any]:
    """The key of a row. For one column this is its value, as `itemgetter` has it, else a tuple."""
    return itemgetter(*keys) if keys else lambda _row: ()


def _by_key(
    keys: tuple[int, ...], width: int, old: Sequence[Row], new: Sequence[Row]
) -> tuple[tuple[Row, ...], tuple[Row, ...], tuple[Changed, ...]]:
    key_of = _picker(keys)
    before = {key_of(row): row for row in old}
    after = {key_of(row): row for row in new}
    added: list[Row] = []
    changed: list[Changed] = []
    for key, row in after.items():
        was = before.get(key)
        if was is None:
            added.append(row)
        elif was != row:
            values = tuple((at, was[at], row[at]) for at in range(width) if was[at] != row[at])
            changed.append(Changed(tuple(row[at] for at in keys), values))
    removed = tuple(row for key, row in before.items() if key not in after)
    return tuple(added), removed, tuple(changed)


def _as_bags(old: Sequence[Row], new: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    before, after = Counter(old), Counter(new)
    return tuple((after - before).elements()), tuple((before - after).elements())
