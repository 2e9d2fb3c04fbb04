"""JSON-RPC messages of the Model Context Protocol, and what the revisions ask of a request.

A request of revision 2026-07-28 says its version in `params._meta` and repeats version, method and name in
headers. Requests of earlier revisions follow an `initialize`, of which this server keeps nothing.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Raw, Struct

from service.errors import InvalidInput
from service.http import bodies
from service.http.asgi import Headers

MODERN: Final = "2026-07-28"
EARLIER: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions that begin with `initialize`."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
RESOURCE_NOT_FOUND: Final = -32002
"""Of earlier revisions. Since 2026-07-28 it is `INVALID_PARAMS`."""
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
SERVER_KEY: Final = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"

_BAD_REQUEST: Final = 400
_STATUS: Final = {
    PARSE_ERROR: _BAD_REQUEST,
    INVALID_REQUEST: _BAD_REQUEST,
    INVALID_PARAMS: _BAD_REQUEST,
    HEADER_MISMATCH: _BAD_REQUEST,
    UNSUPPORTED_VERSION: _BAD_REQUEST,
    METHOD_NOT_FOUND: 404,
}
_ALWAYS_REFUSED: Final = frozenset({PARSE_ERROR, INVALID_REQUEST, HEADER_MISMATCH, UNSUPPORTED_VERSION})
"""Errors whose HTTP status is the same in earlier revisions. There, others come with status 200."""
_ID: Final = re.compile(rb'"(?:[^"\\]|\\.){0,256}"|-?[0-9]{1,64}')
_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=")
_VERSION_FIELD: Final = b"mcp-protocol-version"
_METHOD_FIELD: Final = b"mcp-method"
_NAME_FIELD: Final = b"mcp-name"
_NAMED: Final = {"tools/call": "name", "resources/read": "uri", "prompts/get": "name"}
"""Methods whose `Mcp-Name` repeats this parameter."""
_NULL: Final = Raw(b"null")


class RpcError(Exception):
    """An error of the protocol, which `answer` turns into a message."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Call(Struct, frozen=True):
    """A request, or a notification if `id` is None. `modern`: of revision 2026-07-28."""

    id: Raw | None
    method: str
    params: dict[str, Raw]
    modern: bool = False


class Answer(Struct, frozen=True):
    """The status and body of a response. A notification has no body."""

    status: int
    body: bytes = b""


def success(request_id: Raw, result: Mapping[str, Any]) -> Answer:
    return Answer(200, bodies.encode({"jsonrpc": "2.0", "id": request_id, "result": result}))


def failure(request_id: Raw | None, error: RpcError, *, modern: bool) -> Answer:
    details: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.data is not None:
        details["data"] = error.data
    status = _STATUS.get(error.code, 200) if modern or error.code in _ALWAYS_REFUSED else 200
    return Answer(status, bodies.encode({"jsonrpc": "2.0", "id": request_id or _NULL, "error": details}))


def decode(text: Raw, kind: Any, within: str) -> Any:
    """Decode a part of a message. Raises `RpcError` that names the wrong field."""
    try:
        return bodies.decode(text, kind, within=within)
    except InvalidInput as wrong:
        raise RpcError(INVALID_PARAMS, wrong.sentence) from None


def read_fields(body: bytes) -> dict[str, Raw]:
    """The fields of a message. Raises `RpcError` for anything but one JSON object."""
    try:
        found = bodies.decode(body, dict[str, Raw] | list[Raw] | str | float | bool | None)
    except InvalidInput as wrong:
        raise RpcError(PARSE_ERROR, f"The body is not JSON: {wrong.sentence}") from None
    if isinstance(found, list):
        raise RpcError(INVALID_REQUEST, "Send one message per request: batches are not part of the protocol.")
    if not isinstance(found, dict):
        raise RpcError(INVALID_REQUEST, "A message is a JSON object.")
    return found  # type: ignore[reportUnknownVariableType]


