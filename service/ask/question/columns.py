"""The columns of the answer: groups, and measures of each group."""

from msgspec import structs

from service.ask.question.base import Base, Role, best_fit, has, moment_of, roles, spoken, unfitting
from service.ask.question.shapes import Group, Measure, Ref, Unclear
from service.ask.schema import Table
from service.ask.sentence.lexicon import Meaning, Mention
from service.ask.sentence.reading import Dimension, Measured, Reading
from service.ask.sentence.words import stem, stems

_SHARED = {
    stem(word)
    for word in (
        "price",
        "rate",
        "percent",
        "percentage",
        "ratio",
        "score",
        "age",
        "temperature",
        "rating",
        "margin",
        "duration",
    )
}
_NAMES = frozenset(stem(word) for word in ("name", "title", "label"))
_TOPIC_KINDS = ("type", "kind")


class Columns:
    """Resolves the names of a reading from its base table."""

    def __init__(self, base: Base, reading: Reading) -> None:
        self.base, self.reading = base, reading
        self.moment = moment_of(base, reading)

    def best(self, mention: Mention, role: Role) -> list[Meaning]:
        fit = best_fit(mention, role, self.base)
        if fit is None:
            raise Unclear(unfitting(mention, role, self.base))
        return fit[1]

    def key(self, table: Table) -> Ref:
        """The column that identifies a row of `table`; the base's own foreign key if it has one."""
        path = self.base.reach[table.key]
        if path and len(path[-1].reference.columns) == 1:
            return Ref(path[-1].child, path[-1].child.column(path[-1].reference.columns[0]))
        if len(table.primary_key) != 1:
            raise Unclear(f"{spoken(table.name)} has no single key column")
        return Ref(table, table.column(table.primary_key[0]))

    @staticmethod
    def kinds(topic: Meaning) -> list[Ref]:
        """The columns that only rows of this topic fill."""
        if topic.column is not None:
            return [Ref(topic.table, topic.column)]
        columns = [
            c
            for c in topic.table.columns
            if stems(c.name)[:1] == (stem(topic.topic),) and len(stems(c.name)) > 1
        ]
        if not all(c.partial for c in columns):
            return []
        typed = [c for c in columns if c.name.rsplit("_", 1)[-1] in _TOPIC_KINDS]
        return [Ref(topic.table, column) for column in typed[:1] or columns]

    def topics(self) -> list[Meaning]:
        found: list[Meaning] = []
        for mention, role in roles(self.reading):
            if role in {"subject", "counted", "amount", "scope", "moment"}:
                meaning = self.best(mention, role)[0]
                if meaning.kind == "topic" and meaning not in found:
                    found.append(meaning)
        return found

    # columns

    def groups(self) -> list[Group]:
        groups: list[Group] = []
        for index, dimension in enumerate(self.reading.dimensions):
            for group in self.group(dimension):
                if all((group.ref, group.unit) != (other.ref, other.unit) for other in groups):
                    groups.append(structs.replace(group, inner=index == 0))
        return groups

    def text_subject(self) -> Ref | None:
        """The column that a plain noun names, such as `channels`."""
        for subject in self.reading.subjects[:1]:
            if subject.mention:
                meaning = self.best(subject.mention, "subject")[0]
                column = meaning.column if meaning.kind == "column" else None
                if column is not None and not column.numeric and not column.dated:
                    return Ref(meaning.table, column)
        return None

    def group(self, dimension: Dimension) -> list[Group]:
        if dimension.time:
            if self.moment is None or (
                has(self.base.table, dimension.time) and not self.base.table.column(dimension.time).dated
            ):
                column = self.base.table.column(dimension.time)
                return [Group(Ref(self.base.table, column), column.name)]
            return [Group(self.moment, dimension.time, dimension.time)]
        if dimension.thing is None or dimension.thing.mention is None:
            raise Unclear("it does not say what to split by")
        role: Role = "dimension"
        meaning = self.best(dimension.thing.mention, role)[0]
        if meaning.column is None:
            return self.entity(meaning.table)
        ref = Ref(meaning.table, meaning.column)
        if meaning.column.dated:
            return [Group(ref, "day", "day")]
        return [Group(ref, meaning.column.name)]

    def entity(self, table: Table) -> list[Group]:
        key = self.key(table)
        groups = [Group(key, key.column.name)]
        texts = (column for column in table.columns if column.kind == "text")
        name = next((column for column in texts if stems(column.name)[-1] in _NAMES), None)
        if name is not None and name != key.column:
            groups.append(Group(Ref(table, name), name.name))
        return groups

    def measures(self) -> list[Measure]:
        reading = self.reading
        said = list(reading.measures)
        named = reading.subjects[0] if reading.recent and reading.subjects else None
        if named and named.mention and (best := self.best(named.mention, "subject")[0].column) and best.dated:
            reading.when = True
        if not said and reading.when:
            said = [
                Measured(
                    "max" if reading.recent == "desc" else "min",
                    reading.subjects[0] if reading.subjects else None,
                )
            ]
        if not said and not reading.listing and not reading.asked and not reading.recent:
            said = [Measured(None, subject) for subject in reading.subjects[:1]] or [Measured("count")]
        made = [self._measure(measured) for measured in said]
        names: dict[str, int] = {}
        unique: list[Measure] = []
        for measure in made:
            names[measure.name] = names.get(measure.name, 0) + 1
            count = names[measure.name]
            unique.append(structs.replace(measure, name=f"{measure.name}_{count}") if count > 1 else measure)
        return unique

    def _measure(self, said: Measured) -> Measure:
        if said.time:
            if self.moment is None:
                raise Unclear(f"{spoken(self.base.table.name)} has no date to count {said.time}s of")
            return Measure("count", self.moment, f"{said.time}s", distinct=True, unit=said.time)
        meaning = self._meant(said)
        column = meaning.column if meaning is not None and meaning.kind == "column" else None
        if meaning is not None and column is not None:
            return self._column(said, Ref(meaning.table, column))
        if self.reading.when and self.moment:
            return Measure(said.function or "max", self.moment, "date")
        return self._rows(said, meaning)

    def _meant(self, said: Measured) -> Meaning | None:
        """The meaning that a function applies to: its own column, else the subject's. None for rows."""
        thing, function = said.thing, said.function
        if thing is None and function and self.reading.subjects:
            counts = function == "count" and self.text_subject() is not None  # `channel counts`, per channel
            thing = None if counts else self.reading.subjects[0]
        if thing is None or thing.mention is None:
            return None
        counted = function in {None, "count", "sum"} or said.distinct
        role: Role = "moment" if self.reading.when else "counted" if counted else "amount"
        return self.best(thing.mention, role)[0]

    def _column(self, said: Measured, ref: Ref) -> Measure:
        function, outer, column = said.function, said.outer, ref.column
        if said.distinct:
            return Measure("count", ref, f"distinct_{column.name}", distinct=True)
        if column.dated and function in {"min", "max"}:
            return Measure(function, ref, f"{function}_{column.name}")
        if not column.numeric or ref.table.is_key(column.name):
            if function in {None, "count", "sum"}:
                whole = function is None
                return Measure(
                    "count",
                    None if whole else ref,
                    "count" if whole else f"distinct_{column.name}",
                    distinct=not whole,
                )
            raise Unclear(f"{column.name} is no number to take the {function} of")
        if function is None and self._is_extreme():
            function = "max" if self.reading.direction == "desc" else "min"
        if function is None:
            function = "avg" if set(stems(column.name)) & _SHARED else "sum"
        if outer and function == "count" and not self.reading.dimensions:
            function, outer = outer, None  # `the largest number of parts flagged`: in one row
        if function == "count" and column.kind == "integer":
            function = "sum"
        prefix = {"sum": "total", "avg": "average", "min": "lowest", "max": "highest", "count": "count"}[
            function
        ]
        return Measure(function, ref, f"{prefix}_{column.name}", outer=outer)

    def _is_extreme(self) -> bool:
        """In `the most units sold in June` nothing is ranked: it means the largest value of a row."""
        reading = self.reading
        ranked = reading.dimensions or reading.asked or reading.limit or reading.order
        return reading.direction is not None and not ranked

    def _rows(self, said: Measured, meaning: Meaning | None) -> Measure:
        """Count rows of the base, or distinct rows that it refers to."""
        function, outer = said.function, said.outer
        if function is None and self._is_extreme():  # `the most alerts in June`
            function = "max"
        if function in {"avg", "min", "max"}:
            named = next(
                (
                    c
                    for c in self.base.table.columns
                    if said.thing is None and c.numeric and stems(c.name) == (stem(_ENGLISH[function]),)
                ),
                None,
            )
            if named:
                return Measure("sum", Ref(self.base.table, named), named.name)
            outer, function = function, "count"
        what = "count"
        if meaning is not None and meaning.kind in {"table", "value"}:
            what = f"{plain(meaning.table.name)}"
            if self.base.distance(meaning.table):
                return Measure("count", self.key(meaning.table), f"{what}_count", distinct=True, outer=outer)
        if meaning is not None and meaning.kind == "topic" and len(self.reading.measures) > 1:
            kinds = self.kinds(meaning)
            return Measure(
                "count", kinds[0] if len(kinds) == 1 else None, f"{meaning.topic}_count", outer=outer
            )
        return Measure("count", None, "count", outer=outer)


_ENGLISH = {"avg": "average", "min": "minimum", "max": "maximum", "sum": "total", "count": "count"}


def plain(name: str) -> str:
    return name.split("_of_", maxsplit=1)[0]
