"""A question as a syntax tree. No text is ever pasted into SQL: values are literal nodes."""

import re
from datetime import date

from msgspec import Struct
from sqlglot import exp
from sqlglot.generators.postgres import PostgresGenerator

from service.ask.question.shapes import OUTER, Condition, Group, Measure, Question, Ref
from service.ask.schema import Schema
from service.ask.sentence.dates import Unit, Window
from service.sql.words import RESERVED

_SAFE_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_COMPARISONS: dict[str, type[exp.Binary]] = {
    ">": exp.GT,
    ">=": exp.GTE,
    "<": exp.LT,
    "<=": exp.LTE,
    "=": exp.EQ,
    "<>": exp.NEQ,
}


class Parameter(Struct, frozen=True):
    """A placeholder of the SQL. Its default comes from the window of the prompt."""

    name: str
    type: str
    default: str | None


def build(question: Question, schema: Schema) -> tuple[exp.Select, tuple[Parameter, ...]]:
    """The SELECT and the placeholders in it."""
    return _Builder(question, schema).select()


class _Builder:
    def __init__(self, question: Question, schema: Schema) -> None:
        self.question, self.schema = question, schema
        self.parameters: list[Parameter] = []

    def select(self) -> tuple[exp.Select, tuple[Parameter, ...]]:
        question = self.question
        if question.listed:
            tree = self._list()
        elif question.counted:
            inner = self._grouped(question.groups, question.measures)
            tree = exp.select(exp.alias_(exp.Count(this=exp.Star()), "count")).from_(inner.subquery("groups"))
        elif any(measure.outer for measure in question.measures):
            tree = self._nested()
        else:
            tree = self._arranged(
                self._grouped(question.groups, question.measures), question.groups, question.measures
            )
        return tree, tuple(self.parameters)

    # parts

    def _column(self, ref: Ref) -> exp.Column:
        table = _name(ref.table.name) if self.question.joins else None
        return exp.Column(this=_name(ref.column.name), table=table)

    def _from(self, tree: exp.Select) -> exp.Select:
        tree = tree.from_(self._table(self.question.base.schema, self.question.base.name))
        for join in self.question.joins:
            pairs = [
                exp.EQ(
                    this=exp.Column(this=_name(target), table=_name(join.parent.name)),
                    expression=exp.Column(this=_name(column), table=_name(join.child.name)),
                )
                for column, target in zip(join.reference.columns, join.reference.targets, strict=True)
            ]
            tree = tree.join(
                self._table(join.parent.schema, join.parent.name), on=exp.and_(*pairs), join_type="left"
            )
        return tree

    def _table(self, schema: str, name: str) -> exp.Table:
        """The table, without its schema if the search path finds it."""
        plain = (
            next((path for path in self.schema.search_path if self.schema.table(path, name)), None) == schema
        )
        return exp.Table(this=_name(name), db=None if plain else _name(schema))

    def _key(self, group: Group) -> exp.Expr:
        column = self._column(group.ref)
        return _truncated(column, group.unit, group.ref.column.kind) if group.unit else column

    def _value(self, measure: Measure) -> exp.Expr:
        if measure.ref is None:
            return exp.Count(this=exp.Star())
        column: exp.Expr = self._column(measure.ref)
        if measure.unit:
            column = _truncated(self._column(measure.ref), measure.unit, measure.ref.column.kind)
        if measure.function == "count":
            return exp.Count(this=exp.Distinct(expressions=[column]) if measure.distinct else column)
        return _aggregate(measure.function, column)

    # shapes

    def _grouped(self, groups: tuple[Group, ...], measures: tuple[Measure, ...]) -> exp.Select:
        keys = [(self._key(group), group.name) for group in groups]
        columns = [*keys, *((self._value(measure), measure.name) for measure in measures)]
        tree = self._where(self._from(exp.select(*(_named(value, name) for value, name in columns))))
        if measures and keys:
            tree = tree.group_by(*(key.copy() for key, _ in keys))
        elif keys:
            tree = tree.distinct()
        for bound in self.question.having:
            measure = next(iter(measures), None)
            value = self._value(measure) if measure else exp.Count(this=exp.Star())
            tree = tree.having(_COMPARISONS[bound.operator](this=value, expression=_number(bound.number)))
        return tree

    def _nested(self) -> exp.Select:
        """Aggregates of each group's value: `average number of orders per day`."""
        question = self.question
        inner = tuple(
            dict.fromkeys(Measure(m.function, m.ref, "value", m.distinct) for m in question.measures)
        )
        if len(inner) > 1:
            inner = inner[:1]
        kept = [group for group in question.groups if not group.inner]
        tree = self._grouped(question.groups, inner)
        names = [exp.column(_name(group.name)) for group in kept]
        values = [
            exp.alias_(
                _aggregate(measure.outer or "sum", exp.column("value")),
                _outer_name(measure, question.groups[0]),
            )
            for measure in question.measures
        ]
        outer = exp.select(*names, *values).from_(tree.subquery("groups"))
        if names:
            outer = outer.group_by(*(name.copy() for name in names)).order_by(
                *(name.copy() for name in names)
            )
        return outer

    def _list(self) -> exp.Select:
        question = self.question
        tree = self._where(
            self._from(exp.select(*(_named(self._column(ref), ref.column.name) for ref in question.listed)))
        )
        if question.moment is not None and question.moment in question.listed:
            tree = tree.order_by(
                exp.Ordered(
                    this=self._column(question.moment), desc=question.direction == "desc", nulls_first=False
                )
            )
        else:
            tree = tree.order_by(self._column(question.listed[0]))
        return tree.limit(question.limit) if question.limit else tree

    def _arranged(
        self, tree: exp.Select, groups: tuple[Group, ...], measures: tuple[Measure, ...]
    ) -> exp.Select:
        """Sort times forward, and categories by size, or by name without a measure."""
        question = self.question
        if not groups:
            return tree
        names = [exp.column(_name(group.name)) for group in groups]
        first = question.order
        if first is not None:
            lead = exp.column(_name(first.name))
            rest = [name for name in names if name != lead]
            order = [exp.Ordered(this=lead, desc=question.direction == "desc", nulls_first=False), *rest]
        elif measures and (question.direction or not any(group.unit for group in groups)):
            value = exp.column(_name(measures[0].name))
            order = [exp.Ordered(this=value, desc=question.direction != "asc", nulls_first=False), *names]
            # `NULLS LAST` keeps groups without a value from the top
        else:
            order = sorted(names, key=lambda name: not any(g.unit and g.name == name.name for g in groups))
        tree = tree.order_by(*(item.copy() for item in order))
        return tree.limit(question.limit) if question.limit else tree

    # rows

    def _where(self, tree: exp.Select) -> exp.Select:
        conditions = [self._condition(condition) for condition in self.question.conditions]
        if self.question.window and self.question.moment:
            column = self._column(self.question.moment)
            conditions += self._window(column, self.question.window, self.question.moment.column.kind)
        return tree.where(*conditions) if conditions else tree

    def _condition(self, condition: Condition) -> exp.Expr:
        column = self._column(condition.ref)
        if condition.operator == "not null":
            parts = [
                exp.Is(this=self._column(ref), expression=exp.Not(this=exp.Null()))
                for ref in (condition.ref, *condition.others)
            ]
            return exp.paren(exp.or_(*parts)) if len(parts) > 1 else parts[0]
        if condition.operator == "missing":
            return self._missing(condition.ref, condition.others[0])
        values = [_literal(value) for value in condition.values]
        if condition.operator in _COMPARISONS:
            return _COMPARISONS[condition.operator](this=column, expression=values[0])
        negated = condition.operator == "not in"
        if len(values) == 1:
            return (
                exp.NEQ(this=column, expression=values[0])
                if negated
                else exp.EQ(this=column, expression=values[0])
            )
        found = exp.In(this=column, expressions=values)
        return exp.Not(this=found) if negated else found

    def _missing(self, ref: Ref, child: Ref) -> exp.Expr:
        own = exp.Column(this=_name(ref.column.name), table=_name(ref.table.name))
        same = exp.EQ(
            this=exp.Column(this=_name(child.column.name), table=_name(child.table.name)), expression=own
        )
        rows = (
            exp.select(exp.Literal.number(1))
            .from_(self._table(child.table.schema, child.table.name))
            .where(same)
        )
        return exp.Not(this=exp.Exists(this=rows))

    def _window(self, column: exp.Column, window: Window, kind: str) -> list[exp.Expr]:
        if window.rolling is not None:
            return [
                exp.GTE(
                    this=column,
                    expression=exp.Sub(
                        this=exp.CurrentDate(), expression=_interval(window.rolling, window.unit)
                    ),
                )
            ]
        if window.period is not None:
            return self._period(column, window.period, window.unit)
        parts: list[exp.Expr] = []
        if window.start:
            parts.append(exp.GTE(this=column, expression=self._bound("start_date", window.start)))
        if window.end:
            last = self._bound("end_date", window.end)
            parts.append(
                exp.LTE(this=column.copy(), expression=last)
                if kind == "date"
                else exp.LT(this=column.copy(), expression=exp.Add(this=last, expression=_number(1)))
            )
        return parts

    def _bound(self, name: str, default: date) -> exp.Cast:
        if all(parameter.name != name for parameter in self.parameters):
            self.parameters.append(Parameter(name, "date", default.isoformat()))
        return exp.cast(exp.Placeholder(this=name), "date")

    @staticmethod
    def _period(column: exp.Column, offset: int, unit: Unit) -> list[exp.Expr]:
        def start(shift: int) -> exp.Expr:
            now: exp.Expr = (
                exp.CurrentDate()
                if unit == "day"
                else exp.func("DATE_TRUNC", exp.Literal.string(unit), exp.CurrentDate(), dialect="postgres")
            )
            count, name = (3 * abs(shift), "month") if unit == "quarter" else (abs(shift), unit)
            if shift == 0:
                return now
            kind = exp.Add if shift > 0 else exp.Sub
            return kind(this=now, expression=_interval(count, name))

        return [
            exp.GTE(this=column, expression=start(offset)),
            exp.LT(this=column.copy(), expression=start(offset + 1)),
        ]


