"""Choose the encoding of a text file: the one that it states or marks, else UTF-8, else Windows-1252.

One broken byte never changes how the whole file is read.
"""

import codecs
import re
from pathlib import Path
from typing import Final

from service.errors import InvalidInput, UnsupportedMediaType
from service.imports.readers.records import BROKEN

CHUNK: Final = 1 << 20
SOUND: Final = re.compile("[^\x00-\x7f\udc80-\udcff]")
READ: Final = re.compile(
    r"utf-8|ascii|utf-16(-[lb]e)?|iso8859-\d+|cp\d+|koi8-[rtu]|mac-\w+|kz1048|ptcp154|tis-620"
    r"|gb2312|gbk|gb18030|big5|big5hkscs|shift_jis\w*|euc_\w+|iso2022_\w+|johab"
)
"""Python's names of the supported text encodings."""
UTF_8_MARK: Final = codecs.BOM_UTF8
UTF_16_MARKS: Final = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
UTF_32_MARKS: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


def stated_encoding(charset: str | None) -> str | None:
    """Python's name of a Content-Type's charset. Raises `UnsupportedMediaType`."""
    if charset is None:
        return None
    try:
        name = codecs.lookup(charset.strip()).name
    except (LookupError, ValueError):
        name = ""
    if not READ.fullmatch(name):
        raise UnsupportedMediaType(f"charset {charset[:40]!r} is not one that is read; send UTF-8")
    return name


def chosen_encoding(source: str, head: bytes, stated: str | None) -> str | None:
    """The encoding of the byte order mark or the Content-Type. None if it must be detected.

    Raises `InvalidInput` if byte order mark and Content-Type contradict each other.
    """
    marked = next((name for mark, name in UTF_16_MARKS.items() if head.startswith(mark)), None)
    if head.startswith(UTF_8_MARK):
        marked = "utf-8"
    if head.startswith(UTF_32_MARKS):
        raise InvalidInput(f"{source}: UTF-32 is not read; save it as UTF-8")
    if stated is None or marked is None:
        if stated == "utf-16":
            raise InvalidInput(f"{source}: UTF-16 without a byte order mark; state utf-16le or utf-16be")
        found = stated or marked
    elif marked == stated or (stated == "utf-16" and marked.startswith(stated)):
        found = marked
    else:
        raise InvalidInput(f"{source}: its Content-Type says {stated}, its byte order mark {marked}")
    if marked and found:
        return "utf-8-sig" if marked == "utf-8" else "utf-16"
    return found


class TextScan:
    """Scans all bytes before the first row is read."""

    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding or "utf-8"
        self.has_nul = False
        self.broken = False
        self.sound = False
        """Whether any character beyond ASCII is valid in this encoding."""
        self._decoder = codecs.getincrementaldecoder(self.encoding)()

    def feed(self, chunk: bytes, *, final: bool = False) -> None:
        """Raises `UnicodeError` for an encoding in which a broken byte cannot be assigned to a row."""
        state = self._decoder.getstate()
        try:
            text = self._decoder.decode(chunk, final)
        except UnicodeError:
            if self.encoding.startswith("utf-16"):
                raise
            self._decoder.errors = "surrogateescape"
            self._decoder.setstate(state)
            text = self._decoder.decode(chunk, final)
        self.has_nul = self.has_nul or "\0" in text
        if not text.isascii():
            self.broken = self.broken or (self._decoder.errors != "strict" and bool(BROKEN.search(text)))
            self.sound = self.sound or self._decoder.errors == "strict" or bool(SOUND.search(text))


def is_windows_1252(path: Path) -> bool:
    scan = TextScan("cp1252")
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            scan.feed(chunk)
    return not scan.broken
