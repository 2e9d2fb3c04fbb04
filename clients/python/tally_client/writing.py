"""Write a module with the metrics of a service, each with the types of its parameters and rows.

Names of columns and parameters may be any text: they stand in the module as quoted text only. A metric's own
name becomes a Python or TypeScript name that is free.
"""

import builtins
import json
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]

_PATH: Final = re.compile(r"/api/v1/metrics/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
NOT_ITS_OWN: Final = frozenset(("format", "excel", "bom"))
PYTHON_TYPES: Final = {
    ("integer", "int32"): "int",
    ("integer", "int64"): "int",
    ("number", "decimal"): "Decimal",
    ("number", "double"): "float",
    ("boolean", ""): "bool",
    ("string", ""): "str",
    ("string", "date"): "str",
}
TYPESCRIPT_TYPES: Final = {
    ("integer", "int32"): "number",
    ("integer", "int64"): "number | bigint",
    ("number", "decimal"): "number | bigint | string",
    ("number", "double"): "number",
    ("boolean", ""): "boolean",
    ("string", ""): "string",
    ("string", "date"): "string",
}
PYTHON_TAKEN: Final = frozenset((*keyword.kwlist, *keyword.softkwlist, *dir(builtins)))
TYPESCRIPT_TAKEN: Final = frozenset(
    """
    abstract any arguments as async await bigint boolean break case catch class const constructor
    continue debugger declare default delete do else enum eval export extends false finally for from
    function get if implements import in infer instanceof interface is keyof let metric module namespace
    never new null number object of package private protected public readonly require return set static
    string super switch symbol this throw true try type typeof undefined unique unknown var void while
    with yield
    """.split()  # noqa: SIM905 (readable)
)


@dataclass(frozen=True)
class Described:
    """A metric as the document describes it."""

    id: str
    words: list[str]
    title: str
    columns: dict[str, Object]
    parameters: dict[str, Object]
    required: frozenset[str]


def described(document: Object) -> list[Described]:
    """The metrics of a document of `/openapi.json?metrics=true`."""
    found: list[Described] = []
    for path, methods in document["paths"].items():
        if match := _PATH.fullmatch(path):
            operation: Object = methods["get"]
            own = [
                each
                for each in operation["parameters"]
                if each["in"] == "query" and each["name"] not in NOT_ITS_OWN
            ]
            words = re.findall(
                r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", operation["operationId"].removeprefix("get")
            )
            found.append(
                Described(
                    match[1],
                    words,
                    operation.get("summary", ""),
                    _columns(operation),
                    {each["name"]: each["schema"] for each in own},
                    frozenset(each["name"] for each in own if each["required"]),
                )
            )
    return found


def _columns(operation: Object) -> dict[str, Object]:
    schema: Object = operation["responses"]["200"]["content"]["application/json"]["schema"]
    for part in schema.get("allOf", ()):
        if records := part.get("properties", {}).get("records"):
            return records["items"].get("properties", {})
    return {}  # a metric that cannot run now is described without


def write_python(document: Object, address: str) -> str:
    """A Python module."""
    lines = [
        f"# The metrics of {json.dumps(address)}, made by: python -m tally_client metrics",
        "from decimal import Decimal",
        "from typing import Any, Literal, NotRequired, Required, TypedDict",
        "",
        "from tally_client.typed import Metric",
    ]
    free = _Names(PYTHON_TAKEN, "_")
    for metric in described(document):
        name = free.of(metric, lambda words: "_".join(words).lower())
        capital = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        row = ", ".join(f"{column!r}: {_type(schema, _PYTHON)}" for column, schema in metric.columns.items())
        given = ", ".join(
            f"{each!r}: {'Required' if each in metric.required else 'NotRequired'}[{_type(schema, _PYTHON)}]"
            for each, schema in metric.parameters.items()
        )
        lines += [
            "",
            f'{capital}Row = TypedDict("{capital}Row", {{{row}}})',
            f'{capital}Parameters = TypedDict("{capital}Parameters", {{{given}}})',
            f'{name} = Metric[{capital}Row, {capital}Parameters]("{metric.id}", {metric.title!r})',
        ]
    return "\n".join(lines) + "\n"


def write_typescript(document: Object, address: str, package: str) -> str:
    """A TypeScript module."""
    lines: list[str] = []
    free = _Names(TYPESCRIPT_TAKEN, "$")
    for metric in described(document):
        name = free.of(metric, _camel)
        capital = name[:1].upper() + name[1:]
        row = " ".join(
            f"{json.dumps(each)}: {_type(schema, _TYPESCRIPT)};" for each, schema in metric.columns.items()
        )
        given = " ".join(
            f"{json.dumps(each)}{'' if each in metric.required else '?'}: {_type(schema, _TYPESCRIPT)};"
            for each, schema in metric.parameters.items()
        )
        arguments = f"{json.dumps(metric.id)}, {json.dumps(metric.title)}"
        lines += [
            "",
            f"export type {capital}Row = {{ {row} }};",
            f"export type {capital}Parameters = {{ {given} }};",
            f"export const {name} = metric<{capital}Row, {capital}Parameters>({arguments});",
        ]
    used = "metric, type Value" if any(re.search(r"\bValue\b", line) for line in lines) else "metric"
    head = [
        f"// The metrics of {json.dumps(address)}, made by: python -m tally_client metrics --typescript",
        f"import {{ {used} }} from {json.dumps(package)};",
    ]
    return "\n".join([*head, *lines]) + "\n"


def _camel(words: list[str]) -> str:
    first, *rest = (word.lower() for word in words)
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


class _Names:
    """Gives each metric a name, and none twice, not even in another case."""

    def __init__(self, taken: frozenset[str], mark: str) -> None:
        self._reserved, self._taken, self._mark = taken, set[str](), mark

    def of(self, metric: Described, join: Callable[[list[str]], str]) -> str:
        name = join(metric.words) if metric.words else ""
        if not name or name[0].isdigit():
            name = join(["metric", *metric.words])
        if name in self._reserved:
            name += self._mark
        if re.sub(r"[_$]", "", name).lower() in self._taken:
            name = f"{name}_{metric.id.replace('-', '')}"
        self._taken.add(re.sub(r"[_$]", "", name).lower())
        return name


@dataclass(frozen=True)
class _Words:
    """How a language writes types."""

    types: dict[tuple[str, str], str]
    unknown: str
    null: str
    many: str
    literal: str
    between: str


_PYTHON: Final = _Words(PYTHON_TYPES, "Any", "None", "list[{}]", "Literal[{}]", ", ")
_TYPESCRIPT: Final = _Words(TYPESCRIPT_TYPES, "Value", "null", "({})[]", "{}", " | ")


def _type(schema: Object, words: _Words) -> str:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if "array" in kinds:
        return words.many.format(_type(schema.get("items", {}), words))
    if closed := [json.dumps(each) for each in schema.get("enum", ()) if isinstance(each, str)]:
        return words.literal.format(words.between.join(closed))
    found = [
        words.types.get((kind, schema.get("format", "")), words.unknown) for kind in kinds if kind != "null"
    ]
    written = found[0] if found else words.unknown
    nullable = "null" in kinds or not kinds
    return f"{written} | {words.null}" if nullable and written != words.unknown else written
