"""Choose the base table of a question: try all names from each table, and take the best fit.

Joins only follow foreign keys away from the base, so that no row is multiplied.
"""

from collections import deque
from typing import Literal

from msgspec import Struct

from service.ask.question.shapes import Join, Ref
from service.ask.schema import Column, Schema, Table
from service.ask.sentence.lexicon import Meaning, Mention
from service.ask.sentence.reading import Dimension, Measured, Reading, Thing
from service.ask.sentence.words import stem, stems

Role = Literal["subject", "dimension", "amount", "counted", "value", "bound", "scope", "moment"]

_HOP = 1.5
_FITTING = 3.0


class Base(Struct):
    """A candidate base: its reach and how well the prompt fits."""

    table: Table
    reach: dict[tuple[str, str], tuple[Join, ...]]
    score: float = 0.0
    own: bool = False
    problem: str = ""

    def distance(self, table: Table) -> int | None:
        path = self.reach.get(table.key)
        return None if path is None else len(path)


def reach(table: Table, schema: Schema) -> dict[tuple[str, str], tuple[Join, ...]]:
    """All tables with one row for each row of this table, with the shortest path of joins."""
    ways: dict[tuple[str, str], tuple[Join, ...]] = {table.key: ()}
    queue = deque([table])
    while queue:
        child = queue.popleft()
        for reference in child.foreign_keys:
            parent = schema.table(reference.schema, reference.table)
            if parent is not None and parent.key not in ways:
                ways[parent.key] = (*ways[child.key], Join(child, reference, parent))
                queue.append(parent)
    return ways


def roles(reading: Reading) -> list[tuple[Mention, Role]]:
    """All names of the reading with their roles."""
    parts: list[tuple[Thing | None, Role]] = []

    def add(role: Role, *things: Thing | None) -> None:
        parts.extend((thing, role) for thing in things)

    for measure in reading.measures:
        add(_part(measure), measure.thing)
    add("moment" if reading.when else "subject", *reading.subjects)
    add("dimension", *(dimension.thing for dimension in reading.dimensions))
    add("scope", *reading.loose, *reading.scopes, reading.order.thing if reading.order else None)
    add("value", *(Thing(chosen.mention, chosen.mention.text) for chosen in reading.chosen))
    add("bound", *(bound.thing for bound in reading.bounds))
    return [(thing.mention, role) for thing, role in parts if thing and thing.mention]


def _part(measure: Measured) -> Role:
    return "counted" if measure.function in {None, "count", "sum"} or measure.distinct else "amount"


def scored(base: Base, reading: Reading) -> Base:
    for mention, role in roles(reading):
        fit = best_fit(mention, role, base)
        if fit is None:
            base.problem = base.problem or unfitting(mention, role, base)
            continue
        base.score += fit[0]
        base.own = base.own or any(meaning.table.key == base.table.key for meaning in fit[1])
    linked = not base.own and not base.problem and _links(base, reading)
    base.score -= 4 if linked else 0
    if (
        reading.active
        and _ranks_without_rows(reading)
        and not any(_hop(base, d, reading) for d in reading.dimensions)
    ):
        base.problem = base.problem or "activity is told by rows that refer to it"
    if not base.own and not linked and not (_ranks_without_rows(reading) and _refers(base, reading)):
        base.problem = base.problem or "nothing of it was named"
    dated = reading.windows or any(dimension.time for dimension in reading.dimensions)
    if dated and not base.problem and moment_of(base, reading) is None:
        times = {d.time for d in reading.dimensions}
        if reading.windows or not all(unit is None or has(base.table, unit) for unit in times):
            base.problem = f"{spoken(base.table.name)} has no date to choose or split by"
    if (
        _ranks_without_rows(reading)
        and not base.problem
        and not _refers(base, reading)
        and not any(_hop(base, d, reading) for d in reading.dimensions)
    ):
        base.problem = f"it does not say what to rank {spoken(base.table.name)} by"
    return base


def _hop(base: Base, dimension: Dimension, reading: Reading) -> bool:
    fit = (
        best_fit(dimension.thing.mention, "dimension", base)
        if dimension.thing and dimension.thing.mention
        else None
    )
    if fit is None or base.distance(fit[1][0].table):
        return True
    return fit[1][0].kind != "table" and not reading.active


