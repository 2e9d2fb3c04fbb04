"""The first half of the grammar: the roles of names, values and numbers."""

from typing import Literal

from service.ask.sentence.lexicon import Mention
from service.ask.sentence.reading import Bound, Chosen, Dimension, Measured, Reading, Thing
from service.ask.sentence.tokens import SILENT, Role, Token

Slot = Literal["subject", "by", "ranked", "measure", "order", "rest"]


class Names:
    """State of the fold. `slot` is the role of the next name."""

    def __init__(self, sentence: list[Token]) -> None:
        self.sentence = sentence
        self.reading = Reading()
        self.slot: Slot = "subject"
        self.pending: list[
            tuple[str, bool]
        ] = []  # functions without their column; True: composed with the one before
        self.distinct = False
        self.negated = False
        self.joined = False
        self.filled = False  # the list after `by` has its name and goes on only after a comma or `and`
        self.ranking = False  # a `top` or `which` waits for what it ranks by
        self.number: float | None = None
        self.bound: tuple[str, float] | None = None
        self.operator: str | None = None
        self.last: Thing | None = None
        self.over_time = False
        self.said: set[Role] = set()

    def previous(self, index: int) -> Token | None:
        """The previous token, without silent words."""
        return next((t for t in reversed(self.sentence[:index]) if t.role not in SILENT), None)

    def following(self, index: int) -> Token | None:
        return next((t for t in self.sentence[index + 1 :] if t.role not in SILENT), None)

    # numbers

    def take_number(self, index: int, number: float) -> None:
        before = self.previous(index)
        if self.operator is not None:
            self._compared(index, self.operator, number)
            self.operator = None
        elif before and (before.role in {"top", "recent"} or (before.text in {"#", "="} and not self.last)):
            self.limit(number)
        elif before and self.last and self.last.mention and _keyed(before):
            self._unname(self.last.mention)
            self.reading.bounds.append(Bound("=", number, self.last))
        else:
            self.number = number

    def limit(self, number: float) -> None:
        if number == int(number) and 1 <= number <= 10_000:  # noqa: PLR2004 (no result holds more)
            self.reading.limit = int(number)
        else:
            self.reading.unknown.append(f"{number:g}")

    def use_number_as_limit(self) -> None:
        reading, number = self.reading, self.number
        self.number = None
        if (
            number is not None
            and (reading.direction or reading.listing or reading.recent)
            and reading.limit is None
        ):
            self.limit(number)
        elif number is not None:
            reading.unknown.append(f"{number:g}")

    def _compared(self, index: int, operator: str, number: float) -> None:
        before = next(
            (t for t in reversed(self.sentence[:index]) if t.role not in SILENT | {"link", "compare"}),
            None,
        )
        if before and before.mention and _numeric(before.mention):
            thing = Thing(before.mention, before.text)
            measure = self.reading.measures[-1] if self.reading.measures else None
            if measure and measure.thing == thing:
                if measure.function is None:
                    self.reading.measures.pop()
                    self.reading.bounds.append(Bound(operator, number, thing))
                else:
                    self.reading.bounds.append(Bound(operator, number))
                return
            self.reading.bounds.append(Bound(operator, number, thing))
            return
        self.bound = (operator, number)

    # names

    def take_mention(self, index: int, mention: Mention) -> None:
        if mention.misspelt:
            self.reading.corrected.append(mention.misspelt)
        if self._merge_value(index, mention):
            return
        thing = Thing(mention, mention.text)
        value = mention.meanings[0].kind == "value" or (_flag(mention) and self.slot not in {"by", "order"})
        if value or (self.negated and any(m.kind == "value" for m in mention.meanings)):
            self._value(index, mention)
            return
        if self.negated:
            self.negated = False
            if any(m.kind == "table" for m in mention.meanings) and self.reading.missing is None:
                self.reading.missing = thing
                return
            self.reading.unknown.append("not")
        self._name(thing)

    def _value(self, index: int, mention: Mention) -> None:
        self.reading.chosen.append(Chosen(mention, self.negated))
        if self.pending and not self.negated and self._stands_alone(index):
            self.close_pending(Thing(None if _flag(mention) else mention, mention.text))
        if self.slot in {"by", "order"} and not self.filled:
            self.slot = "rest"
        after = self.following(index)
        if after is None or after.role != "and":
            self.negated = False

    def _stands_alone(self, index: int) -> bool:
        """Whether the value itself is counted (`how many calls`), and does not describe a noun after it."""
        for token in self.sentence[index + 1 :]:
            if (token.mention and token.mention.meanings[0].kind != "value") or token.role == "rows":
                return False
            if not token.mention and token.role not in {"and", "versus"}:
                return True
        return True

    def _merge_value(self, index: int, mention: Mention) -> bool:
        """In `status Paid` and `Paid status` the column only tells where to find the value."""
        before = next((t for t in reversed(self.sentence[:index]) if not _transparent(t)), None)
        if before is None or before.mention is None:
            return False
        if {before.mention.meanings[0].kind, mention.meanings[0].kind} != {"column", "value"}:
            return False
        left, right = before.mention, mention
        for column, value, column_first in ((left, right, True), (right, left, False)):
            pairs = {
                (m.table.key, m.column.name)
                for m in column.meanings
                if m.kind == "column" and m.column and m.column.kind == "text"
            }
            fits = [
                m
                for m in value.meanings
                if m.kind == "value" and m.column and (m.table.key, m.column.name) in pairs
            ]
            if (
                not fits
                or (column_first and self._splits(column))
                or (not column_first and self.slot == "by" and not self.filled)
            ):
                continue
            named = Mention(value.first, value.end, value.text, tuple(fits))
            if column_first:
                self._unname(column)
                self.reading.chosen.append(Chosen(named, self.negated, column))
                self.negated = False
            elif self.reading.chosen and self.reading.chosen[-1].mention is value:
                self.reading.chosen[-1] = Chosen(named, self.reading.chosen[-1].negated, column)
                self._scope(column)
            else:
                continue
            return True
        return False

    def _splits(self, column: Mention) -> bool:
        """Whether the column was named to split by: `by country, France only` keeps both."""
        dimensions = self.reading.dimensions
        return (
            bool(dimensions)
            and dimensions[-1].thing is not None
            and dimensions[-1].thing.mention is column
            and len(dimensions) > 1
        )

    def _unname(self, column: Mention) -> None:
        reading = self.reading

        def other(thing: Thing | None) -> bool:
            return thing is None or thing.mention is not column

        reopened = [m for m in reading.measures if not other(m.thing)]
        reading.measures = [m for m in reading.measures if other(m.thing)]
        reading.subjects = [thing for thing in reading.subjects if other(thing)]
        reading.loose = [thing for thing in reading.loose if other(thing)]
        reading.dimensions = [d for d in reading.dimensions if other(d.thing)]
        self.pending += [(m.function, False) for m in reopened if m.function]
        self._scope(column)

    def _scope(self, column: Mention) -> None:
        thing = Thing(column, column.text)
        if thing not in self.reading.scopes:
            self.reading.scopes.append(thing)

    def _name(self, thing: Thing) -> None:
        self.last = thing
        if self.number is not None:
            self.use_counted_number()
        if self.slot in {"by", "ranked"} and (not self.filled or self.joined):
            self.reading.dimensions.append(Dimension(thing))
            self.filled = True
        elif self.slot == "order":
            self.reading.order = Dimension(thing)
            self.slot = "rest"
        else:
            self._subject(thing)

    def use_counted_number(self) -> None:
        """`5 customers with the most orders`."""
        number, self.number = self.number, None
        if number is not None:
            self.limit(number)

    def _subject(self, thing: Thing) -> None:
        reading = self.reading
        numeric = thing.mention is not None and _numeric(thing.mention)
        counted = bool(reading.measures) and reading.measures[-1].function == "count"
        if self.bound is not None:
            self._bounded(self.bound, thing, numeric=numeric)
            self.bound = None
            return
        if self.pending:
            self.close_pending(thing)
        elif numeric and self._named_already(thing):
            return
        elif numeric or self.distinct or (self.slot == "measure" and not reading.measures):
            reading.measures.append(Measured(None, thing, distinct=self.distinct))
        elif self.slot == "rest":
            self._scope_thing(thing)
        elif self.joined and counted:
            reading.measures.append(Measured("count", thing))
        else:
            reading.subjects.append(thing)
        self.distinct = False

    def _bounded(self, bound: tuple[str, float], thing: Thing, *, numeric: bool) -> None:
        """Compare `more than 5` with a column in each row, or with the number of rows in each group."""
        reading = self.reading
        if reading.measures and not reading.subjects and not reading.dimensions and not numeric:
            counted = reading.measures.pop()
            reading.dimensions, reading.counted = [Dimension(counted.thing, counted.time)], True
        grouped = bool(reading.dimensions or reading.subjects)
        if (numeric and not (self.ranking or reading.asked)) or not grouped:
            reading.bounds.append(Bound(*bound, thing))
            return
        self.subjects_to_dimensions()
        reading.bounds.append(Bound(*bound))
        reading.measures.append(Measured(None, thing))
        reading.asked = True

    def _named_already(self, thing: Thing) -> bool:
        """Whether the name repeats the last measure, as in `cost that we spent` for one column."""
        last = self.reading.measures[-1].thing if self.reading.measures else None
        return bool(
            last
            and last.mention
            and thing.mention
            and last.mention.meanings[0].column == thing.mention.meanings[0].column
        )

    def _scope_thing(self, thing: Thing) -> None:
        reading = self.reading
        if reading.subjects or reading.measures or reading.dimensions:
            reading.loose.append(thing)
        else:
            reading.subjects.append(thing)

    def close_pending(self, thing: Thing | None = None) -> None:
        """Give the pending functions their column, or the column named before them."""
        reading = self.reading
        functions, self.pending = self.pending, []
        plain: list[tuple[str, str | None]] = []
        for function, composed in functions:
            if composed and plain:
                outer = plain.pop()[0]
                plain.append((function, None if outer == "sum" and function == "count" else outer))
            else:
                plain.append((function, None))
        for function, outer in plain:
            bare = next((i for i, m in enumerate(reading.measures) if m.function is None), None)
            if thing is None and bare is not None:
                known = reading.measures[bare]
                reading.measures[bare] = Measured(function, known.thing, known.time, known.distinct, outer)
            elif thing is None and function == "count" and reading.measures:
                continue  # `smallest flagged count`
            elif thing is None and reading.measures and reading.measures[-1].thing:
                reading.measures.append(
                    Measured(function, reading.measures[-1].thing, None, self.distinct, outer)
                )
            else:
                reading.measures.append(Measured(function, thing, None, self.distinct, outer))
        self.distinct = False

    def subjects_to_dimensions(self) -> None:
        reading = self.reading
        if reading.subjects and not reading.dimensions:
            reading.dimensions = [Dimension(reading.subjects[-1])]
            reading.subjects = reading.subjects[:-1]


def _numeric(mention: Mention) -> bool:
    best = mention.meanings[0]
    return (
        best.kind == "column"
        and best.column is not None
        and best.column.numeric
        and not best.table.is_key(best.column.name)
    )


def _flag(mention: Mention) -> bool:
    best = mention.meanings[0]
    return best.column is not None and best.kind == "column" and best.column.kind == "boolean"


def _keyed(token: Token) -> bool:
    """Whether a number after this token can be the number of a thing: `customer 4`, `customer #4`."""
    return token.mention is not None or token.text.casefold() in {"#", "number", "no", "id"}


def _transparent(token: Token) -> bool:
    text = token.text.casefold()
    return token.role in SILENT or text in {
        "is",
        "are",
        "was",
        "were",
        "of",
        "=",
        "equals",
        ":",
        "as",
        "equal to",
        "-",
        "not",
        "is not",
        "are not",
    }