def id_of(fields: Mapping[str, Raw]) -> Raw | None:
    """The id of a request, None of a notification. Raises `RpcError` unless it is a text or an integer."""
    given = fields.get("id")
    if given is None:
        return None
    if not _ID.fullmatch(bytes(given)) or not _is_utf8(given):
        raise RpcError(INVALID_REQUEST, "`id` is a text of up to 256 characters in UTF-8 or an integer.")
    return given


def _is_utf8(text: Raw) -> bool:
    """Whether it can be sent back: what stays undecoded is not checked by the decoder."""
    try:
        bytes(text).decode()
    except UnicodeDecodeError:
        return False
    return True


def read_call(fields: Mapping[str, Raw], request_id: Raw | None, headers: Headers) -> Call:
    """Read a message and validate it by its revision. Raises `RpcError`."""
    if fields.get("jsonrpc") is None or bytes(fields["jsonrpc"]) != b'"2.0"':
        raise RpcError(INVALID_REQUEST, '`jsonrpc` has to be "2.0".')
    method = bytes(fields.get("method", b"null"))
    if method[:1] != b'"':
        raise RpcError(INVALID_REQUEST, "`method` has to be a text: this server takes requests only.")
    name: str = decode(Raw(method), str, "method")
    params: dict[str, Raw] = decode(fields["params"], dict[str, Raw], "params") if "params" in fields else {}
    meta: dict[str, Raw] = (
        decode(params["_meta"], dict[str, Raw], "params._meta") if "_meta" in params else {}
    )
    sent = _routing_fields(headers)
    version = sent.get(_VERSION_FIELD)
    if version in EARLIER or (version is None and VERSION_KEY not in meta):
        return Call(request_id, name, params)
    if request_id is None:
        _refuse_unsupported(version or MODERN)
        return Call(None, name, params, modern=True)
    _check_modern(name, params, meta, sent)
    return Call(request_id, name, params, modern=True)


def _routing_fields(headers: Headers) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in {_VERSION_FIELD, _METHOD_FIELD, _NAME_FIELD}:
            if name in found:
                raise RpcError(HEADER_MISMATCH, f"The header {name.decode()} is given twice.")
            found[name] = value.decode("latin-1").strip()
    return found


def _check_modern(
    method: str, params: Mapping[str, Raw], meta: Mapping[str, Raw], sent: Mapping[bytes, str]
) -> None:
    """Raise `RpcError` for a request of 2026-07-28 that is incomplete or contradicts its headers."""
    version = sent.get(_VERSION_FIELD)
    if VERSION_KEY not in meta or CAPABILITIES_KEY not in meta:
        if version is not None:
            _refuse_unsupported(version)
        raise RpcError(INVALID_PARAMS, f"`params._meta` needs `{VERSION_KEY}` and `{CAPABILITIES_KEY}`.")
    stated: str = decode(meta[VERSION_KEY], str, f"params._meta.{VERSION_KEY}")
    decode(meta[CAPABILITIES_KEY], dict[str, Raw], f"params._meta.{CAPABILITIES_KEY}")
    if version != stated:
        raise RpcError(HEADER_MISMATCH, f"The header MCP-Protocol-Version has to be {stated[:40]!r} too.")
    _refuse_unsupported(stated)
    if sent.get(_METHOD_FIELD) != method:
        raise RpcError(HEADER_MISMATCH, f"The header Mcp-Method has to be {method[:80]!r} too.")
    if (field := _NAMED.get(method)) and field in params:
        name: str = decode(params[field], str, f"params.{field}")
        if _plain(sent.get(_NAME_FIELD, "")) != name:
            raise RpcError(HEADER_MISMATCH, f"The header Mcp-Name has to be `params.{field}` too.")


def _refuse_unsupported(version: str) -> None:
    """Name the revisions that a request may state by itself; those before are agreed on by `initialize`."""
    if version != MODERN:
        details = {"supported": [MODERN], "requested": version[:100]}
        raise RpcError(UNSUPPORTED_VERSION, "This revision of the protocol is not supported.", details)


def _plain(value: str) -> str | None:
    """A header's value, which may be encoded. None if the encoding is wrong."""
    found = _ENCODED.fullmatch(value)
    if found is None:
        return value
    try:
        return b64decode(found[1], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