def _links(base: Base, reading: Reading) -> bool:
    """Whether an unnamed table joins several named tables, as order items join orders and products."""
    named: set[tuple[str, str]] = set()
    for mention, role in roles(reading):
        fit = best_fit(mention, role, base)
        if fit and role == "counted" and fit[1][0].kind == "value":
            return False
        if fit:
            named.add(fit[1][0].table.key)
    direct = {(reference.schema, reference.table) for reference in base.table.foreign_keys}
    return len(named) > 1 and named <= direct


def _refers(base: Base, reading: Reading) -> bool:
    """Whether `most active customers` can count rows of this table: it refers directly to customers."""
    fits = [
        fit
        for dimension in reading.dimensions
        if dimension.thing
        and dimension.thing.mention
        and (fit := best_fit(dimension.thing.mention, "dimension", base))
    ]
    return bool(fits) and all(
        (meaning.kind == "table" or reading.active) and base.distance(meaning.table) == 1
        for _, (meaning, *_) in fits
    )


def _ranks_without_rows(reading: Reading) -> bool:
    return bool(
        reading.direction
        and reading.dimensions
        and not (reading.measures or reading.subjects or reading.scopes)
    )


def has(table: Table, name: str) -> bool:
    return any(column.name == name for column in table.columns)


def unfitting(mention: Mention, role: Role, base: Base) -> str:
    if role == "amount":
        return f"{mention.text!r} is no number of {spoken(base.table.name)}"
    return f"{mention.text!r} does not go with {spoken(base.table.name)}"


def best_fit(mention: Mention, role: Role, base: Base) -> tuple[float, list[Meaning]] | None:
    """The best meanings of a name in this role, seen from this base, and their score."""
    found: list[tuple[float, Meaning]] = []
    for meaning in mention.meanings:
        distance = base.distance(meaning.table)
        if distance is None or not _allowed(meaning, role, distance):
            continue
        found.append((meaning.weight - _HOP * distance + _bonus(meaning, role), meaning))
    if not found:
        return None
    top = max(score for score, _ in found)
    best = [meaning for score, meaning in found if score == top]
    if best[0].kind == "value":
        best = [m for m in best if m.column == best[0].column and m.table.key == best[0].table.key]
    return top, best


def _allowed(meaning: Meaning, role: Role, distance: int) -> bool:
    column = meaning.column if meaning.kind == "column" else None
    entity = meaning.kind in {"table", "topic"}
    numeric = column is not None and column.numeric
    amount = numeric and column is not None and not meaning.table.is_key(column.name)
    dated = column is not None and column.dated
    far = distance > 0  # adding up a column of a joined table would count it once per row of the base
    return {
        "value": meaning.kind == "value" or (column is not None and column.kind == "boolean"),
        "amount": entity or ((amount or dated) and not far),
        "counted": not (amount and far),
        "subject": not (amount and far),
        "dimension": meaning.kind != "topic",
        "bound": meaning.kind == "table" or numeric,
        "moment": entity or dated,
        "scope": True,
    }[role]


def _bonus(meaning: Meaning, role: Role) -> float:
    column = meaning.column
    key = column is not None and meaning.table.is_key(column.name)
    fitting = {
        "subject": meaning.kind in {"table", "topic"} or (column is not None and column.numeric and not key),
        "counted": meaning.kind in {"table", "topic"} or (column is not None and column.numeric and not key),
        "moment": meaning.kind in {"table", "topic"},
        "scope": meaning.kind in {"table", "topic"},
        "dimension": meaning.kind == "column" and column is not None and not column.numeric,
        "amount": meaning.kind == "column",
        "bound": meaning.kind == "column",
        "value": True,
    }
    return _FITTING if fitting[role] else 0.0


def moment_of(base: Base, reading: Reading) -> Ref | None:
    """The date column for windows and units: a named one, else the nearest."""
    for mention, _ in roles(reading):
        for meaning in mention.meanings:
            if (
                meaning.kind == "column"
                and meaning.column
                and meaning.column.dated
                and meaning.table.key == base.table.key
            ):
                return Ref(meaning.table, meaning.column)
    tables = [base.table, *(path[-1].parent for path in base.reach.values() if path)]
    for table in tables:
        dated = [column for column in table.columns if column.dated]
        if dated:
            return Ref(table, min(dated, key=_lateness))
    return None


def _lateness(column: Column) -> int:
    """Bookkeeping columns come last."""
    words = set(stems(column.name))
    return 2 * bool(
        words & {stem(w) for w in ("updated", "modified", "deleted", "imported", "due", "end")}
    ) + bool(words & {stem(w) for w in ("created", "inserted", "shipped", "paid", "delivered", "closed")})


def spoken(name: str) -> str:
    return name.replace("_", " ")
