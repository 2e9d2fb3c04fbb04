"""Read files as record tables: CSV and JSON as streams, workbooks by sheet. A bad file is refused whole."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from service.errors import InvalidInput, TooLarge, UnsupportedMediaType
from service.imports.contracts import Dataset
from service.imports.readers.delimited import read_delimited
from service.imports.readers.documents import read_document
from service.imports.readers.encodings import (
    CHUNK,
    UTF_8_MARK,
    TextScan,
    chosen_encoding,
    is_windows_1252,
    stated_encoding,
)
from service.imports.readers.tables import Table, grid_table
from service.imports.readers.workbooks import open_sheet

Format = Literal["csv", "json", "xlsx"]

REFUSALS: Final = (InvalidInput, TooLarge, UnsupportedMediaType)
"""Problems that refuse a whole file."""
NO_TABLES: Final = {
    b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image",
    b"II*\0": "a TIFF image", b"MM\0*": "a TIFF image", b"RIFF": "an image, sound or film",
    b"%PDF-": "a PDF", b"\x1f\x8b": "gzip (send it with Content-Encoding: gzip)", b"BZh": "bzip2",
    b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"7z\xbc\xaf": "7z", b"Rar!": "RAR",
    b"\x7fELF": "a program", b"SQLite format 3\0": "an SQLite database",
}  # fmt: skip
"""First bytes of files that are never tables, whatever their media type."""


class Upload(Struct, frozen=True):
    """A file on disk, its original name, and the charset of its Content-Type."""

    path: Path
    source: str
    charset: str | None = None


class Facts(Struct, frozen=True):
    """Facts from one pass over the bytes. `damaged` text has bytes that are invalid in its encoding."""

    size: int
    sha256: str
    format: Format
    encoding: str
    has_nul: bool
    damaged: bool


def inspect(upload: Upload, *, bytes_limit: int) -> Facts:
    """Hash the file and detect its format and encoding. Raises one of `REFUSALS`."""
    digest, size = hashlib.sha256(), 0
    with upload.path.open("rb") as file:
        head = file.read(CHUNK)
        kind = _format(upload.source, head)
        scan = None if kind == "xlsx" else TextScan(_stated(upload, kind, head))
        chunk = head
        while chunk:
            size += len(chunk)
            if size > bytes_limit:
                raise TooLarge(f"{upload.source}: larger than IMPORT_BYTES_LIMIT, {bytes_limit} bytes")
            digest.update(chunk)
            following = file.read(CHUNK)
            if scan:
                _feed(scan, upload.source, chunk, final=not following)
            chunk = following
    facts = Facts(size, digest.hexdigest(), kind, "", has_nul=False, damaged=False)
    return _settled(facts, scan, upload, head) if scan else facts


@asynccontextmanager
async def opened(
    upload: Upload, facts: Facts, dataset: Dataset, *, bytes_limit: int, readers: asyncio.Semaphore
) -> AsyncGenerator[Table]:
    """Open the file as rows of the dataset. `readers` limits how many files are read at once.

    Raises `InvalidInput` at once for headings that do not match. Reading records raises it for a broken file;
    then the caller must import nothing of the file.
    """
    path, source = upload.path, upload.source
    match facts.format:
        case "json":
            yield await asyncio.to_thread(read_document, path, source, dataset)
        case "xlsx":
            async with open_sheet(path, source, dataset, bytes_limit=bytes_limit, readers=readers) as sheet:
                headings, rows = sheet.headings, sheet.rows
                yield grid_table(source, dataset, headings, rows, notes=sheet.notes)
        case "csv":
            yield await asyncio.to_thread(
                read_delimited,
                path,
                source,
                dataset,
                encoding=facts.encoding,
                has_nul=facts.has_nul,
                damaged=facts.damaged,
            )


def _format(source: str, head: bytes) -> Format:
    """Detect the format. Raises `UnsupportedMediaType` or, for an unsupported workbook, `InvalidInput`."""
    for mark, what in NO_TABLES.items():
        if head.startswith(mark):
            raise UnsupportedMediaType(f"{source}: this is {what}, no table; send CSV, JSON or XLSX")
    suffix = Path(source).suffix.lower()
    if head.startswith(b"PK\x03\x04") or suffix in {".xlsx", ".xlsm"}:
        return "xlsx"
    if head.startswith(b"\xd0\xcf\x11\xe0") or suffix in {".xls", ".xlsb", ".ods"}:
        raise InvalidInput(f"{source}: this kind of workbook is not read; save it as .xlsx or CSV")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\v\f\x1e")[:1]
    if suffix in {".json", ".jsonl", ".ndjson"} or (
        suffix not in {".csv", ".tsv"} and start in b"[{" and start
    ):
        return "json"
    return "csv"


def _stated(upload: Upload, kind: Format, head: bytes) -> str | None:
    """The encoding that the request or the file states. None if it must be detected."""
    stated = stated_encoding(upload.charset)
    if kind == "csv":
        return chosen_encoding(upload.source, head, stated)
    if stated not in {None, "utf-8", "ascii"}:
        raise UnsupportedMediaType(f"{upload.source}: JSON must be UTF-8, not {stated}")
    return None


def _feed(scan: TextScan, source: str, chunk: bytes, *, final: bool) -> None:
    try:
        scan.feed(chunk, final=final)
    except UnicodeError:
        how = "begins as" if scan.encoding == "utf-16" else "is stated to be"
        raise InvalidInput(f"{source}: {how} {scan.encoding.upper()} and is not; save it as UTF-8") from None


def _settled(facts: Facts, scan: TextScan, upload: Upload, head: bytes) -> Facts:
    """Add the encoding to the facts. Text without any valid UTF-8 character is Windows-1252."""
    encoding = scan.encoding
    if scan.broken and facts.format == "json":
        raise InvalidInput(f"{upload.source}: JSON must be UTF-8")
    if facts.format == "json" and head.startswith(UTF_8_MARK):
        encoding = "utf-8-sig"
    damaged = scan.broken
    if damaged and not scan.sound and encoding == "utf-8" and upload.charset is None:
        if not is_windows_1252(upload.path):
            raise InvalidInput(f"{upload.source}: neither UTF-8 nor Windows-1252; save it as UTF-8")
        encoding, damaged = "cp1252", False
    return msgspec.structs.replace(facts, encoding=encoding, has_nul=scan.has_nul, damaged=damaged)
