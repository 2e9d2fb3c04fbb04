"""Read JSON as a stream of rows: an array, an object that holds an array, or an object per line (NDJSON).

Only one element is in memory at a time. Numbers keep their digits.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from service.errors import InvalidInput
from service.imports.contracts import Dataset
from service.imports.readers.tables import Number, Pairs, Record, Shaper, Table

CHUNK = 1 << 18
ELEMENT_CHARACTERS = 8 << 20
DEPTH = 64
VALUES = 200_000
"""Values that one element may have. A long element is counted before it is decoded."""
PARTS = ("items", "layouts")
"""Keys of an object that may hold rows. An object without these keys is a row."""
SPACE = re.compile(r"[ \t\r\n\x1e]*")
"""Between values. U+001E begins each record of `application/json-seq` (RFC 7464)."""
BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|([\[{])|([\]}])', re.DOTALL)

STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|([\[{])|([\]}])|(,)', re.DOTALL)

Element = tuple[int, Any, str | None]


def read_document(path: Path, source: str, dataset: Dataset) -> Table:
    columns = tuple(column.name for column in dataset.columns)
    shape = Shaper(dataset, columns)
    found = elements(path, source, part=dataset.json_part)
    return Table(columns, (_record(*element, shape) for element in found), shape.seen)


def _record(line: int, value: Any, raw: str | None, shape: Shaper) -> Record:
    if isinstance(value, Pairs):
        return shape(line, value, None, raw)
    return shape(line, [("value", value)], ("wrong-type", "a row must be an object"))


def elements(path: Path, source: str, *, part: str) -> Iterator[Element]:
    """Yield line, value and text of each row. Rows that got an added value have no text.

    An object holds its rows under `part`. With a further level of objects (`layouts`: `lg`: [...]) that key
    becomes the row's `breakpoint`. Raises `InvalidInput` with the line of invalid JSON.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        text = _Text(file, source)
        if text.peek() == "":
            text.refuse("the file is empty; an array of rows is expected")
        if text.peek() == "[":
            yield from _array(text)
            if text.peek():
                text.refuse("something follows the end of the array")
            return
        while text.peek():
            yield from _object(text, part)


