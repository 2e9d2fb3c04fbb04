"""The generated part of the JavaScript client: a table of the operations, and their TypeScript types."""

import json
from pathlib import Path
from typing import Any, Final

from typescript_types import interface, key, safe, type_of

Object = dict[str, Any]
Operations = list[tuple[str, str, Object]]

BY_HAND: Final = frozenset(("importFile", "watchMetric", "watchMetrics", "watchDashboard"))
"""Operations that `tally-client.js` has methods of its own for."""
HIDDEN: Final = frozenset(("format", "excel", "bom", "If-None-Match"))
"""Parameters that the client chooses itself."""
REPEATABLE: Final = frozenset(("getMetricResults",))
MADE: Final = "// Made by `make sdk` from the OpenAPI document. Edit the service instead.\n"


def write(operations: Operations, schemas: Object, remedies: dict[str, str], target: Path) -> None:
    folder = target / "generated"
    folder.mkdir(exist_ok=True)
    table = {
        operation["operationId"]: _entry(method, path, operation)
        for method, path, operation in operations
        if operation["operationId"] not in BY_HAND
    }
    (folder / "table.js").write_text(
        f"{MADE}/** @type {{Record<string, any>}} */\n"
        f"export const operations = {json.dumps(table, indent=1)};\n"
        "/** @type {Record<string, string>} */\n"
        f"export const remedies = {json.dumps(remedies, indent=1)};\n"
    )
    (folder / "operations.d.ts").write_text(_types(operations, schemas))


def _entry(method: str, path: str, operation: Object) -> Object:
    name = operation["operationId"]
    kept = [each for each in operation.get("parameters", ()) if each["name"] not in HIDDEN]
    media = next(iter(operation.get("requestBody", {}).get("content", ())), None)
    accepted = [
        int(status)
        for status, answer in operation["responses"].items()
        if status >= "400" and "application/json" in answer.get("content", {}) and path != "/oauth2/token"
    ]
    return {
        "method": method,
        "path": path,
        "in": [each["name"] for each in kept if each["in"] == "path"],
        "query": [each["name"] for each in kept if each["in"] == "query"],
        "headers": {_snake(each["name"]): each["name"] for each in kept if each["in"] == "header"},
        "body": media,
        "answer": _answer(operation)[0],
        "repeatable": name in REPEATABLE,
        "accepted": accepted,
    }


def iterated(name: str) -> str:
    """The name of the method that follows the cursor of an operation."""
    return f"iter{name.removeprefix('list').removeprefix('get')}"


def _snake(header: str) -> str:
    return header.lower().replace("-", "_")


def _answer(operation: Object) -> tuple[str, str]:
    """How the body of a success is read, and its type."""
    success = min(status for status in operation["responses"] if status < "300")
    content: Object = operation["responses"][success].get("content", {})
    for media, described in content.items():
        if "json" in media and "ndjson" not in media:
            return "json", type_of(described["schema"])
    return ("text", "string") if content else ("nothing", "void")


def _types(operations: Operations, schemas: Object) -> str:
    parts = [MADE, _VALUES]
    parts += [interface(name, schemas[name]) for name in sorted(schemas)]
    methods = [
        text
        for method, path, operation in operations
        if operation["operationId"] not in BY_HAND
        for text in _methods(method, path, operation, schemas)
    ]
    return "\n\n".join([*parts, "export interface Operations {\n" + "\n".join(methods) + "\n}"]) + "\n"


_VALUES: Final = """/** Any value of JSON, read without rounding. */
export type Value = string | number | bigint | boolean | null | Value[] | { [name: string]: Value };

export interface Call {
  /** Ends the request, and the waiting between its repetitions. */
  signal?: AbortSignal;
}"""


def _methods(method: str, path: str, operation: Object, schemas: Object) -> list[str]:
    name = operation["operationId"]
    entry = _entry(method, path, operation)
    positional = [f"{each}: string | number" for each in entry["in"]]
    if entry["body"]:
        positional.append(f"body: {type_of(operation['requestBody']['content'][entry['body']]['schema'])}")
    text = f"  /** {safe(operation.get('summary', name))} */\n"
    options, required = _options(operation, entry, ())
    taken = ", ".join([*positional, f"options{'' if required else '?'}: {options}"])
    said = [f"{text}  {name}({taken}): Promise<{_answer(operation)[1]}>;"]
    if "cursor" in entry["query"]:
        page = schemas[_answer(operation)[1]]
        item = type_of(page["properties"]["items"]["items"])
        options, required = _options(operation, entry, ("cursor",))
        taken = ", ".join([*positional, f"options{'' if required else '?'}: {options}"])
        said.append(f"{text}  {iterated(name)}({taken}): AsyncGenerator<{item}, void, void>;")
    return said


def _options(operation: Object, entry: Object, without: tuple[str, ...]) -> tuple[str, bool]:
    known = {each["name"]: each for each in operation.get("parameters", ())}
    fields: list[str] = []
    required = False
    for name in entry["query"]:
        if name in without:
            continue
        needed = known[name]["required"]
        required = required or needed
        fields.append(f"{key(name)}{'' if needed else '?'}: {_query_type(known[name])};")
    fields += [f"{name}?: string;" for name in entry["headers"]]
    return (f"{{ {' '.join(fields)} }} & Call" if fields else "Call"), required


def _query_type(parameter: Object) -> str:
    return "Record<string, Value>" if parameter.get("explode") else type_of(parameter["schema"])
