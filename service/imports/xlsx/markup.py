"""Parse XML as a stream with expat. DTDs, custom entities and tokens beyond a limit are refused."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final
from xml.parsers import expat

from service.errors import InvalidInput

TOKEN_BYTES: Final = 1 << 20
NAMESPACES: Final = (
    "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
    "http://purl.oclc.org/ooxml/spreadsheetml/main",
    "http://schemas.openxmlformats.org/package/2006/relationships",
)

Attributes = dict[str, str]
Start = Callable[[str, Attributes], object]
End = Callable[[str], object]
Text = Callable[[str], object]


def names(*words: str) -> dict[str, str]:
    """Map expat's element names to local names, in the namespaces of workbooks or in none."""
    return {f"{space} {word}".lstrip(): word for word in words for space in (*NAMESPACES, "")}


def parse(
    chunks: Iterable[bytes], start: Start, end: End | None = None, text: Text | None = None
) -> Iterator[None]:
    """Feed chunks to the parser. Yield after each chunk."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    fed = 0
    for chunk in chunks:
        parser.Parse(chunk, False)
        fed += len(chunk)
        if fed - parser.CurrentByteIndex > TOKEN_BYTES:
            raise InvalidInput(f"not a workbook that can be read: a tag of more than {TOKEN_BYTES} bytes")
        yield
    parser.Parse(b"", True)
    yield


def elements(chunks: Iterable[bytes], words: set[str]) -> Iterator[tuple[str, Attributes]]:
    """Yield the elements with these names and their attributes, at any depth."""
    known = names(*words)
    found: list[tuple[str, Attributes]] = []

    def start(name: str, attributes: Attributes) -> None:
        if word := known.get(name):
            found.append((word, attributes))

    for _ in parse(chunks, start):
        yield from found
        found.clear()


def _refuse_doctype(*_: object) -> None:
    raise InvalidInput("not a workbook that can be read: a DTD has no place in it")
