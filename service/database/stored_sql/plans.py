"""Read the needed parts of a statement's plan once, within a bounded size.

A plan contains the values of folded constants: a statement of a hundred bytes can have a plan of megabytes.
"""

from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from service.errors import FieldError, QueryFailed

TEXT_CHARS: Final = 1 << 18
"""A longer text in a plan is left out: stored SQL is shorter, so the text is a folded constant."""
TEXTS_CHARS: Final = 1 << 20
"""Limit for the characters of all texts together, so that a search through them takes milliseconds."""
OPAQUE_NODES: Final = frozenset({"Foreign Scan", "Custom Scan"})

# Postgres's memory for a kept statement, in bytes: for each byte of its plan's JSON, and of its text.
_PER_PLAN_BYTE: Final = 4
_PER_SQL_BYTE: Final = 32
# The driver's memory for each column of a kept statement.
_PER_COLUMN: Final = 512
# Postgres keeps the rows of VALUES but does not show them; before version 17 their size is unknown.
_UNKNOWN_VALUES: Final = 1 << 24


class Plan(Struct, frozen=True):
    """The parts of EXPLAIN (VERBOSE) that a result depends on.

    `tables` are the tables that the plan reads, by schema and name. `texts` are all texts that can be
    expressions, each once. `hides` is true if nodes read data that the plan does not name, or if partitions
    were pruned. `cut` is true if texts were left out, so the expressions are not fully known. `weight` is
    about how many bytes of memory Postgres and the driver need to keep the statement prepared.
    """

    cost: float
    tables: frozenset[tuple[str, str]]
    texts: tuple[str, ...]
    hides: bool
    cut: bool
    weight: int


def read_plan(explained: bytes, sql: str, columns: int) -> Plan:
    """Read the JSON of EXPLAIN for `sql`; raises `QueryFailed` if the statement is not a SELECT."""
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
    """About how many bytes it takes to keep a statement prepared, estimated from its text alone."""
    return _PER_SQL_BYTE * len(sql)


def _bounded(texts: Iterator[str]) -> tuple[tuple[str, ...], bool]:
    """Each distinct text, and whether some texts were left out for their length."""
    distinct: dict[str, None] = {}
    left, cut = TEXTS_CHARS, False
    for text in texts:
        if text in distinct:
            continue
        if len(text) > min(TEXT_CHARS, left):
            cut = True
        else:
            distinct[text] = None
            left -= len(text)
    return tuple(distinct), cut


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [plan]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        yield node


def _texts(plan: dict[str, Any]) -> Iterator[str]:
    """Every text in a plan that can be an expression."""
    waiting: list[Any] = [plan]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += cast("dict[str, Any]", value).values()
        elif isinstance(value, list):
            waiting += cast("list[Any]", value)
