"""Read the JSON document of an exported dashboard."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from service.errors import Stop
from service.http import bodies
from service.metrics.exchange.plan import DEPTH_LIMIT, Node

BYTES_LIMIT: Final = 16 << 20
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # what PowerShell's `>` writes


def read(file: str, standard_input: Callable[[], BinaryIO]) -> Node:
    """The document of a file, or of standard input for `-`. Raises `Stop`."""
    try:
        if file == "-":
            content = standard_input().read(BYTES_LIMIT + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(BYTES_LIMIT + 1)
    except OSError as error:
        raise Stop(f"{file} cannot be read: {error.strerror}", exit_code=2) from None
    except ValueError as error:  # a NUL in the name
        raise Stop(f"this file cannot be read: {error}", exit_code=2) from None
    if len(content) > BYTES_LIMIT:
        raise Stop(f"{file} has more than {BYTES_LIMIT} bytes: it is no export of one dashboard", exit_code=2)
    return decoded(content, file)


def decoded(content: bytes, file: str) -> Node:
    """Raises `Stop` for anything but JSON in UTF-8 (or in UTF-16 with its mark)."""
    try:
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"is not UTF-8 (byte {error.start}): save it as UTF-8"
        raise Stop(f"{file} {why}", exit_code=2) from None
    if not text.strip():
        raise Stop(f"{file} is empty", exit_code=2)
    try:
        found = Node(bodies.decode_exact(text))
    except RecursionError:
        raise Stop(f"{file} is nested too deep", exit_code=2) from None
    except (msgspec.DecodeError, ValueError) as error:
        why = str(error).removeprefix("JSON is malformed: ")
        raise Stop(f"{file} is not JSON, or not all of it: {why}", exit_code=2) from None
    _check_depth(found, file)
    return found


def _check_depth(document: Node, file: str) -> None:
    """Exports are flat. What is nested deeper would only exhaust readers that follow it."""
    level = [document.value]
    for _ in range(DEPTH_LIMIT):
        level = [child for each in level for child in _inner(each) if isinstance(child, dict | list)]
        if not level:
            return
    raise Stop(f"{file} is nested too deep", exit_code=2)


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).values()
    return cast("list[Any]", value) if isinstance(value, list) else ()
