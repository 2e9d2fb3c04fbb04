"""Check a statement whose windows were moved: only the bounds may differ from the stored statement.

We parse the text that was rendered and walk both trees together. Where a slot replaced a node, the new tree
must have one node that covers exactly the new text; everywhere else both trees are equal.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from sqlglot import exp

from service.errors import SqlRefused
from service.sql.parameters.bounds import OPERATORS
from service.sql.parameters.windows import ADDED
from service.sql.validation.dialect import span_of
from service.sql.validation.parsing import parse

Span: TypeAlias = tuple[int, int]
Moved: TypeAlias = Mapping[Span, Span]
"""The range of each slot in the stored text, and in the rendered text. The first is empty for an addition."""


def moves_only_bounds(tree: exp.Query, rendered: str, moved: Moved) -> bool:
    try:
        return _same(tree, parse(rendered).tree, moved)
    except SqlRefused:
        return False


def _same(tree: exp.Expr, edited: exp.Expr, moved: Moved) -> bool:
    todo: list[tuple[Any, Any]] = [(tree, edited)]
    while todo:
        one, other = todo.pop()
        pairs = _parts(one, other, moved)
        if pairs is None:
            return False
        todo += pairs
    return True


def _parts(one: Any, other: Any, moved: Moved) -> list[tuple[Any, Any]] | None:
    """The parts of two nodes or lists side by side; None if the two differ."""
    if isinstance(one, list) and isinstance(other, list):
        ones, others = cast("list[Any]", one), cast("list[Any]", other)
        return list(zip(ones, others, strict=True)) if len(ones) == len(others) else None
    if not isinstance(one, exp.Expr) or not isinstance(other, exp.Expr):
        return [] if one == other else None
    if (replacing := moved.get(span_of(one) or (0, 0))) is not None:
        return [] if span_of(other) == replacing else None
    if isinstance(other, exp.And):
        return _paired(_conditions(one), _conditions(other), moved)
    if type(one) is not type(other) or one.args.keys() != other.args.keys():
        return None
    return [(value, other.args[name]) for name, value in one.args.items()]


def _conditions(node: exp.Expr) -> list[exp.Expr]:
    """The conditions of an AND chain in their order; a node that is none is its own chain."""
    found: list[exp.Expr] = []
    todo = [node]
    while todo:
        here = todo.pop()
        if isinstance(here, exp.And):
            todo += [here.right, here.left]
        else:
            found.append(here)
    return found


def _paired(
    stored: list[exp.Expr], edited: list[exp.Expr], moved: Moved
) -> list[tuple[exp.Expr, exp.Expr]] | None:
    """The conditions of two chains side by side, without those that were added; None if they do not match."""
    pairs: list[tuple[exp.Expr, exp.Expr]] = []
    rest = iter(edited)
    for condition in stored:
        same = next(rest, None)
        added = moved.get((_end(condition), _end(condition)))
        other = next(rest, None) if added else None
        if same is None or (added and not (other and _covers(other, added))):
            return None
        pairs.append((condition, same))
    return pairs if next(rest, None) is None else None


def _end(condition: exp.Expr) -> int:
    span = span_of(condition.expression) if type(condition) in OPERATORS else None
    return span[1] if span else -1


def _covers(condition: exp.Expr, added: Span) -> bool:
    first = span_of(condition.this) if type(condition) in OPERATORS else None
    return first is not None and (first[0], _end(condition)) == (added[0] + len(ADDED), added[1])
