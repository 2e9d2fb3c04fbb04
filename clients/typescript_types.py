"""TypeScript types of JSON schemas."""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

Object = dict[str, Any]

SIMPLE: Final = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def type_of(schema: Object) -> str:
    """The type of a schema as text."""
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[-1]
    if members := schema.get("oneOf") or schema.get("anyOf"):
        return _union(type_of(each) for each in members)
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return _union(json.dumps(each, ensure_ascii=False) for each in schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union(type_of({**schema, "type": each}) for each in kind)
    return _one_type(kind or "", schema)


def _union(types: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(types))


def _one_type(kind: str, schema: Object) -> str:
    if kind == "array":
        inner = type_of(schema.get("items", {}))
        return f"({inner})[]" if " | " in inner else f"{inner}[]"
    if kind == "object":
        return _object(schema)
    return "Blob" if schema.get("format") == "binary" else SIMPLE.get(kind, "Value")


def _object(schema: Object) -> str:
    if schema.get("properties"):
        return "{ " + " ".join(_fields(schema)) + " }"
    values = schema.get("additionalProperties")
    return f"Record<string, {type_of(values) if isinstance(values, dict) else 'Value'}>"


def _fields(schema: Object) -> list[str]:
    required = schema.get("required", ())
    return [
        f"{key(name)}{'' if name in required else '?'}: {type_of(field)};"
        for name, field in schema["properties"].items()
    ]


def interface(name: str, schema: Object) -> str:
    """A named type. `name` is one of the service's own."""
    comment = f"/** {safe(schema['description'])} */\n" if schema.get("description") else ""
    if not schema.get("properties"):
        return f"{comment}export type {name} = {type_of(schema)};"
    lines = "\n".join(f"  {line}" for line in _fields(schema))
    return f"{comment}export interface {name} {{\n{lines}\n}}"


def key(name: str) -> str:
    """A field's name as a key: any text may be one."""
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=True)


def safe(text: str) -> str:
    """Text that can stand inside a comment."""
    return " ".join(text.replace("*/", "*\\/").split())
