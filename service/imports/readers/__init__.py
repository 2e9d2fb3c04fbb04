"""Files to tables of records: CSV and JSON as streams, workbooks by sheet; a bad file is refused whole."""

import asyncio
import hashlib
import re
from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from service.errors import InvalidInput, TooLarge
from service.imports.datasets import Dataset
from service.imports.readers.delimited import read_delimited
from service.imports.readers.documents import read_document
from service.imports.readers.tables import Table, grid_table
from service.imports.readers.workbooks import open_sheet

Format = Literal["csv", "json", "xlsx"]

CHUNK = 1 << 20
LINE_BYTES = 16 << 20
UNDEFINED_IN_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")


class Upload(Struct, frozen=True):
    """A file on disk and the name it came under."""

    path: Path
    source: str


class Facts(Struct, frozen=True):
    """What one pass over the bytes tells."""

    size: int
    sha256: str
    format: Format
    encoding: str
    has_nul: bool


def inspect(upload: Upload, *, bytes_limit: int) -> Facts:
    """Hash the file and tell its format and encoding; a file that cannot be text is refused."""
    digest, size, head, scan = hashlib.sha256(), 0, b"", _Scan()
    with upload.path.open("rb") as file:
        while chunk := file.read(CHUNK):
            head = head or chunk
            size += len(chunk)
            if size > bytes_limit:
                raise TooLarge(f"{upload.source}: larger than IMPORT_BYTES_LIMIT, {bytes_limit} bytes")
            digest.update(chunk)
            scan.feed(chunk)
    kind = _format(upload.source, head)
    encoding = "" if kind == "xlsx" else _encoding(upload.source, kind, head, scan)
    if kind == "csv" and scan.longest_line > LINE_BYTES:
        raise InvalidInput(f"{upload.source}: a line is longer than {LINE_BYTES} bytes")
    return Facts(size=size, sha256=digest.hexdigest(), format=kind, encoding=encoding, has_nul=scan.has_nul)


@asynccontextmanager
async def opened(
    upload: Upload, facts: Facts, dataset: Dataset, *, bytes_limit: int, workbooks: asyncio.Semaphore
) -> AsyncGenerator[Table]:
    """Open the file as rows of the dataset; `workbooks` limits how many are read at the same time.

    Raises `InvalidInput` at once for headings that do not fit, and while records are drawn for a file that
    turns out to be broken: the caller must land nothing of it.
    """
    path, source = upload.path, upload.source
    match facts.format:
        case "json":
            yield await asyncio.to_thread(read_document, path, source, dataset)
        case "xlsx":
            async with open_sheet(path, source, dataset, bytes_limit=bytes_limit, readers=workbooks) as sheet:
                headings, rows = sheet.headings, sheet.rows
                yield grid_table(source, dataset, headings, rows, notes=sheet.notes, longest=sheet.longest)
        case "csv":
            yield await asyncio.to_thread(
                read_delimited, path, source, dataset, encoding=facts.encoding, has_nul=facts.has_nul
            )


class _Scan:
    """What must be known of all bytes before the first row is believed."""

    def __init__(self) -> None:
        self.has_nul = False
        self.undefined_in_1252 = False
        self.longest_line = 0
        self._line = 0
        self._decoders = {name: getincrementaldecoder(name)() for name in ("utf-8", "utf-16")}

    def feed(self, chunk: bytes) -> None:
        self.has_nul = self.has_nul or b"\0" in chunk
        self.undefined_in_1252 = self.undefined_in_1252 or bool(UNDEFINED_IN_1252.search(chunk))
        first = chunk.find(b"\n")
        if first < 0:
            self._line += len(chunk)
        else:
            self.longest_line = max(self.longest_line, self._line + first)
            self._line = len(chunk) - chunk.rfind(b"\n") - 1
        self.longest_line = max(self.longest_line, self._line)
        self._decode(chunk, final=False)

    def valid(self, encoding: str) -> bool:
        self._decode(b"", final=True)
        return encoding in self._decoders

    def _decode(self, chunk: bytes, *, final: bool) -> None:
        for name, decoder in list(self._decoders.items()):
            try:
                decoder.decode(chunk, final)
            except UnicodeError:
                del self._decoders[name]


def _format(source: str, head: bytes) -> Format:
    suffix = Path(source).suffix.lower()
    if head.startswith(b"PK\x03\x04") or suffix in {".xlsx", ".xlsm"}:
        return "xlsx"
    if head.startswith(b"\xd0\xcf\x11\xe0") or suffix in {".xls", ".xlsb", ".ods"}:
        raise InvalidInput(f"{source}: this kind of workbook is not read; save it as .xlsx or CSV")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if suffix in {".json", ".jsonl", ".ndjson"} or (
        suffix not in {".csv", ".tsv"} and start in b"[{" and start
    ):
        return "json"
    return "csv"


def _encoding(source: str, kind: Format, head: bytes, scan: _Scan) -> str:
    if kind == "csv" and head.startswith((b"\xff\xfe", b"\xfe\xff")):
        if scan.valid("utf-16"):
            return "utf-16"
        raise InvalidInput(f"{source}: begins as UTF-16 and is not; save it as UTF-8")
    if scan.valid("utf-8"):
        return "utf-8-sig" if head.startswith(b"\xef\xbb\xbf") else "utf-8"
    if kind == "json":
        raise InvalidInput(f"{source}: JSON must be UTF-8")
    if scan.undefined_in_1252:
        raise InvalidInput(f"{source}: neither UTF-8 nor Windows-1252; save it as UTF-8")
    return "cp1252"
