"""The zip archive of a workbook. Parts are read by name and counted as they are unzipped."""

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Final

from service.errors import InvalidInput, TooLarge
from service.imports.xlsx import markup

CHUNK: Final = 1 << 16
PARTS: Final = 10_000
PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Package:
    """Part names match in any case, and a backslash counts as a slash."""

    def __init__(self, path: str, bytes_limit: int) -> None:
        self._archive = zipfile.ZipFile(path)
        self._limit = bytes_limit
        self._unzipped: dict[str, int] = {}
        self._total = 0
        self._parts: dict[str, list[zipfile.ZipInfo]] = {}
        members = self._archive.infolist()
        if len(members) > PARTS:
            raise TooLarge(f"more than {PARTS} files in one workbook")
        if sum(member.file_size for member in members) > bytes_limit:
            raise self._too_large()
        for member in members:
            self._parts.setdefault(_name(member.filename), []).append(member)

    def __contains__(self, name: str) -> bool:
        return _name(name) in self._parts

    def chunks(self, name: str) -> Iterator[bytes]:
        """Unzip a part in chunks. The limit applies to all parts together; each part counts once."""
        key = _name(name)
        members = self._parts.get(key, [])
        if not members:
            raise InvalidInput(f"not a workbook that can be read: {name} is missing")
        if len(members) > 1:
            raise InvalidInput(f"not a workbook that can be read: it has two files {name}")
        if members[0].flag_bits & 1:
            raise InvalidInput("the workbook is encrypted; save it without a password")
        if members[0].compress_type not in PACKED:
            raise InvalidInput(f"not a workbook that can be read: {name} is packed in an unknown way")
        size = 0
        with self._archive.open(members[0]) as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                self._count(key, size)
                yield chunk

    def related(self, name: str) -> dict[str, tuple[str, str]]:
        """The relations of a part by id: the last word of the type, and the name of the other part."""
        folder, base = posixpath.split(name)
        path = posixpath.join(folder, "_rels", f"{base}.rels")
        found: dict[str, tuple[str, str]] = {}
        if path not in self:
            return found
        for _, attributes in markup.elements(self.chunks(path), {"Relationship"}):
            if attributes.get("TargetMode") != "External":
                target = attributes.get("Target", "").replace("\\", "/")
                kind = attributes.get("Type", "").rpartition("/")[2]
                found[attributes.get("Id", "")] = (
                    kind,
                    posixpath.normpath(posixpath.join("/", folder, target)),
                )
        return found

    def _count(self, key: str, size: int) -> None:
        before = self._unzipped.get(key, 0)
        if size > before:
            self._unzipped[key] = size
            self._total += size - before
        if self._total > self._limit:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"unzipped it is larger than IMPORT_BYTES_LIMIT, {self._limit} bytes")


def _name(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").casefold()
