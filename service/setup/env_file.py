"""Write settings into a `.env` file, and leave every other line of it as it is."""

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

from service.environment import read_env_file
from service.errors import Stop

_HEAD: Final = "# Settings of Tally, which reads this file in the folder where it starts\n"
_PLAIN: Final = re.compile(r"[\w@%+=:,./-]*", re.ASCII)
_PASSWORD: Final = re.compile(r"(://[^:/?#@]*):[^/?#]*@|(password=)[^&\s]*")


def assignment(name: str, value: str) -> str:
    """A line `NAME=value` that shells, compose, systemd and Tally read alike."""
    if _PLAIN.fullmatch(value):
        return f"{name}={value}"
    if not set(value) & set("'\\\n"):
        return f"{name}='{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


def masked(text: str) -> str:
    """The text without the passwords of its addresses."""
    return _PASSWORD.sub(lambda found: f"{found[1]}:***@" if found[1] is not None else f"{found[2]}***", text)


def write(path: Path, values: Mapping[str, str]) -> list[str]:
    """Set these variables in the file; return what changed, one line each, without passwords.

    The file has mode 0600 afterwards. Raises `Stop` (2) when it cannot be written.
    """
    before = read_env_file(path)
    changes = [
        f"{'+' if name not in before else '~'} {masked(assignment(name, value))}"
        for name, value in values.items()
        if before.get(name) != value
    ]
    path = path.resolve()
    with suppress(OSError):
        if not changes and path.is_file() and path.stat().st_mode & 0o077 == 0:
            return []
    try:
        _replace(path, _with_values(path.read_text("utf-8") if path.exists() else _HEAD, values))
    except OSError as error:
        raise Stop(
            f"{path} cannot be written: {error.strerror}; --print prints what to set", exit_code=2
        ) from None
    return changes or [f"{path.name} has mode 0600 now"]


def _with_values(text: str, values: Mapping[str, str]) -> str:
    missing = dict(values)
    lines: list[str] = []
    for line in parse_stream(StringIO(text)):
        original = line.original.string
        if line.key is not None and line.key in values:
            missing.pop(line.key, None)
            if line.value != values[line.key]:
                original = f"{assignment(line.key, values[line.key])}\n"
        lines.append(original)
    kept = "".join(lines)
    if kept and not kept.endswith("\n"):
        kept += "\n"
    text = kept + "".join(f"{assignment(name, value)}\n" for name, value in missing.items())
    found = {line.key: line.value for line in parse_stream(StringIO(text))}
    if unreadable := [name for name, value in values.items() if found.get(name) != value]:
        raise Stop(f"{', '.join(unreadable)}: no line of .env can say this; --print prints it", exit_code=2)
    return text


def _replace(path: Path, text: str) -> None:
    """Replace the file at once. It is readable by its owner alone from its first byte on."""
    if path.exists() and not path.is_file():
        raise FileExistsError(0, "it is no file")
    number, fresh = tempfile.mkstemp(prefix=".env.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        if path.exists() and os.geteuid() == 0:
            os.chown(fresh, path.stat().st_uid, path.stat().st_gid)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
