"""Other tools' spellings of a parameter in SQL, and the advice what to write here instead."""

import re
from collections.abc import Callable
from typing import Final

FOREIGN: Final = frozenset("?%[]`@$")
"""The characters that begin such a spelling."""
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_FILTERS: Final = frozenset({"timefilter", "unixepochfilter", "unixepochnanofilter", "timefrom", "timeto"})
_SPELLINGS: Final = re.compile(
    rf"""
      (?P<macro> \$__(?P<macro_name>{_NAME}) )
    | (?P<dollar> \$\{{(?P<braced>{_NAME}) | \$(?P<bare>{_NAME}) )
    | (?P<template> \{{\{{-?\s*(?P<template_name>{_NAME})? )
    | (?P<block> \{{[%\#] )
    | (?P<optional> \[\[ | \]\] )
    | (?P<percent> %\((?P<percent_name>{_NAME})\)s | %s )
    | (?P<at> @(?P<at_name>{_NAME}) )
    | (?P<backquote> `(?P<backquoted>[^`\n]{{1,63}})` )
    | (?P<question> \? )
    """,
    re.VERBOSE,
)


def foreign(sql: str, at: int) -> str:
    """The refusal for another tool's spelling at that offset; empty if there is none."""
    found = _SPELLINGS.match(sql, at)
    if found is None:
        return ""
    name = next((found[group] for group in _NAMES if found[group]), "name")
    return _ADVICE[str(found.lastgroup)](name[:63])


_NAMES: Final = (
    "macro_name", "braced", "bare", "template_name", "percent_name", "at_name", "backquoted",
)  # fmt: skip


def _macro(name: str) -> str:
    if name.lower() in _FILTERS:
        advice = "write the column BETWEEN :start_date AND :end_date"
    elif "group" in name.lower() or "interval" in name.lower():
        advice = "write date_trunc('hour', the column), or date_bin with the width that you want"
    else:
        advice = "write :start_date and :end_date for the range of time"
    return f"uses the Grafana macro $__{name}, which is not known here; {advice}"


_ADVICE: Final[dict[str, Callable[[str], str]]] = {
    "macro": _macro,
    "dollar": lambda name: f"uses ${name}, another tool's variable; write the parameter :{name}",
    "template": lambda name: f"uses a template, {{{{ {name} }}}}; write the parameter :{name}",
    "block": lambda _: "uses a template block, which is not known here; write the condition in SQL, as in "
    "(:kind IS NULL OR kind = :kind)",
    "optional": lambda _: "uses an optional part in [[ ]]; write (:kind IS NULL OR kind = :kind), and give "
    "the parameter a null default",
    "percent": lambda name: f"uses a Python placeholder; write the parameter :{name}",
    "at": lambda name: f"uses the variable @{name}; write the parameter :{name}",
    "backquote": lambda name: f'uses backquotes; write the name in double quotes, "{name}"',
    "question": lambda _: "uses ? for a value; name the parameter, as in :start_date",
}  # fmt: skip
