"""Analyse a stored statement once: its placeholders, their declarations, and its windows."""

import re
from collections.abc import Mapping
from datetime import tzinfo
from itertools import islice
from typing import Any, NoReturn

import msgspec
from msgspec import Raw, UnsetType
from sqlglot import exp

from service.errors import FieldError, InvalidInput
from service.http import bodies
from service.settings import zone_of
from service.sql.parameters.bounds import bare
from service.sql.parameters.days import Slot, day_slot
from service.sql.parameters.lexer import DISTINCT_LIMIT, Token, placeholders, tokenize
from service.sql.parameters.template import DAY_KIND, IMPLIED, Declared, Template, label
from service.sql.parameters.values import DECLARED_POSTGRES, Canonical, Kind, exact, from_json
from service.sql.parameters.windows import END, START, Mode, find_windows

QUOTED = re.compile(r"(?<![:\w]):([A-Za-z_][A-Za-z_0-9]{0,62})\b")


def declarations(written: Mapping[str, Raw]) -> dict[str, Declared]:
    """Decode a definition's declarations; raises InvalidInput for invalid ones."""
    return {
        name: bodies.decode(text, Declared, within=f"parameters.{label(name)}", number=exact)
        for name, text in written.items()
    }


def analyse(
    sql: str,
    tree: exp.Query | None,
    declared: Mapping[str, Declared],
    *,
    mode: Mode = "auto",
    time_zone: str = "UTC",
) -> Template:
    """Analyse a statement.

    `tree` is sqlglot's unchanged tree of it. Without a tree (SQL that an operator trusts and our parser
    cannot read) the statement has no window. `time_zone` is the time zone of its sessions.
    Raises SqlRefused for invalid placeholders, and InvalidInput for a declaration without its placeholder or
    with a default of another type.
    """
    tokens = tokenize(sql)
    closing = len(tokens)
    while closing and tokens[closing - 1].text == ";":
        closing -= 1
    if closing < len(tokens):
        characters = list(sql)
        for token in tokens[closing:]:
            characters[token.start] = " "
        sql, tokens = "".join(characters), tokens[:closing]
    found = placeholders(sql, tokens)
    names = dict.fromkeys(token.text[1:] for token in found)
    for name, item in declared.items():
        if name not in names:
            _refuse_declaration(name, f"the SQL has no :{label(name)}")
        if item.type == "enum" and not item.values:
            _refuse_declaration(name, "an enum needs its values")
        if item.values and item.type != "enum":
            _refuse_declaration(name, "only an enum lists its values")
    kinds = {name: _kind(name, declared.get(name)) for name in names}
    slots = [_slot(tokens, at, kinds) for at, token in enumerate(tokens) if token.kind == "placeholder"]
    zone = zone_of(time_zone)
    window_slots = find_windows(sql, tokens, tree, taken=frozenset(names), mode=mode, zone=zone)
    defaults = {
        name: _default(name, kinds[name], item.default, zone)
        for name, item in declared.items()
        if not isinstance(item.default, UnsetType)
    }
    ordered = sorted([*slots, *window_slots.slots], key=lambda slot: (slot.start, slot.end))
    casts = _casts(tree) if tree is not None else {}
    quoted = _quoted(tokens) - {*names}
    window_slots = msgspec.structs.replace(window_slots, slots=())
    return Template(sql, tuple(ordered), kinds, defaults, window_slots, casts, mode, time_zone, quoted)


def _quoted(tokens: list[Token]) -> frozenset[str]:
    """Names that look like parameters but are text inside strings."""
    found = (name for token in tokens if token.kind == "text" for name in QUOTED.findall(token.text))
    return frozenset(islice(found, DISTINCT_LIMIT))


def _kind(name: str, item: Declared | None) -> Kind:
    if item is None:
        return IMPLIED.get(name, Kind())
    return Kind(item.type, DECLARED_POSTGRES.get(item.type, ""), item.array, item.values)


def _slot(tokens: list[Token], at: int, kinds: dict[str, Kind]) -> Slot:
    token = tokens[at]
    name = token.text[1:]
    if name in {START, END} and kinds[name] == DAY_KIND:
        return day_slot(tokens, at)
    return Slot(token.start, token.end, name)


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
