"""A read prompt: the role of each name in the sentence, before names get their meaning."""

from typing import Literal

from msgspec import Struct, field

from service.ask.sentence.dates import Unit, Window
from service.ask.sentence.lexicon import Mention

Direction = Literal["asc", "desc"]


class Thing(Struct, frozen=True):
    """A name of the schema in a prompt. `mention` is None for words such as `records`."""

    mention: Mention | None
    text: str


class Measured(Struct, frozen=True):
    """One measured column. `outer` aggregates over the groups of the first dimension."""

    function: str | None
    thing: Thing | None = None
    time: Unit | None = None
    distinct: bool = False
    outer: str | None = None


class Dimension(Struct, frozen=True):
    thing: Thing | None = None
    time: Unit | None = None


class Chosen(Struct, frozen=True):
    """Rows whose column has a named value, or, `negated`, has another one."""

    mention: Mention
    negated: bool = False
    column: Mention | None = None


class Bound(Struct, frozen=True):
    """A number that is compared with a column, a key, or (`thing` None) the measure of each group."""

    operator: str
    number: float
    thing: Thing | None = None


class Reading(Struct):
    """The parts of a read prompt."""

    measures: list[Measured] = field(default_factory=list)
    subjects: list[Thing] = field(default_factory=list)
    dimensions: list[Dimension] = field(default_factory=list)
    chosen: list[Chosen] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    missing: Thing | None = None
    loose: list[Thing] = field(default_factory=list)
    scopes: list[Thing] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    direction: Direction | None = None
    order: Dimension | None = None
    limit: int | None = None
    asked: bool = False  # which ...: only the dimension itself is wanted, unless it is ranked
    listing: bool = False
    shown: bool = False  # `show ...`: rows, where there are no days to count by
    active: bool = False  # ranked by the rows that refer to it
    recent: Direction | None = None
    when: bool = False
    whole: bool = False  # `overall`: one number, where a plain noun would be drawn day by day
    counted: bool = False  # how many groups pass the bound, not which
    unknown: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
