"""Resolve a reading against the schema: each name gets a table and column, or the question is unclear."""

import operator

from service.ask.question.base import Base, Role, best_fit, reach, roles, scored, spoken
from service.ask.question.columns import Columns, plain
from service.ask.question.shapes import Condition, Group, Join, Measure, Question, Ref, Unclear
from service.ask.schema import Column, Schema
from service.ask.sentence.lexicon import PARTIAL, Meaning
from service.ask.sentence.reading import Dimension, Reading
from service.ask.sentence.words import stem, stems


def resolve(reading: Reading, schema: Schema) -> Question:
    """Decide the meaning of all names. Raises `Unclear` if none fits, or several."""
    if len(reading.windows) > 1:
        raise Unclear("it names several windows of time: ask for one")
    candidates = [scored(Base(table, reach(table, schema)), reading) for table in schema.tables]
    fitting = [base for base in candidates if not base.problem]
    if not fitting:
        problems = [base.problem for base in sorted(candidates, key=lambda b: -b.score) if base.own]
        raise Unclear(problems[0] if problems else "it names no table or column of the data")
    best = max(fitting, key=operator.attrgetter("score"))
    return _Resolver(best, reading).question()


class _Resolver(Columns):
    """Turns each part of the reading into references."""

    def __init__(self, base: Base, reading: Reading) -> None:
        super().__init__(base, reading)
        self.used: dict[tuple[str, str], tuple[Join, ...]] = {}

    def question(self) -> Question:
        reading = self.reading
        self._place_loose()
        self._list_different()
        conditions = [*self._chosen(), *self._bounded(), *self._missing()]
        groups = self.groups()
        measures = self.measures()
        groups, measures, listed = self._shape(groups, measures)
        conditions += self._present(groups, measures, conditions)
        self._one_kind(measures, conditions)
        if not groups and any(bound.thing is None for bound in reading.bounds):
            raise Unclear(
                "it compares with a number, but does not say what: name a column or what to count per"
            )
        if reading.limit and reading.limit > 1 and not groups and not listed:
            raise Unclear(f"it asks for {reading.limit} of them, but does not say what they are")
        order, direction = self._ordered(groups, measures), reading.direction
        if order is None and reading.order is not None:
            direction = direction or "desc"
        for ref in (
            [c.ref for c in conditions]
            + [g.ref for g in groups]
            + [m.ref for m in measures if m.ref]
            + list(listed)
        ):
            self._use(ref)
        window = reading.windows[0] if reading.windows else None
        if window and self.moment:
            self._use(self.moment)
        return Question(
            base=self.base.table,
            joins=self._joins(),
            measures=tuple(measures),
            groups=tuple(groups),
            conditions=tuple(conditions),
            having=tuple(bound for bound in reading.bounds if bound.thing is None),
            window=window,
            moment=self.moment,
            direction=direction or (reading.recent if listed else None),
            order=order,
            limit=reading.limit if reading.direction or listed or reading.recent else None,
            listed=tuple(listed),
            counted=reading.counted,
            noun=self._noun(),
        )

    def _place_loose(self) -> None:
        """Split by a column that stands beside its table. Other loose names are unclear."""
        reading = self.reading
        extra = [*reading.subjects[1:], *reading.loose]
        for thing in extra:
            if thing.mention is None:
                continue
            meaning = self.best(thing.mention, "scope")[0]
            if meaning.kind != "column" or meaning.column is None or meaning.column.dated:
                continue
            if reading.dimensions or meaning.table.is_key(meaning.column.name):
                raise Unclear(f"it is not clear what {thing.text!r} is for")
            reading.dimensions.append(Dimension(thing))

    def _list_different(self) -> None:
        """List the values of a name that is neither counted nor split, as in `the different countries`."""
        reading = self.reading
        ranked = reading.direction or any(bound.thing is None for bound in reading.bounds)
        if reading.asked and not ranked and not reading.measures and len(reading.dimensions) == 1:
            thing = reading.dimensions[0].thing
            mention = thing.mention if thing else None
            named = best_fit(mention, "dimension", self.base) if mention else None
            fit = best_fit(mention, "subject", self.base) if mention else None
            own = named is not None and named[1][0].kind == "column" and named[1][0].weight > PARTIAL
            if (
                thing
                and fit
                and not own
                and fit[1][0].kind != "column"
                and not self.base.distance(fit[1][0].table)
            ):
                reading.subjects, reading.dimensions, reading.listing = [thing], [], True
        only = reading.measures[0] if len(reading.measures) == 1 and not reading.dimensions else None
        if only and only.distinct and only.function is None and only.thing:
            reading.subjects, reading.measures, reading.listing = [only.thing], [], True

    def _missing(self) -> list[Condition]:
        """`customers without orders`: rows that no row of the other table refers to."""
        thing = self.reading.missing
        if thing is None or thing.mention is None:
            return []
        if self.reading.windows:
            raise Unclear("'without' and a window of time do not go together here")
        for meaning in thing.mention.meanings:
            for reference in meaning.table.foreign_keys:
                if (
                    meaning.kind == "table"
                    and (reference.schema, reference.table) == self.base.table.key
                    and len(reference.columns) == 1
                ):
                    child = Ref(meaning.table, meaning.table.column(reference.columns[0]))
                    return [
                        Condition(
                            Ref(self.base.table, self.base.table.column(reference.targets[0])),
                            "missing",
                            others=(child,),
                        )
                    ]
        raise Unclear(f"nothing says which {spoken(self.base.table.name)} have {thing.text}")

    def _one_kind(self, measures: list[Measure], conditions: list[Condition]) -> None:
        """Refuse a filter that fits only one of two kinds of facts, as they never share a row."""
        partial = {m.ref.column.name for m in measures if m.ref and m.ref.column.partial}
        chosen = {c.ref.column.name for c in conditions if c.ref.column.partial and c.operator != "not null"}
        if chosen and (len(partial) > 1 or (len(measures) > 1 and chosen - partial)):
            raise Unclear("it asks for two things at once, and the filter fits only one of them")

    def _use(self, ref: Ref) -> None:
        self.used[ref.table.key] = self.base.reach[ref.table.key]

    def _joins(self) -> tuple[Join, ...]:
        joins: list[Join] = []
        for path in self.used.values():
            joins += [join for join in path if join not in joins]
        return tuple(joins)

    def _chosen(self) -> list[Condition]:
        merged: dict[tuple[tuple[str, str], str, str], list[str | float]] = {}
        refs: dict[tuple[tuple[str, str], str, str], Ref] = {}
        flags: list[Condition] = []
        for chosen in self.reading.chosen:
            meanings = self.best(chosen.mention, "value")
            if (column := meanings[0].column) is None:
                continue
            ref = Ref(meanings[0].table, column)
            if meanings[0].kind == "column":
                flags.append(Condition(ref, "=", (not chosen.negated,)))
                continue
            key = (ref.table.key, column.name, "not in" if chosen.negated else "in")
            refs[key] = ref
            values = merged.setdefault(key, [])
            values += [meaning.value for meaning in meanings if meaning.value not in values]
        return flags + [Condition(refs[key], key[2], tuple(values)) for key, values in merged.items()]

    def _bounded(self) -> list[Condition]:
        conditions: list[Condition] = []
        for bound in self.reading.bounds:
            if bound.thing is None or bound.thing.mention is None:
                continue
            meaning = self.best(bound.thing.mention, "bound")[0]
            ref = Ref(meaning.table, meaning.column) if meaning.column else self.key(meaning.table)
            if not ref.column.numeric:
                raise Unclear(
                    f"{spoken(ref.table.name)} has no number {bound.number:g}: its key is {ref.column.type}"
                )
            conditions.append(Condition(ref, bound.operator, (bound.number,)))
        return conditions

    def _present(
        self, groups: list[Group], measures: list[Measure], conditions: list[Condition]
    ) -> list[Condition]:
        """If a table holds facts of several kinds, keep only the rows of the kind in question."""
        named = {c.ref.column.name for c in conditions} | {g.ref.column.name for g in groups}
        named |= {m.ref.column.name for m in measures if m.ref}
        found: list[Condition] = []
        sole = [m.ref for m in measures if m.ref and m.function != "count"]
        wanted = [g.ref for g in groups if g.ref.column.partial]
        if groups and sole and len(sole) == len(measures):
            nullable = [ref for ref in sole if ref.column.nullable]
            if len(nullable) == len(sole):
                wanted += nullable[:1] if len({r.column.name for r in nullable}) == 1 else []
        for ref in wanted:
            if not any(
                c.ref == ref and c.operator in {"in", ">", ">=", "=", "<", "<="} for c in conditions + found
            ):
                found.append(Condition(ref, "not null"))
        for topic in self.topics() if len(measures) < 2 else []:  # noqa: PLR2004 (each then counts its own rows)
            refs = self.kinds(topic)
            if refs and not self._about(topic) & named:
                found.append(Condition(refs[0], "not null", others=tuple(refs[1:])))
        return found

    @staticmethod
    def _about(topic: Meaning) -> set[str]:
        if topic.column is not None:
            return {topic.column.name}
        return {column.name for column in topic.table.columns if stems(column.name)[0] == stem(topic.topic)}

    def _shape(
        self, groups: list[Group], measures: list[Measure]
    ) -> tuple[list[Group], list[Measure], list[Ref]]:
        """The groups, measures and listed columns of the answer."""
        reading = self.reading
        if reading.recent and not reading.when and not reading.measures and not groups:
            if self.moment is None:
                raise Unclear(f"{spoken(self.base.table.name)} has no date to tell the latest by")
            return [], [], self._all_columns()
        if reading.listing and not reading.measures and not reading.direction:
            return self._listing(groups)
        per_group = any(bound.thing is None for bound in reading.bounds)
        if reading.asked and not measures and not per_group:
            return self._asked(groups)
        if reading.asked and not measures:
            measures = [Measure("count", None, "count")]
        self._check_outer(groups, measures)
        plain = not reading.measures or (
            reading.measures[0].function == "count" and not reading.measures[0].thing
        )
        if (
            plain
            and (groups or reading.measures)
            and not reading.direction
            and (subject := self.text_subject())
        ):
            groups = [Group(subject, subject.column.name), *groups]  # `channel usage by month`
        if reading.shown and not groups and not self.moment and not reading.measures and not reading.bounds:
            return self._listing(groups)
        return groups or self._days(), measures, []

    def _asked(self, groups: list[Group]) -> tuple[list[Group], list[Measure], list[Ref]]:
        """The answer to `which`, without a group: the rows that the named values stand for."""
        if groups:
            return groups, [], []
        for chosen in self.reading.chosen[:1]:
            table = self.best(chosen.mention, "value")[0].table
            if self.base.distance(table):
                return self.entity(table), [], []
        return [], [], self._all_columns()

    @staticmethod
    def _check_outer(groups: list[Group], measures: list[Measure]) -> None:
        outer = [measure for measure in measures if measure.outer]
        if outer and len(outer) < len(measures):
            raise Unclear("it mixes an average of counts with another number: ask for one at a time")
        if outer and not groups:
            raise Unclear("it asks for an average, a highest or a lowest of counts, but not per what")

    def _days(self) -> list[Group]:
        """Group a plain noun (`paid orders in June`) by day, and a plain column by its values."""
        reading = self.reading
        if reading.direction or reading.when or reading.bounds or reading.listing:
            return []
        if reading.measures:
            only = reading.measures[0]
            if len(reading.measures) > 1 or only.function or only.distinct or only.time:
                return []
        elif subject := self.text_subject():
            return [Group(subject, subject.column.name)]
        return [Group(self.moment, "day", "day")] if self.moment and not reading.whole else []

    def _listing(self, groups: list[Group]) -> tuple[list[Group], list[Measure], list[Ref]]:
        subject = self.text_subject()
        if subject is not None:
            return [Group(subject, subject.column.name)], [], []
        for thing in self.reading.subjects[:1]:
            if thing.mention:
                meaning = self.best(thing.mention, "subject")[0]
                if meaning.kind == "table" and self.base.distance(meaning.table):
                    return self.entity(meaning.table), [], []
        return (groups, [], []) if groups else ([], [], self._all_columns())

    def _all_columns(self) -> list[Ref]:
        named = {
            c.mention.meanings[0].column.name for c in self.reading.chosen if c.mention.meanings[0].column
        }
        table = self.base.table
        topics = {stem(topic.topic) for topic in self.topics()}
        return [
            Ref(table, c)
            for c in table.columns
            if not c.partial or c.name in named or self._spoken(c) or stems(c.name)[0] in topics
        ]

    def _spoken(self, column: Column) -> bool:
        return any(m.column == column for mention, _ in roles(self.reading) for m in mention.meanings[:1])

    def _ordered(self, groups: list[Group], measures: list[Measure]) -> Group | None:
        """The group to sort by. None if the answer is sorted by a measure."""
        order = self.reading.order
        if order is None:
            return None
        if order.time:
            return next((group for group in groups if group.unit == order.time), None)
        mention = order.thing.mention if order.thing else None
        meaning = self.best(mention, "scope")[0] if mention else None
        if meaning is None or any(m.ref and m.ref.column == meaning.column for m in measures):
            return None
        wanted = self.group(order)
        return next((group for group in groups if any(group.ref == other.ref for other in wanted)), None)

    def _noun(self) -> str:
        things = [measure.thing for measure in self.reading.measures] + list(self.reading.subjects)
        for thing in things:
            if thing and thing.mention:
                role: Role = "moment" if self.reading.when else "counted"
                fit = best_fit(thing.mention, role, self.base)
                if fit and fit[1][0].kind == "topic":
                    return fit[1][0].topic
        return spoken(plain(self.base.table.name))
