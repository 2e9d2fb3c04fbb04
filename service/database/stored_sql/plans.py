"""What is kept of Postgres's plan of a statement: read once, cut to a bounded size, then let go.

A plan holds the values of folded constants: a statement of a hundred bytes can have a plan of megabytes.
"""

from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from service.errors import FieldError, QueryFailed

TEXT_CHARS: Final = 1 << 18
"""A longer text of a plan is a folded constant, as stored SQL is shorter: it is left out."""
TEXTS_CHARS: Final = 1 << 20
"""Characters of all texts together, so that a search through them takes milliseconds."""
OPAQUE_NODES: Final = frozenset({"Foreign Scan", "Custom Scan"})

# Postgres's memory for a kept statement, in bytes: for each byte of its plan's JSON, and of its text.
_PER_PLAN_BYTE: Final = 4
_PER_SQL_BYTE: Final = 32
# The driver's memory for each column of a kept statement.
_PER_COLUMN: Final = 512
# Rows of VALUES are kept, but not shown; before Postgres 17 nothing tells how large they are.
_UNKNOWN_VALUES: Final = 1 << 24


class Plan(Struct, frozen=True):
    """What answers depend on, as EXPLAIN (VERBOSE) shows it.

    `tables` are those that it reads, by schema and name; `texts` all that can be expressions, each once.
    `hides` says that nodes read what the plan does not name, or that it was made without some tables. `cut`
    says that texts were left out, which may have said anything. `weight` is about how many bytes of memory
    Postgres and the driver need to keep the statement prepared.
    """

    cost: float
    tables: frozenset[tuple[str, str]]
    texts: tuple[str, ...]
    hides: bool
    cut: bool
    weight: int


def read_plan(explained: bytes, sql: str, columns: int) -> Plan:
    """Read what EXPLAIN gave as JSON for `sql`; raises `QueryFailed` for what is no SELECT."""
    plans = msgspec.json.decode(explained, type=list[Any])
    if not plans or "Plan" not in plans[0]:  # a command, or nothing
        message = "the stored SQL is no SELECT"
        raise QueryFailed(f"Postgres: {message}", errors=(FieldError("sql", message),), sqlstate="0A000")
    top = plans[0]["Plan"]
    nodes = list(_nodes(top))
    texts, cut = _bounded(_texts(top))
    weight = _PER_PLAN_BYTE * len(explained) + weight_of(sql) + _PER_COLUMN * columns
    if any(node["Node Type"] == "Values Scan" for node in nodes):
        memory = plans[0].get("Planning", {}).get("Memory Used")  # KiB
        weight += _UNKNOWN_VALUES if memory is None else 1024 * memory
    return Plan(
        cost=top["Total Cost"],
        tables=frozenset(
            (node["Schema"], node["Relation Name"]) for node in nodes if "Relation Name" in node
        ),
        texts=texts,
        hides=any(node["Node Type"] in OPAQUE_NODES or "Subplans Removed" in node for node in nodes),
        cut=cut,
        weight=weight,
    )


def weight_of(sql: str) -> int:
    """About how many bytes it takes to keep a statement prepared of which only the text is known."""
    return _PER_SQL_BYTE * len(sql)


def _bounded(texts: Iterator[str]) -> tuple[tuple[str, ...], bool]:
    """Each text once, and whether some were too long."""
    kept: dict[str, None] = {}
    left, cut = TEXTS_CHARS, False
    for text in texts:
        if text in kept:
            continue
        if len(text) > min(TEXT_CHARS, left):
            cut = True
        else:
            kept[text] = None
            left -= len(text)
    return tuple(kept), cut


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [plan]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        yield node


def _texts(plan: dict[str, Any]) -> Iterator[str]:
    """Everything in a plan that can be an expression."""
    waiting: list[Any] = [plan]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += cast("dict[str, Any]", value).values()
        elif isinstance(value, list):
            waiting += cast("list[Any]", value)