def _outer_name(measure: Measure, group: Group) -> str:
    if measure.outer in {None, "sum"}:
        return measure.name
    return f"{OUTER[measure.outer or 'sum']}_per_{group.name}"


def _name(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=not _SAFE_NAME.fullmatch(name) or name in RESERVED)


def _named(value: exp.Expr, name: str) -> exp.Expr:
    if isinstance(value, exp.Column) and value.name == name:
        return value
    return exp.Alias(this=value, alias=_name(name))


def _truncated(column: exp.Column, unit: Unit, kind: str) -> exp.Expr:
    if unit == "day":
        return column if kind == "date" else exp.cast(column, "date")
    return exp.cast(exp.func("DATE_TRUNC", exp.Literal.string(unit), column, dialect="postgres"), "date")


def _interval(count: int, unit: str) -> exp.Interval:
    return exp.Interval(this=exp.Literal.string(str(count)), unit=exp.Var(this=unit.upper()))


def _aggregate(function: str, value: exp.Expr) -> exp.Expr:
    kinds: dict[str, type[exp.AggFunc]] = {"sum": exp.Sum, "avg": exp.Avg, "min": exp.Min, "max": exp.Max}
    return kinds[function](this=value)


def _literal(value: str | float) -> exp.Expr:
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    return exp.Literal.string(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> exp.Expr:
    return exp.Literal.number(int(value) if value == int(value) else value)


class _Generator(PostgresGenerator):
    def placeholder_sql(self, expression: exp.Placeholder) -> str:
        return f":{expression.name}"


def render(tree: exp.Expr) -> str:
    """The text of a statement, one clause a line, without comments; `:name` placeholders stay."""
    return _Generator(dialect="postgres", pretty=True, comments=False).generate(tree)