def has_part(path: Path, source: str, part: str) -> bool:
    """Whether a document has rows under this key."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        text = _Text(file, source)
        if text.peek() != "{":
            return False
        text.take("{")
        while text.peek() == '"':
            key = text.value()
            if key == part:
                return True
            text.take(":")
            opening = text.peek()
            if key in PARTS and opening in {"[", "{"}:
                for _ in _rows(text, opening):
                    pass
            else:
                text.value()
            if text.peek() == ",":
                text.take(",")
    return False


def _array(text: "_Text") -> Iterator[Element]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        text.peek()
        yield text.line, *text.element()
        if text.peek() == "]":
            text.take("]")
            return
        text.take(",")


def _object(text: "_Text", part: str) -> Iterator[Element]:
    """Read an object that holds rows, or a value that is a row."""
    text.peek()
    line = text.line
    row = text.row()
    if row:
        yield line, *row
        return
    text.take("{")
    while text.peek() != "}":
        key = text.value()
        text.take(":")
        opening = text.peek()
        if key not in PARTS or opening not in {"[", "{"}:
            text.value()
        elif key != part:
            for _ in _rows(text, opening):
                pass
        else:
            yield from _rows(text, opening)
        if text.peek() != "}":
            text.take(",")
    text.take("}")


def _rows(text: "_Text", opening: str) -> Iterator[Element]:
    if opening == "[":
        yield from _array(text)
        return
    text.take("{")
    while text.peek() != "}":
        level = text.value()
        text.take(":")
        for line, value, raw in _array(text):
            if isinstance(value, Pairs):
                yield line, Pairs([*value, ("breakpoint", level)]), None
            else:
                yield line, value, raw
        if text.peek() != "}":
            text.take(",")
    text.take("}")


class _Text:
    """A window over the file. Text far before the position is dropped."""

    def __init__(self, file: TextIO, source: str) -> None:
        self.line = 1
        self._file = file
        self._source = source
        self._window = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder(
            object_pairs_hook=Pairs, parse_float=Number, parse_int=Number, parse_constant=self._constant
        )

    def peek(self) -> str:
        """The next character that is not a space. Empty at the end."""
        while True:
            found = SPACE.match(self._window, self._at)
            self._advance(found.end() if found else self._at)
            if self._at < len(self._window) or self._ended:
                return self._window[self._at : self._at + 1]
            self._read(CHUNK)

    def take(self, mark: str) -> None:
        if self.peek() != mark:
            self.refuse(f"'{mark}' is expected")
        self._advance(self._at + 1)

    def value(self) -> Any:
        return self.element()[0]

    def element(self) -> tuple[Any, str]:
        found = self._decoded()
        if found is None:
            self.refuse(
                f"a row is longer than {ELEMENT_CHARACTERS} characters, holds more than {VALUES} values "
                "or is never closed"
            )
        return self._passed(*found)

    def row(self) -> tuple[Any, str] | None:
        """Read a value that is a row. None for an object that holds rows, or is too long for a row."""
        found = self._decoded()
        if found is None or (isinstance(found[0], Pairs) and _holds_rows(found[0])):
            return None
        return self._passed(*found)

    def _passed(self, value: Any, end: int) -> tuple[Any, str]:
        raw = self._window[self._at : end]
        if raw.count("[") + raw.count("{") > DEPTH and _depth(raw) > DEPTH:
            self.refuse(f"nested deeper than {DEPTH}")
        self._advance(end)
        return value, raw

    def _decoded(self) -> tuple[Any, int] | None:
        """The next value and its end. None if the value is larger than an element may be."""
        self.peek()
        more = CHUNK
        while True:
            if len(self._window) - self._at > CHUNK and self._is_crowded():
                return None
            try:
                value, end = self._decoder.raw_decode(self._window, self._at)
            except RecursionError:
                self.refuse(f"nested deeper than {DEPTH}")
            except json.JSONDecodeError as error:
                if self._ended:
                    self.line += self._window.count("\n", self._at, error.pos)
                    self.refuse(f"not JSON: {error.msg[:1].lower()}{error.msg[1:]}")
                value, end = None, len(self._window)
            if end < len(self._window) or self._ended:  # a number at the end may continue in the next chunk
                return value, end
            if len(self._window) - self._at > ELEMENT_CHARACTERS:
                return None
            self._read(more)
            more *= 2

    def _is_crowded(self) -> bool:
        """Whether the next value, as far as it is read, holds more values than an element may."""
        if self._window[self._at] not in "[{":
            return False
        depth = values = 0
        for found in STRUCTURE.finditer(self._window, self._at):
            opens, closes, follows = found.groups()
            depth += bool(opens) - bool(closes)
            values += bool(opens or follows)
            if depth == 0 or values > VALUES:
                break
        return values > VALUES

    def refuse(self, reason: str) -> NoReturn:
        raise InvalidInput(f"{self._source}: line {self.line}: {reason}")

    def _constant(self, name: str) -> NoReturn:
        self.refuse(f"not JSON: {name} is no number of JSON")

    def _advance(self, to: int) -> None:
        self.line += self._window.count("\n", self._at, to)
        self._at = to

    def _read(self, characters: int) -> None:
        """Read more text and drop the text before the position."""
        more = self._file.read(characters)
        self._ended = not more
        self._window = self._window[self._at :] + more
        self._at = 0


def _holds_rows(value: Pairs) -> bool:
    return any(key in PARTS and isinstance(rows, list) for key, rows in value)


def _depth(raw: str) -> int:
    depth = deepest = 0
    for found in BRACKETS.finditer(raw):
        depth += bool(found[1]) - bool(found[2])
        deepest = max(deepest, depth)
    return deepest
