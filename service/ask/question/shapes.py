"""A question that one SELECT answers."""

from msgspec import Struct

from service.ask.schema import Column, ForeignKey, Table
from service.ask.sentence.dates import Unit, Window
from service.ask.sentence.reading import Bound, Direction

OUTER = {"avg": "average", "min": "lowest", "max": "highest", "sum": "total"}
"""Words for functions over groups."""


class Unclear(ValueError):  # noqa: N818 (it is an answer, not a fault)
    """The schema cannot answer the prompt, or not in one way. The text tells why."""


class Ref(Struct, frozen=True):
    table: Table
    column: Column


class Join(Struct, frozen=True):
    child: Table
    reference: ForeignKey
    parent: Table


class Group(Struct, frozen=True):
    """`unit` truncates a date column; `name` is the heading; an average is taken over `inner` groups."""

    ref: Ref
    name: str
    unit: Unit | None = None
    inner: bool = False


class Measure(Struct, frozen=True):
    """`count` without a column counts rows; `outer` aggregates the groups' values once more."""

    function: str
    ref: Ref | None
    name: str
    distinct: bool = False
    outer: str | None = None
    unit: Unit | None = None


class Condition(Struct, frozen=True):
    """`operator`: in, not in, not null, any not null (of `others` too), missing, or a comparison."""

    ref: Ref
    operator: str
    values: tuple[str | float, ...] = ()
    others: tuple[Ref, ...] = ()


class Question(Struct, frozen=True, kw_only=True):
    """All that SQL and title are built from."""

    base: Table
    joins: tuple[Join, ...]
    measures: tuple[Measure, ...]
    groups: tuple[Group, ...]
    conditions: tuple[Condition, ...]
    having: tuple[Bound, ...] = ()
    window: Window | None = None
    moment: Ref | None = None
    direction: Direction | None = None
    order: Group | None = None
    limit: int | None = None
    listed: tuple[Ref, ...] = ()
    counted: bool = False
    noun: str = ""
