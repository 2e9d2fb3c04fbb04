"""Ask Postgres for the types of a statement's parameters, and which part or value an error is about."""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from service.database.stored_sql.limiter import Watch
from service.database.stored_sql.reader import Reader
from service.errors import FieldError, InvalidInput, Problem, QueryFailed, SqlRefused
from service.sql.parameters import BoundStatement, Template
from service.sql.validation import UnknownCall, Unread, foreign

_SYNTAX_ERROR: Final = "42601"
_NO_FUNCTION: Final = "42883"
_NO_COLUMN: Final = "42703"
# Postgres finds no type for a parameter (`:kind IS NULL`), or two. Asking place by place may find one.
_UNSURE: Final = frozenset({"42P08", "42P18", _NO_FUNCTION, "42804", "42725"})
_NUMBER: Final = re.compile(r"\$([0-9]{1,6})")  # in Postgres's message, whatever its language
_NO_TYPE: Final = frozenset({"42P08", "42P18"})
_NAME: Final = r":([A-Za-z_][A-Za-z_0-9]{0,62})"
_QUOTED: Final = re.compile(rf'"(?:[^"]{{0,80}}?[^"\w:])?{_NAME}')
_PARAMETER: Final = re.compile(_NAME)
_SLICED: Final = re.compile(r"(?<!:):\s*$")
ROUNDS: Final = 40
Place = Callable[[int], int | None]


async def with_types(template: Template, reader: Reader, watch: Watch | None = None) -> Template:
    """Let Postgres infer the types of the parameters. Raises `QueryFailed`.

    In `(:kind IS NULL OR kind = :kind)` the first place does not determine the type. When Postgres cannot
    infer a type, we ask for each place alone. A parameter whose type no place determines is text.
    """
    probe = template.probe()
    try:
        with placed(template.sql, lambda position: template.stored_position(position, typed=False)):
            types = await reader.parameter_types(probe.sql, watch)
    except QueryFailed as problem:
        if problem.members["sqlstate"] not in _UNSURE:
            raise
        found = await _by_place(template, reader, watch)
        if found is None:
            raise
        return template.with_types(found)
    return template.with_types(dict(zip(probe.names, types, strict=True)))


async def _by_place(template: Template, reader: Reader, watch: Watch | None) -> dict[str, str] | None:
    """The types by name. None if places contradict each other or the statement is wrong."""
    as_text: frozenset[int] = frozenset()
    for _ in range(ROUNDS):
        probe = template.probe_places(as_text)
        try:
            types = await reader.parameter_types(probe.sql, watch)
        except QueryFailed as problem:
            number = _NUMBER.search(problem.detail)
            if problem.members["sqlstate"] not in _NO_TYPE or number is None or int(number[1]) in as_text:
                return None
            as_text |= {int(number[1])}
            continue
        found: dict[str, str] = {}
        for number, (name, kind) in enumerate(zip(probe.names, types, strict=True), 1):
            if found.get(name, "text") == "text" and (name not in found or number not in as_text):
                found[name] = kind
        return found
    return None


async def explain_run(
    problem: QueryFailed, template: Template, bound: BoundStatement, reader: Reader, head: int
) -> None:
    """Add the place in the stored SQL to the failure of a run. `head` is the length of the SQL before it.

    Raises `InvalidInput` instead if a value is to blame.
    """
    await _refuse_wrong(template, bound, reader)

    def place(position: int) -> int | None:
        own = position - head
        inside = 0 < own <= len(bound.sql)
        return template.stored_position(own, bound.windows) if inside else None

    _put_place(problem, template.sql, place)


async def _refuse_wrong(template: Template, bound: BoundStatement, reader: Reader) -> None:
    """Raise `InvalidInput` that names each value that Postgres cannot read, if there is any."""
    wrong: list[FieldError] = []
    for name, expected, sql, value in template.value_trials(bound):
        try:
            await reader.run(sql, [value])
        except QueryFailed as problem:
            if "position" not in problem.members:  # with a position, the cast is wrong, not the value
                wrong.append(FieldError(name, f"{name} must be {expected}: {problem.errors[0].message}"))
    if wrong:
        raise InvalidInput(f"{wrong[0].message}.", errors=tuple(wrong))


async def explained(
    gap: Unread | UnknownCall, template: Template, reader: Reader, watch: Watch | None = None
) -> Problem:
    """Why validation failed: Postgres refuses the statement too, or only we do.

    Postgres refuses a function because of a typo, and says so.
    """
    try:
        with placed(template.sql, lambda position: template.stored_position(position, typed=False)):
            await reader.parameter_types(template.probe().sql, watch)
    except QueryFailed as problem:
        state = problem.members["sqlstate"]
        if state == _NO_FUNCTION if isinstance(gap, UnknownCall) else state not in _NO_TYPE:
            return SqlRefused(problem.detail, errors=problem.errors, **problem.members)
    except Problem:  # a busy or lost database: our own refusal needs none
        if not isinstance(gap, UnknownCall):
            raise
    if isinstance(gap, UnknownCall):
        return gap
    said = gap.detail.removesuffix(".")
    message = f"{said}, though Postgres can: write it otherwise, or an operator can trust it."
    return SqlRefused(message, errors=(FieldError("sql", message),), **gap.members)


@contextmanager
def placed(sql: str, place: Place) -> Generator[None]:
    """Add the position in the stored SQL to a failure, if the error is in that SQL."""
    try:
        yield
    except QueryFailed as problem:
        _put_place(problem, sql, place)
        raise


def _put_place(problem: QueryFailed, sql: str, place: Place) -> None:
    """Add line and column to a failure, and advice if the SQL uses parameter syntax of another tool."""
    position = problem.members.pop("position", None)
    stored = None if position is None else place(position)
    if stored is None:
        return
    start = stored - 1
    line, column = sql.count("\n", 0, start) + 1, start - sql.rfind("\n", 0, start)
    problem.members.update(position=stored, line=line, column=column)
    said = f"{problem.detail} (line {line}, column {column})"
    if advice := _advice(problem, sql, start):
        said = f"{said}: it {advice}"
    problem.args = (said,)
    problem.errors = (FieldError("sql", said.removeprefix("Postgres: ")),)


def _advice(problem: QueryFailed, sql: str, start: int) -> str:
    """Postgres reads `@id` as an operator and `':day'` as text, so its own message does not help."""
    state = problem.members["sqlstate"]
    if state.startswith("22") and (found := _QUOTED.search(problem.detail)):
        return f"stands inside quotes, where it is text; write :{found[1]} without quotes"
    if state == _SYNTAX_ERROR and (found := _PARAMETER.match(sql, start)):
        name, typed = found[1], sql[:start].rstrip().lower().endswith("interval")
        advice = f"write :{name}::interval" if typed else "a name or a keyword cannot be one"
        return f"is no place for a value: :{name} is a parameter, which stands for a value; {advice}"
    if state == _NO_COLUMN and _SLICED.search(sql[max(0, start - 2) : start]):
        return "is the end of a slice, no parameter; as one, write (:n)"
    if state not in {_NO_FUNCTION, _NO_COLUMN, _SYNTAX_ERROR}:
        return ""
    for at in range(max(0, start - 2), min(len(sql), start + 3)):
        if sql[at] in "@?" and (advice := foreign(sql, at)):
            return advice
    return ""
