"""The files that pages load, below an address that changes with their content, so that browsers keep them."""

import mimetypes
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final

import zstandard
from msgspec import Struct

from service import bundled
from service.http.representation import SMALLEST, Coding, choose_coding, compress, tag_of_coding

FOLDER: Final = Path(__file__).with_name("static")
LIVE_CLIENT: Final = "tally-live.js"
FOREVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"

_TYPES: Final = {".js": "text/javascript", ".css": "text/css"}
_ALREADY_SMALL: Final = frozenset({".png", ".woff2"})
_VERSION_LENGTH: Final = 16


class Asset(Struct, frozen=True):
    """A file, and its codings as they are sent."""

    media_type: str
    bodies: dict[Coding, bytes]
    etag: str


class Assets:
    """All files of the pages, by their path below the folder. They are read once, at the start."""

    def __init__(self) -> None:
        self.files: dict[str, Asset] = {}
        version = sha256()
        for name, content in _contents():
            version.update(f"{name}\0{len(content)}\0".encode() + content)
            self.files[name] = _asset(name, content)
        self.version: Final = version.hexdigest()[:_VERSION_LENGTH]

    @property
    def root(self) -> str:
        """Where the present files are. Modules import each other by relative addresses below it."""
        return f"/static/{self.version}"

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The paths of all modules."""
        return tuple(name for name in self.files if name.endswith(".js"))

    def url(self, name: str) -> str:
        """The address of a file. Raises `KeyError` for a file that is not there."""
        assert self.files[name]
        return f"{self.root}/{name}"

    def find(self, version: str, name: str, accept_encoding: str) -> tuple[bytes, str, dict[str, str]] | None:
        """Body, media type and headers of a file.

        Another version asks for a file of an older or newer process: it gets ours, which it may not keep.
        """
        asset = self.files.get(name)
        if asset is None:
            return None
        coding = choose_coding(accept_encoding)
        if coding not in asset.bodies:
            coding = "identity"
        headers = {
            "Cache-Control": FOREVER if version == self.version else ASK_AGAIN,
            "ETag": tag_of_coding(asset.etag, coding),
            "Vary": "Accept-Encoding",
        }
        if coding != "identity":
            headers["Content-Encoding"] = coding
        return asset.bodies[coding], asset.media_type, headers


def _contents() -> Iterator[tuple[str, bytes]]:
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield path.relative_to(FOLDER).as_posix(), path.read_bytes()
    yield LIVE_CLIENT, (bundled("clients/js") / LIVE_CLIENT).read_bytes()


def _asset(name: str, content: bytes) -> Asset:
    suffix = Path(name).suffix
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    bodies: dict[Coding, bytes] = {"identity": content}
    if len(content) > SMALLEST and suffix not in _ALREADY_SMALL:
        bodies["gzip"] = compress(content, "gzip")
        bodies["zstd"] = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)
    return Asset(media_type, bodies, f'"{sha256(content).hexdigest()[:32]}"')


_ZSTD_LEVEL: Final = 19  # the files are compressed once
