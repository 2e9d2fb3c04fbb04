"""Files that are sent: read piece by piece, never whole."""

from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from . import exact

Source = Path | str | bytes | IO[bytes] | list[dict[str, Any]]
"""A path, the bytes of a file, a file opened for reading bytes, or rows."""

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
File = tuple[str, IO[bytes], str]


@contextmanager
def opened(source: Source, name: str | None) -> Generator[File]:
    """Name, content and media type of a file; its name's ending tells the type."""
    if isinstance(source, list):
        yield _named(name or "rows.json", BytesIO(exact.dumps(source)))
    elif isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            yield _named(name or Path(source).name, file)
    elif isinstance(source, bytes):
        yield _named(name, BytesIO(source))
    else:
        own = getattr(source, "name", None)
        yield _named(name or (Path(own).name if isinstance(own, str) else None), source)


def _named(name: str | None, content: IO[bytes]) -> File:
    media_type = MEDIA_TYPES.get(Path(name or "").suffix.lower())
    if name is None or media_type is None:
        endings = ", ".join(MEDIA_TYPES)
        raise ValueError(
            f"the name of the file, here {name!r}, must end with one of {endings}: give it as `name`"
        )
    return name, content, media_type
