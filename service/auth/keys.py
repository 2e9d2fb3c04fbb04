"""The public keys of issuers: validate them and keep key sets up to date."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, cast

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Struct

from service.errors import IssuerUnavailable, Problem
from service.observe.events import KeysNotFetched, Observe, ignore

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
RSA_BITS = 2048
JWKS_KEYS = 100
"""How many keys of one set are read."""

FetchJson = Callable[[str], Awaitable[Any]]
"""Fetches a URL and decodes its JSON. Raises a `Problem` on any failure."""

_PUBLIC_PARTS = frozenset({"kty", "n", "e", "crv", "x", "y"})


class Key:
    """A public key bound to its one algorithm."""

    def __init__(self, jwk: dict[str, Any]) -> None:
        """Raises `jwt.PyJWTError` unless `jwk` is a signing key of an allowed algorithm."""
        parts = {name: jwk[name] for name in _PUBLIC_PARTS.intersection(jwk)}
        stated = jwk.get("alg")
        if stated is not None and stated not in ALGORITHMS:
            raise jwt.InvalidKeyError("another algorithm")
        found = jwt.PyJWK(parts, stated)
        key: object = found.key
        if found.algorithm_name not in ALGORITHMS or jwk.get("use", "sig") != "sig":
            raise jwt.InvalidKeyError("no signing key")
        if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS:
            raise jwt.InvalidKeyError("too short")
        if parts.get("crv", "P-256") not in {"P-256", "Ed25519"}:
            raise jwt.InvalidKeyError("another curve")
        self.algorithm = found.algorithm_name
        self._jwk = found

    def signed(self, algorithm: str, text: bytes, signature: bytes) -> bool:
        """Whether this key made the signature, by its own algorithm and no other."""
        return algorithm == self.algorithm and self._jwk.Algorithm.verify(text, self._jwk.key, signature)


class Keys:
    """An issuer's keys by `kid`. They are fetched on first use, for an unknown `kid`, and when they are old.

    Known keys never wait for the issuer. A failed fetch keeps the known keys.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[Any]],
        *,
        interval_s: float = 5,
        max_age_s: float = 600,
        now: Callable[[], float] = monotonic,
        observe: Observe = ignore,
    ) -> None:
        self._load = load
        self._observe = observe
        self._interval_s = interval_s
        self._max_age_s = max_age_s
        self._now = now
        self._keys: dict[str | None, Key] = {}
        self._jwks: Any = None
        self._tried_at = self._loaded_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self.generation = 0
        """Rises when the keys change, because cached tokens may have lost their key."""

    async def find(self, kid: str | None) -> Key | None:
        """Find a key. Raises `IssuerUnavailable` until a fetch has succeeded once."""
        known = self._known(kid)
        if known is not None:
            self.refresh_if_old()
            return known
        task = self._start()
        if task is not None:
            await asyncio.shield(task)
        known = self._known(kid)
        if known is None and not self._keys:
            raise IssuerUnavailable(headers={"Retry-After": str(max(1, round(self._interval_s)))})
        return known

    def refresh_if_old(self) -> None:
        if self._now() - self._loaded_at > self._max_age_s:
            self._start()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _known(self, kid: str | None) -> Key | None:
        """Find a known key. A token may omit `kid` if there is only one key."""
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _start(self) -> asyncio.Task[None] | None:
        """Return the running fetch, or start one unless the last was within the interval."""
        if self._task is None or self._task.done():
            if self._now() - self._tried_at < self._interval_s:
                return None
            self._tried_at = self._now()
            self._task = asyncio.get_running_loop().create_task(self._refresh(), name="fetch signing keys")
        return self._task

    async def _refresh(self) -> None:
        try:
            jwks = await self._load()
            if jwks != self._jwks:
                self._replace(jwks)
            self._loaded_at = self._now()
        except (Problem, ValueError, msgspec.ValidationError) as error:
            self._observe(KeysNotFetched(str(error), len(self._keys)))

    def _replace(self, jwks: Any) -> None:
        keys = read_jwks(jwks)
        if not keys:
            raise ValueError("the answer holds no usable signing key")
        self._keys, self._jwks = keys, jwks
        self.generation += 1


def read_jwks(jwks: Any) -> dict[str | None, Key]:
    """The usable keys of a JWK set. Keys that cannot sign with an allowed algorithm are skipped."""
    listed: object = cast("dict[str, Any]", jwks).get("keys") if isinstance(jwks, dict) else None
    found: dict[str | None, Key] = {}
    for jwk in cast("list[Any]", listed)[:JWKS_KEYS] if isinstance(listed, list) else []:
        try:
            kid: object = jwk.get("kid")
            if kid is None or isinstance(kid, str):
                found[kid] = Key(jwk)
        except (jwt.PyJWTError, AttributeError, TypeError, ValueError, KeyError):
            continue
    return found


class Trust(Struct, frozen=True):
    """An issuer whose tokens are accepted: its exact name, who they must be meant for, its keys.

    `any_loopback` is for our own issuer on loopback: without PUBLIC_URL its name follows HOST and PORT,
    which may differ between the command that signs and the service, and the key alone tells.
    `is_external`: its subjects are names of its own making, which may be those of our clients.
    """

    issuer: str
    audiences: frozenset[str]
    keys: Keys
    any_loopback: bool = False
    is_external: bool = False


class Discovery(Struct, frozen=True):
    issuer: str
    jwks_uri: str


def oidc_trust(
    issuer: str,
    audiences: Iterable[str],
    jwks_url: str | None,
    fetch_json: FetchJson,
    observe: Observe = ignore,
) -> Trust:
    """An OpenID Connect issuer; its key address comes from discovery unless one is given."""

    async def load() -> Any:
        if jwks_url is not None:
            return await fetch_json(jwks_url)
        found = await fetch_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        document = msgspec.convert(found, Discovery)
        if document.issuer != issuer:
            raise ValueError("the discovery document is another issuer's")
        return await fetch_json(document.jwks_uri)

    return Trust(issuer, frozenset(audiences), Keys(load, observe=observe), is_external=True)
