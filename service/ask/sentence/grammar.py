"""The grammar: one pass from left to right, in which each word changes the state so far.

`question` decides which table a word belongs to, once the whole sentence is read.
"""

from msgspec import structs

from service.ask.sentence.dates import unit_named
from service.ask.sentence.names import Names
from service.ask.sentence.reading import Bound, Dimension, Measured, Reading, Thing
from service.ask.sentence.tokens import Keyword, Token

_AUXILIARY_WORDS = "is are was were s the a an about will would be how , ?"
_AUXILIARY = frozenset(_AUXILIARY_WORDS.split())


def read(sentence: list[Token]) -> Reading:
    """Fold the tokens into one reading."""
    ordered = _participles_last(sentence)
    reader = _Reader(ordered)
    for index, token in enumerate(ordered):
        reader.take(index, token)
    return reader.finish()


class _Reader(Names):
    def take(self, index: int, token: Token) -> None:
        if token.window:
            self.reading.windows.append(token.window)
            self.slot = "rest" if self.slot in {"by", "order"} else self.slot
        elif token.number is not None:
            self.take_number(index, token.number)
        elif token.mention:
            self.take_mention(index, token.mention)
        elif token.keyword:
            self._keyword(index, token.keyword)
        else:
            self.reading.unknown.append(token.text)
        joins = token.role in {"and", "versus"}
        self.joined = joins or (self.joined and token.role in {"empty", "by", "every", "distinct", "not"})

    def finish(self) -> Reading:
        reading = self.reading
        reading.listing = "list" in self.said
        reading.shown = "show" in self.said
        reading.when = "when" in self.said
        reading.whole = "whole" in self.said
        if self.pending:
            self.close_pending()
        if self.over_time and not any(dimension.time for dimension in reading.dimensions):
            reading.dimensions.append(Dimension(time="day"))
        if "by-name" in self.said and reading.dimensions:
            reading.order = reading.order or reading.dimensions[0]
        if reading.recent and reading.limit is None and reading.subjects:
            reading.limit = 10 if _plural(reading.subjects[0].text) else 1
        if "single" in self.said:
            reading.measures = [_of_groups(measure) for measure in reading.measures]
            reading.limit = reading.limit or (1 if reading.direction else None)
        if "contrast" in self.said and reading.chosen:
            first = reading.chosen[0].mention
            reading.dimensions.append(Dimension(Thing(first, first.text)))
        self._finish_numbers()
        return reading

    def _finish_numbers(self) -> None:
        """Use or report a number that no word has used."""
        reading = self.reading
        if self.number is not None:
            self.use_number_as_limit()
        if self.bound is not None and self.last is not None:
            reading.bounds.append(Bound(*self.bound))
        elif self.bound is not None:
            reading.unknown.append(f"{self.bound[0]} {self.bound[1]:g}")
        if self.operator is not None:
            reading.unknown.append(self.operator)

    # asking words

    def _keyword(self, index: int, keyword: Keyword) -> None:
        handler = {
            "aggregate": self._aggregate,
            "by": self._by,
            "every": self._every,
            "grain": self._grain,
            "time": self._time,
            "single": self._single,
            "superlative": self._superlative,
            "extreme": self._extreme,
            "common": self._common,
            "top": self._top,
            "rank": self._rank,
            "which": self._which,
            "what": self._what,
            "compare": self._compare,
            "order": self._order,
            "direction": self._direction,
            "recent": self._recent,
            "rows": self._rows,
            "versus": self._versus,
            "distinct": self._distinct,
            "not": self._not,
            "vague": self._vague,
            "link": self._link,
        }.get(keyword.role)
        if handler:
            handler(index, keyword.what)
        else:  # list, show, when, contrast, by-name, whole, empty: what matters is that it was said
            self.said.add(keyword.role)

    def _distinct(self, _index: int, _what: str) -> None:
        self.distinct = True

    def _not(self, _index: int, _what: str) -> None:
        self.negated = True

    def _vague(self, index: int, _what: str) -> None:
        self.reading.ignored.append(self.sentence[index].text)

    def _link(self, _index: int, _what: str) -> None:
        """`in`, `for` and `with` end a list of dimensions, and the subject."""
        if self.slot in {"by", "ranked"} and self.filled:
            self.slot, self.filled = ("subject" if self.slot == "ranked" else "rest"), False
        elif self.slot == "subject" and (self.reading.subjects or self.reading.measures):
            self.slot = "rest"

    def _aggregate(self, index: int, function: str) -> None:
        reading = self.reading
        before = self.previous(index)
        composed = (
            bool(self.pending)
            and not self.joined
            and before is not None
            and before.role in {"aggregate", "extreme", "superlative", "grain"}
        )
        if self.slot == "order":
            reading.direction = reading.direction or "desc"
            if reading.measures or (reading.subjects and reading.dimensions):
                self.slot = "rest"
                return
            self.subjects_to_dimensions()
            self.pending.append((function, False))
            self.slot = "subject"
            return
        if self.slot == "by" and not self.filled:
            self.subjects_to_dimensions()
            reading.direction = reading.direction or "desc"
        following = self.following(index)
        named = following is not None and (following.mention is not None or following.role == "distinct")
        if self.joined and named and reading.subjects and not reading.measures:
            reading.measures = [Measured("count", subject) for subject in reading.subjects]
            reading.subjects = []
        if (
            self.slot == "rest"
            and self.bound is None
            and reading.subjects
            and not self.joined
            and not reading.measures
            and before
            and before.role == "link"
        ):
            # `customers with a total of`, `orders in total`
            self.slot = "subject"
        if self.bound is not None:
            self.subjects_to_dimensions()
            reading.bounds.append(Bound(*self.bound))
            self.bound = None
            reading.asked = True
        self.pending.append((function, composed))
        self.slot = "subject" if self.slot in {"by", "rest", "ranked"} else self.slot
        self.filled = False

    def _by(self, _index: int, _what: str) -> None:
        if (
            self.ranking
            and self.reading.dimensions
            and not self.reading.measures
            and not self.reading.subjects
        ):
            self.slot, self.ranking = "measure", False
            return
        self._split()

    def _every(self, index: int, _what: str) -> None:
        following = self.following(index)
        if following and (following.mention or following.role in {"time", "rows"}):
            self._split()

    def _split(self) -> None:
        if self._average_of_totals():
            return
        if self.pending and (self.reading.measures or self.reading.subjects):
            self.close_pending(None if self.reading.measures else self.reading.subjects[-1])
        self.slot, self.filled = "by", False

    def _average_of_totals(self) -> bool:
        """`total units sold and average per day` are two numbers over the days' totals."""
        measures = self.reading.measures
        if (
            self.pending != [("avg", False)]
            or len(measures) != 1
            or measures[0].function not in {"sum", "count"}
        ):
            return False
        self.pending = []
        total = structs.replace(measures[0], outer="sum")
        self.reading.measures = [total, structs.replace(total, outer="avg")]
        self.slot, self.filled = "by", False
        return True

    def _grain(self, _index: int, unit: str) -> None:
        if not unit:  # `over time` leaves the unit open
            self.over_time = True
            return
        self.reading.dimensions.append(Dimension(time=unit_named(unit)))
        if self.slot == "by" and not self.filled:
            self.filled = True

    def _single(self, index: int, unit: str) -> None:
        self._grain(index, unit)
        self.said.add("single")

    def _time(self, index: int, unit: str) -> None:
        reading = self.reading
        if self.number is not None and self.slot in {"ranked", "subject"}:
            self.use_counted_number()
        if self.slot in {"by", "ranked"} and (not self.filled or self.joined):
            reading.dimensions.append(Dimension(time=unit_named(unit)))
            self.filled = True
        elif self.slot == "order":
            reading.order = Dimension(time=unit_named(unit))
            self.slot = "rest"
        elif self.pending and self.pending[-1][0] == "count":
            self.pending.pop()
            reading.measures.append(Measured("count", time=unit_named(unit), distinct=True))
        elif (
            self.slot == "subject"
            and not reading.subjects
            and not reading.measures
            and self._ranked_later(index)
        ):
            reading.dimensions.append(Dimension(time=unit_named(unit)))
            self.ranking = True
        elif not (reading.dimensions and reading.dimensions[-1].time == unit):
            reading.unknown.append(self.sentence[index].text)

    def _ranked_later(self, index: int) -> bool:
        roles = {"superlative", "extreme", "compare"}
        return any(token.role in roles for token in self.sentence[index + 1 :])

    def _superlative(self, index: int, direction: str) -> None:
        reading = self.reading
        reading.direction = "desc" if direction == "desc" else "asc"
        if self.number is not None:
            self.use_counted_number()
        following = self.following(index)
        if reading.dimensions or reading.subjects:
            if not reading.dimensions:
                self.subjects_to_dimensions()
            else:
                reading.scopes += reading.subjects
                reading.subjects = []
            reading.limit = reading.limit or (1 if self._singular_asked(index) else 10)
            reading.asked = False
            if following is None or following.role in {"link", "by"}:
                self.slot = "rest"
            else:
                self.slot = "measure"
            self.ranking = False
        else:
            self.slot = "subject"

    def _singular_asked(self, index: int) -> bool:
        dimension = self.reading.dimensions[0]
        if dimension.thing and dimension.thing.mention:
            return not _plural(dimension.thing.text)
        return not any(t.role == "time" and t.text.casefold().endswith("s") for t in self.sentence[:index])

    def _extreme(self, index: int, direction: str) -> None:
        reading = self.reading
        before, following = self.previous(index), self.following(index)
        held = before is not None and before.role == "link" and bool(reading.subjects or reading.dimensions)
        if self.number is not None:
            self.use_counted_number()
        if (self.ranking and reading.dimensions) or (held and not reading.measures and not self.pending):
            self._superlative(index, direction)
        elif following and following.role == "direction":
            self.reading.direction = "desc" if direction == "desc" else "asc"
        else:
            self.pending.append(("max" if direction == "desc" else "min", False))

    def _common(self, index: int, direction: str) -> None:
        reading = self.reading
        reading.active = direction.startswith("active")
        reading.direction = "asc" if direction.endswith("asc") else "desc"
        if self.number is not None:
            self.use_counted_number()
        following = self.following(index)
        named = following is not None and (
            following.mention is not None or following.role in {"time", "distinct"}
        )
        if named and not self.ranking:
            limit = 10 if following and following.text.casefold().endswith("s") else 1
            reading.limit = reading.limit or limit
            self.slot, self.filled = "ranked", False
            return
        self.subjects_to_dimensions()
        if reading.dimensions:
            reading.limit = reading.limit or (1 if self._singular_asked(index) else 10)
            reading.asked = False
            self.slot = "rest"

    def _top(self, index: int, direction: str) -> None:
        reading = self.reading
        reading.direction = "desc" if direction == "desc" else "asc"
        following = self.sentence[index + 1] if index + 1 < len(self.sentence) else None
        if following is None or following.number is None:
            name = following.text.casefold() if following and (following.mention or following.keyword) else ""
            reading.limit = 10 if name.endswith("s") else 1
        self.slot, self.filled, self.ranking = "ranked", False, True

    def _rank(self, _index: int, direction: str) -> None:
        self.reading.direction = "desc" if direction == "desc" else "asc"
        self.slot, self.filled, self.ranking = "ranked", False, True

    def _which(self, _index: int, _what: str) -> None:
        if self.reading.subjects or self.reading.measures:
            return
        self.slot, self.filled, self.ranking = "ranked", False, True
        self.reading.asked = True

    def _what(self, index: int, what: str) -> None:
        following = self.sentence[index + 1] if index + 1 < len(self.sentence) else None
        if (
            following
            and following.words[0].text not in _AUXILIARY
            and (following.mention or following.role == "time")
        ):
            self._which(index, what)

    def _compare(self, index: int, operator: str) -> None:
        following = self.sentence[index + 1] if index + 1 < len(self.sentence) else None
        if following and following.number is not None:
            self.operator = operator
        elif operator in {"=", "<>"}:
            self.negated = operator == "<>"
        elif operator in {">", "<"} and following and following.text in {"the", "all"}:
            return
        else:
            self.reading.unknown.append(self.sentence[index].text)

    def _order(self, _index: int, _what: str) -> None:
        self.slot, self.filled = "order", False

    def _direction(self, _index: int, direction: str) -> None:
        self.reading.direction = "desc" if direction == "desc" else "asc"

    def _recent(self, index: int, direction: str) -> None:
        following = self.following(index)
        if following and (following.mention or following.number is not None or following.role == "rows"):
            self.reading.recent = "desc" if direction == "desc" else "asc"
        else:
            self.reading.unknown.append(self.sentence[index].text)

    def _rows(self, index: int, _what: str) -> None:
        if self.bound is not None:
            self.subjects_to_dimensions()
            self.reading.bounds.append(Bound(*self.bound))
            self.bound = None
            self.reading.asked = True
        elif self.pending:
            following = self.following(index)
            before = self.previous(index)
            if not (
                following
                and following.mention
                and before
                and before.role == "aggregate"
                and self.pending[-1][0] != "count"
            ):
                self.close_pending(Thing(None, self.sentence[index].text))
        elif not self.reading.subjects and self.slot == "subject":
            self.reading.subjects.append(Thing(None, self.sentence[index].text))

    def _versus(self, index: int, _what: str) -> None:
        before, after = self.previous(index), self.following(index)
        if before and after and before.mention and after.mention:
            self.reading.dimensions.append(Dimension(Thing(after.mention, after.text)))
        else:
            self.reading.unknown.append(self.sentence[index].text)


def _participles_last(sentence: list[Token]) -> list[Token]:
    """Read `most ordered products` as `products most ordered`."""
    ordered = [*sentence]
    for at, (first, second, third) in enumerate(zip(sentence, sentence[1:], sentence[2:], strict=False)):
        rows = second.mention and second.mention.meanings[0].kind == "table" and third.mention
        if first.role == "superlative" and rows and second.text.casefold().endswith("ed"):
            ordered[at : at + 3] = third, first, second
    return ordered


def _of_groups(measure: Measured) -> Measured:
    """`the most units sold in a single day` is the largest of the days' totals."""
    if measure.function in {"min", "max"} and measure.outer is None:
        return structs.replace(measure, function="sum", outer=measure.function)
    return measure


def _plural(text: str) -> bool:
    last = text.casefold().split()[-1]
    return last.endswith("s") and not last.endswith(("ss", "us", "is"))
