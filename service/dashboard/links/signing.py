"""The token of a link: what it opens, signed with the key in LINK_SECRET_FILE."""

import hmac
import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from service.errors import LinkKeyUnusable, NotFound, Stop
from service.http import base64url

KEY_BYTES: Final = 32
LONGEST_TOKEN: Final = 4096
"""Characters. Proxies and browsers take addresses of some 8,000."""
_PURPOSE: Final = b"tally link 1\0"  # this key signs nothing else


class Claims(Struct, frozen=True):
    """What a token says: the link's id, dashboard and fixed parameters; its end in seconds since 1970."""

    link: int
    dashboard: str
    parameters: dict[str, str]
    expires: int


class Signer:
    """Signs and reads tokens. The key file is created, readable by its owner only, if it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None

    def sign(self, claims: Claims) -> str:
        payload = base64url.encode(msgspec.json.encode(claims, order="deterministic"))
        return f"{payload.decode()}.{base64url.encode(self._mac(payload)).decode()}"

    def read(self, token: str) -> Claims:
        """Raises `NotFound` for a token that this key did not sign, or that somebody has changed."""
        payload, dot, signature = token.encode("utf-8", "replace").partition(b".")
        with suppress(ValueError, msgspec.DecodeError):
            if len(token) <= LONGEST_TOKEN and dot:
                right = hmac.compare_digest(self._mac(payload), base64url.decode(signature))
                if right:
                    return msgspec.json.decode(base64url.decode(payload), type=Claims)
        raise NotFound("This is no link of ours, or some of it is missing: copy it whole.")

    def _mac(self, payload: bytes) -> bytes:
        if self._key is None:
            try:
                self.load()
            except Stop as stop:
                raise LinkKeyUnusable(str(stop)) from None
        assert self._key is not None
        return hmac.digest(self._key, _PURPOSE + payload, sha256)

    def load(self) -> None:
        """Read the key. Raises `Stop` if the file is not usable."""
        try:
            if not self._path.exists():
                self._create()
            if self._path.stat().st_mode & 0o077:
                raise Stop(
                    f"{self._path} signs links and is open to others: chmod 600 {self._path}", exit_code=2
                )
            key = self._path.read_bytes().strip()
        except OSError as error:
            raise Stop(f"LINK_SECRET_FILE: {self._path}: {error.strerror}", exit_code=2) from None
        if len(key) < KEY_BYTES:
            raise Stop(f"LINK_SECRET_FILE: {self._path} holds fewer than {KEY_BYTES} bytes", exit_code=2)
        self._key = key

    def _create(self) -> None:
        """Another process may create it at the same time: one of the two keys remains."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(secrets.token_hex(KEY_BYTES).encode())
        with suppress(FileExistsError):
            os.link(draft, self._path)
        draft.unlink()
