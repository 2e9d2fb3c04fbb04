"""Analyse a stored statement once: its placeholders, their declarations, and its windows."""

import re
from collections.abc import Mapping
from datetime import tzinfo
from itertools import islice
from typing import Any, NoReturn

import msgspec
from msgspec import Raw, UnsetType
from sqlglot import exp

from service.errors import FieldError, InvalidInput, SqlRefused
from service.http import bodies
from service.settings import zone_of
from service.sql.lexer import Lexeme, place
from service.sql.parameters.bounds import bare
from service.sql.parameters.days import Slot, day_slot
from service.sql.parameters.edits import moves_only_bounds
from service.sql.parameters.template import DAY_KIND, IMPLIED, NAME_LIMIT, Declared, Template, label
from service.sql.parameters.values import DECLARED_POSTGRES, Canonical, Kind, from_json
from service.sql.parameters.windows import END, NOT_ADJUSTABLE, START, Mode, find_windows
from service.sql.validation.parsing import Statement, UnparsedStatement

DISTINCT_LIMIT = 100
TAKEN = frozenset({"format", "excel", "bom"})
"""Query parameters of the service itself."""
NAME = re.compile(r":[A-Za-z_][A-Za-z_0-9]*")
QUOTED = re.compile(r"(?<![:\w]):([A-Za-z_][A-Za-z_0-9]{0,62})\b")


def declarations(written: Mapping[str, Raw]) -> dict[str, Declared]:
    """Decode a definition's declarations; raises InvalidInput for invalid ones."""
    return {
        name: bodies.decode(text, Declared, within=f"parameters.{label(name)}")
        for name, text in written.items()
    }


def analyse(
    statement: Statement | UnparsedStatement,
    declared: Mapping[str, Declared],
    *,
    mode: Mode = "auto",
    time_zone: str = "UTC",
) -> Template:
    """Analyse a statement. `time_zone` is the time zone of its sessions.

    SQL that an operator trusts and our parser cannot read has no tree, so it has no window.
    Raises SqlRefused for invalid placeholders, and InvalidInput for a declaration without its placeholder or
    with a default of another type.
    """
    sql, lexemes = statement.sql, statement.lexemes
    closing = len(lexemes)
    while closing and lexemes[closing - 1].text == ";":
        closing -= 1
    if closing < len(lexemes):
        characters = list(sql)
        for lexeme in lexemes[closing:]:
            characters[lexeme.start] = " "
        sql = "".join(characters)
    found = _placeholders(sql, lexemes)
    names = dict.fromkeys(lexeme.text[1:] for lexeme in found)
    for name, item in declared.items():
        if name not in names:
            _refuse_declaration(name, f"the SQL has no :{label(name)}")
        if item.type == "enum" and not item.values:
            _refuse_declaration(name, "an enum needs its values")
        if item.values and item.type != "enum":
            _refuse_declaration(name, "only an enum lists its values")
    kinds = {name: _kind(name, declared.get(name)) for name in names}
    slots = [_slot(lexemes, at, kinds) for at, part in enumerate(lexemes) if part.kind == "parameter"]
    zone = zone_of(time_zone)
    window_slots = find_windows(statement, taken=frozenset(names), mode=mode, zone=zone)
    defaults = {
        name: _default(name, kinds[name], item.default, zone)
        for name, item in declared.items()
        if not isinstance(item.default, UnsetType)
    }
    ordered = sorted([*slots, *window_slots.slots], key=lambda slot: (slot.start, slot.end))
    tree = statement.tree
    casts = _casts(tree) if tree is not None else {}
    quoted = _quoted(lexemes) - {*names}
    window_slots = msgspec.structs.replace(window_slots, slots=())
    template = Template(sql, tuple(ordered), kinds, defaults, window_slots, casts, mode, time_zone, quoted)
    if tree is None or _moves_only_bounds(tree, template):
        return template
    return template.without_windows(NOT_ADJUSTABLE)


def _moves_only_bounds(tree: exp.Query, template: Template) -> bool:
    """Whether moving the windows changes nothing else. Slots are judged once, whatever fills them."""
    judged = set[tuple[int, int]]()
    for given in template.offered:
        rendered, moved = template.moved(given)
        if not judged.issuperset(moved) and not moves_only_bounds(tree, rendered, moved):
            return False
        judged |= moved.keys()
    return True


def _placeholders(sql: str, lexemes: list[Lexeme]) -> list[Lexeme]:
    """The `:name` lexemes; raises SqlRefused for names that no caller can give, and for `$1`."""
    found = [lexeme for lexeme in lexemes if lexeme.kind == "parameter"]
    for lexeme in lexemes:
        if lexeme.kind == "numbered":
            raise _refusal(sql, lexeme, f"{lexeme.text} is numbered by the service: write a named :parameter")
    for lexeme in found:
        if not NAME.fullmatch(lexeme.text):
            raise _refusal(sql, lexeme, "a parameter's name has only ASCII letters, digits and _")
        if len(lexeme.text) - 1 > NAME_LIMIT:
            raise _refusal(sql, lexeme, f"a parameter's name has at most {NAME_LIMIT} characters")
        if lexeme.text[1:] in TAKEN:
            raise _refusal(sql, lexeme, f"{lexeme.text} is a parameter of the service itself: choose another")
    if len({lexeme.text for lexeme in found}) > DISTINCT_LIMIT:
        raise SqlRefused(f"The SQL has more than {DISTINCT_LIMIT} different parameters.")
    return found


def _refusal(sql: str, lexeme: Lexeme, why: str) -> SqlRefused:
    line, column = place(sql, lexeme.start)
    return SqlRefused(
        f"Line {line}, column {column}: {why}.", errors=(FieldError("sql", f"{why} (line {line})"),)
    )


def _quoted(lexemes: list[Lexeme]) -> frozenset[str]:
    """Names that look like parameters but are text inside strings."""
    found = (
        name
        for lexeme in lexemes
        if lexeme.kind in {"string", "unicode"}
        for name in QUOTED.findall(lexeme.text)
    )
    return frozenset(islice(found, DISTINCT_LIMIT))


def _kind(name: str, item: Declared | None) -> Kind:
    if item is None:
        return IMPLIED.get(name, Kind())
    return Kind(item.type, DECLARED_POSTGRES.get(item.type, ""), item.array, item.values)


def _slot(lexemes: list[Lexeme], at: int, kinds: dict[str, Kind]) -> Slot:
    lexeme = lexemes[at]
    name = lexeme.text[1:]
    if name in {START, END} and kinds[name] == DAY_KIND:
        return day_slot(lexemes, at)
    return Slot(lexeme.start, lexeme.end, name)


def _casts(tree: exp.Query) -> dict[str, str]:
    """The cast of each placeholder; it may refuse values that its own type allows: sizes, domains, texts."""
    return {
        placeholder.name: f"::{cast.to.sql('postgres')}"
        for cast in tree.find_all(exp.Cast)
        if isinstance(placeholder := bare(cast.this), exp.Placeholder)
    }


def _default(name: str, kind: Kind, value: Any, zone: tzinfo) -> Canonical:
    if value is None:
        return None
    try:
        return from_json(kind, value, zone)
    except ValueError as wrong:
        _refuse_declaration(name, f"the default must be {wrong}")


def _refuse_declaration(name: str, why: str) -> NoReturn:
    field = f"parameters.{label(name)}"
    raise InvalidInput(f"Parameter {label(name)}: {why}.", errors=(FieldError(field, why),))
