"""Our own tokens and the signing keys in DATA_DIR.

The newest key signs. A rotated key still verifies until the overlap ends. All processes with the same
DATA_DIR share the keys. They see a rotation at once, because they check the file before each use.
"""

import fcntl
import json
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Annotated, Any
from uuid import uuid4

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm
from msgspec import Meta, Struct

from service.auth.keys import RSA_BITS, Keys, Trust
from service.errors import Stop
from service.http import base64url
from service.settings import is_loopback_address

AUDIENCE = "tally"
TTL_S = 3600
TTL_LIMIT_S = 30 * 86_400
OVERLAP_S = 86_400


class SigningKey(Struct, frozen=True):
    """`jwk` is the private key; times are seconds since 1970."""

    kid: str
    created_at: float
    jwk: dict[str, Any]
    retires_at: float | None = None


SigningKeys = Annotated[tuple[SigningKey, ...], Meta(min_length=1)]


class KeyFile:
    """`signing-keys.json`, readable by its owner only. If it is missing, it is created with a first key."""

    def __init__(self, data_dir: Path, *, now: Callable[[], float] = time) -> None:
        self._path = data_dir / "signing-keys.json"
        self._now = now
        self._seen: tuple[int, int] | None = None
        self._keys: tuple[SigningKey, ...] = ()

    def read(self) -> tuple[SigningKey, ...]:
        """The keys that verify, the signing one first. Raises `Stop` if the file is not usable."""
        try:
            if not self._path.exists():
                self._create()
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_ino) != self._seen:
                self._keys = self._load()
                self._seen = (status.st_mtime_ns, status.st_ino)
        except OSError as error:
            raise Stop(f"{self._path}: {error.strerror}") from None
        return tuple(key for key in self._keys if key.retires_at is None or key.retires_at > self._now())

    def rotate(self, overlap_s: int = OVERLAP_S) -> SigningKey:
        """Sign with a new key from now on; the old one verifies for `overlap_s` more seconds."""
        self.read()
        new, end = _new_key(self._now()), self._now() + overlap_s
        with self._locked():
            retired = [
                msgspec.structs.replace(key, retires_at=min(key.retires_at or end, end))
                for key in self.read()
            ]
            self._write([new, *retired])
        return new

    def _create(self) -> None:
        with self._locked():
            if not self._path.exists():
                self._write([_new_key(self._now())])

    def _load(self) -> tuple[SigningKey, ...]:
        if self._path.stat().st_mode & 0o077:
            raise Stop(f"{self._path} holds private keys and is open to others: chmod 600 {self._path}")
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=SigningKeys)
        except msgspec.DecodeError as error:
            raise Stop(f"{self._path} is damaged ({error}): remove it to have a new key made") from None

    def _write(self, keys: list[SigningKey]) -> None:
        """Write the file atomically. It is never readable by others."""
        draft = self._path.with_suffix(f".{os.getpid()}")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(msgspec.json.encode(keys))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    @contextmanager
    def _locked(self) -> Generator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class Issuer:
    """Signs tokens as `name`, the service's public address."""

    def __init__(self, name: str, file: KeyFile, *, now: Callable[[], float] = time) -> None:
        self.name = name
        self._file = file
        self._now = now
        self._private: tuple[str, RSAPrivateKey] | None = None

    def sign(
        self,
        subject: str,
        scopes: Iterable[str],
        ttl_s: int = TTL_S,
        *,
        audience: str = AUDIENCE,
        **more: Any,
    ) -> str:
        """Issue an access token (RFC 9068) that is valid for `ttl_s` seconds. `more` are further claims."""
        now = int(self._now())
        claims = {
            "iss": self.name,
            "sub": subject,
            "aud": audience,
            "client_id": subject,
            "scope": " ".join(scopes),
            "iat": now,
            "exp": now + ttl_s,
            "jti": uuid4().hex,
            **more,
        }
        newest = self._file.read()[0]
        if self._private is None or self._private[0] != newest.kid:
            self._private = (newest.kid, _private(newest))
        return jwt.encode(claims, self._private[1], "RS256", {"kid": newest.kid, "typ": "at+jwt"})

    def jwks(self) -> dict[str, Any]:
        """The public keys, as `/.well-known/jwks.json` shows them."""
        return {
            "keys": [
                {"kid": key.kid, "use": "sig", "alg": "RS256"}
                | {part: key.jwk[part] for part in ("kty", "n", "e")}
                for key in self._file.read()
            ]
        }

    def trust(self, audience: str = AUDIENCE) -> Trust:
        """The trust in our own tokens for an audience. Each unknown `kid` reads the file, which is cheap."""

        async def load() -> Any:
            try:
                return self.jwks()
            except Stop as stop:
                raise ValueError(str(stop)) from None

        keys = Keys(load, interval_s=0, max_age_s=5)
        return Trust(self.name, frozenset({audience}), keys, any_loopback=is_loopback_address(self.name))


def _new_key(now: float) -> SigningKey:
    jwk = RSAAlgorithm.to_jwk(generate_private_key(65537, RSA_BITS), as_dict=True)
    thumbprint = json.dumps({part: jwk[part] for part in ("e", "kty", "n")}, separators=(",", ":"))
    kid = base64url.encode(sha256(thumbprint.encode()).digest()).decode()
    return SigningKey(kid, now, jwk)


def _private(key: SigningKey) -> RSAPrivateKey:
    parsed = RSAAlgorithm.from_jwk(key.jwk)
    if not isinstance(parsed, RSAPrivateKey):
        raise Stop("The signing key is not a private key: remove the file to have a new one made")
    return parsed
