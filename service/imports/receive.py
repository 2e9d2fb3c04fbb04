"""Store the body of an upload as one file on disk. The body is raw or a form, plain or gzipped.

A body is refused before it is read if its media type is not a table, if it states two files or if its coding
is unsupported. Only the file is stored, and never more bytes than the limit after unpacking.
"""

import asyncio
import re
import tempfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, Final

import multipart
from msgspec import Struct
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from service.errors import FieldError, InvalidInput, TooLarge, UnsupportedMediaType
from service.http.fields import items
from service.imports.readers import Upload
from service.imports.readers.encodings import stated_encoding

CHUNK: Final = 1 << 20
RAW_SOURCE: Final = "request"
PARTS: Final = 100
NAME_CHARACTERS: Final = 200
FORM: Final = "multipart/form-data"
TABLES: Final = frozenset(
    {
        "",
        "application/csv",
        "application/json",
        "application/json-seq",
        "application/jsonl",
        "application/ndjson",
        "application/octet-stream",
        "application/vnd.ms-excel",
        "application/vnd.ms-excel.sheet.macroenabled.12",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/x-json",
        "application/x-jsonlines",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "application/x-csv",
        "text/comma-separated-values",
        "text/csv",
        "text/json",
        "text/plain",
        "text/tab-separated-values",
        "text/x-csv",
    }
)
"""Media types of bodies and parts that may hold a table, including the generic ones that clients send."""


class Sent(Struct, frozen=True):
    """The headers of a request that describe its body. Absent headers are empty."""

    content_type: str
    content_encoding: str
    content_length: int


@asynccontextmanager
async def received(sent: Sent, body: AsyncIterator[bytes], bytes_limit: int) -> AsyncGenerator[Upload]:
    """Store a request's body as a file until the block ends.

    Raises `TooLarge` (before reading if Content-Length exceeds the limit), `UnsupportedMediaType` and
    `InvalidInput`.
    """
    if sent.content_length > bytes_limit:
        raise _too_large(bytes_limit)
    media_type, options = _media_type(sent.content_type)
    with tempfile.TemporaryDirectory(prefix="tally-import-") as folder:
        path = Path(folder) / "upload"
        with path.open("wb") as file:
            if media_type == FORM:
                sink = _Form(file, options)
            else:
                sink = _Raw(file, media_type, options.get("charset"))
            unpack = _unpacker(sent.content_encoding)
            size = packed = 0

            def take(chunk: bytes) -> None:
                nonlocal size, packed
                packed += len(chunk)
                for piece in unpack(chunk) if chunk else unpack.end():
                    size += len(piece)
                    if size > bytes_limit:
                        raise _too_large(bytes_limit)
                    sink.write(piece)
                if packed > bytes_limit:
                    raise _too_large(bytes_limit)

            async for chunk in body:
                if chunk:
                    await asyncio.to_thread(take, chunk)
            await asyncio.to_thread(take, b"")
            source, charset = sink.end()
        yield Upload(path, source, charset)


class _Raw:
    """A raw body, which is the file itself."""

    def __init__(self, file: IO[bytes], media_type: str, charset: str | None) -> None:
        _must_be_table(media_type, charset)
        self._charset = charset
        self.write = file.write

    def end(self) -> tuple[str, str | None]:
        return RAW_SOURCE, self._charset


class _Form:
    """A form with the file in one part. Other parts are skipped."""

    def __init__(self, file: IO[bytes], options: dict[str, str]) -> None:
        self._file = file
        self._charset = options.get("charset")
        self._source: str | None = None
        self._foreign: str | None = None
        self._unpack: _Plain | _Gunzip | None = None
        try:
            self._parser = PushMultipartParser(options.get("boundary", ""), max_segment_count=PARTS)
        except MultipartError as error:
            raise _malformed(error) from None

    def write(self, piece: bytes) -> None:
        try:
            for event in self._parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif self._unpack is None:
                    continue
                elif event is None:
                    self._file.writelines(self._unpack.end())
                    self._unpack = None
                else:
                    self._file.writelines(self._unpack(bytes(event)))
        except MultipartError as error:
            raise _malformed(error) from None

    def end(self) -> tuple[str, str | None]:
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed(error) from None
        if self._source is None:
            raise _wrong_file("the multipart field `file` must be a file")
        if self._foreign is not None:
            raise _wrong_file(f"one file at a time, as the field `file`; {self._foreign!r} is a file too")
        return self._source, self._charset

    def _begin(self, part: MultipartSegment) -> None:
        if part.name != "file":
            self._foreign = part.name if part.filename else self._foreign
            return
        if self._source is not None:
            raise _wrong_file("one file at a time: this form has two fields `file`")
        if not part.filename:
            raise _wrong_file("the multipart field `file` must be a file")
        self._charset = part.charset or self._charset
        _must_be_table(part.content_type or "", self._charset)
        self._unpack = _unpacker(_header(part, "Content-Encoding"))
        self._source = _file_name(part.filename)


class _Plain:
    """A body without content coding."""

    def __call__(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def end(self) -> Iterator[bytes]:
        return iter(())


class _Gunzip:
    """A gzipped body with one or more members, unpacked in bounded chunks."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._began = False

    def __call__(self, chunk: bytes) -> Iterator[bytes]:
        self._began = True
        try:
            while chunk:
                if self._member.eof:
                    chunk = chunk.lstrip(b"\0")
                    if not chunk:
                        return
                    self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
                yield self._member.decompress(chunk, CHUNK)
                chunk = self._member.unconsumed_tail or self._member.unused_data
        except zlib.error as error:
            raise InvalidInput(f"Content-Encoding says gzip; the body is not: {error}") from None

    def end(self) -> Iterator[bytes]:
        yield self._member.flush()
        if self._began and not self._member.eof:
            raise InvalidInput("Content-Encoding says gzip; the body ends before gzip does")


def _media_type(header: str) -> tuple[str, dict[str, str]]:
    parse: Any = vars(multipart)["parse_options_header"]  # it has no type annotations
    return parse(header)


def _header(part: MultipartSegment, name: str) -> str:
    return ", ".join(value for header, value in part.headerlist if header == name)


def _unpacker(content_encoding: str) -> _Plain | _Gunzip:
    codings = [coding for coding in items(content_encoding.lower()) if coding != "identity"]
    if not codings:
        return _Plain()
    if codings in (["gzip"], ["x-gzip"]):
        return _Gunzip()
    raise UnsupportedMediaType(
        f"Content-Encoding {content_encoding[:60]!r} is not read; send gzip, or the file as it is.",
        headers={"Accept-Encoding": "gzip"},
    )


def _must_be_table(media_type: str, charset: str | None) -> None:
    if media_type not in TABLES:
        raise UnsupportedMediaType(
            f"{media_type[:60]!r} is no table; send CSV, JSON or XLSX (text/csv, application/json, "
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet), or no Content-Type."
        )
    stated_encoding(charset)


def _file_name(sent: str) -> str:
    """The last part of a client's path, with printable characters only."""
    name = re.split(r"[/\\]", sent)[-1]
    return "".join(mark for mark in name if mark.isprintable())[:NAME_CHARACTERS] or RAW_SOURCE


def _malformed(error: MultipartError) -> InvalidInput:
    return InvalidInput(f"The body is no well-formed multipart form: {error}.")


def _wrong_file(says: str) -> InvalidInput:
    return InvalidInput(errors=(FieldError("file", says),))


def _too_large(bytes_limit: int) -> TooLarge:
    return TooLarge(f"The file is larger than IMPORT_BYTES_LIMIT, {bytes_limit} bytes.")
