"""Who calls: bearer tokens checked against the keys of known issuers, then remembered until they expire.

Cheap reasons to refuse come first, the signature last. A key is bound to one algorithm, and an issuer to
its own keys, so what a token's header claims about keys (`jku`, `x5u`, `jwk`, `x5c`) is never looked at.
"""

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from math import inf, isfinite
from time import time
from typing import Annotated, Any, NoReturn, cast

import msgspec
from msgspec import Meta, Struct

from service.auth.keys import ALGORITHMS, Trust
from service.errors import InvalidToken
from service.http import base64url
from service.settings import is_loopback_address

SCOPE_TEXTS = {
    "metrics:read": "Read metrics, results, dashboards and datasets",
    "metrics:write": "Create, change and delete metrics and layouts",
    "imports:write": "Import files and work on quarantined rows",
    "items:read": "Read items",
    "items:write": "Create, change, enrich and delete items",
    "alerts:read": "Read alerts and their rules",
    "alerts:write": "Create and delete alert rules",
    "admin": "Read the audit and the service's own metrics",
}
SCOPES = tuple(SCOPE_TEXTS)
BACKEND = "api/backend_access"
"""All reads and writes except `admin`."""

TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
LEEWAY_S = 30
TOKEN_BYTES = 16_384
SUBJECT_LENGTH = 255
SUBJECT_IS = f"1 to {SUBJECT_LENGTH} visible characters, with plain spaces only between them"
REMEMBERED_BYTES = 64 << 20
REFUSED_TOKENS = 4096
REFUSED_FOR_S = 60

_COMPACT = re.compile(rb"([\w-]+)\.([\w-]+)\.([\w-]+)", re.ASCII)


class Principal(Struct, frozen=True):
    """A caller whose token was checked.

    `subject`, and `sub` of the claims, is `issuer|sub` for a token of an external issuer, else the name
    that we gave. `scopes` are those of ours that the token grants, `claims` is the token's whole payload as
    JSON text with sorted keys: what stored SQL reads as `request.claims`. `expires_at` is in seconds since
    1970: a stream that outlives it has to end. `session` is the id of the session or signed link that stands
    for the caller instead of a token.
    """

    subject: str
    scopes: frozenset[str]
    claims: str
    expires_at: float = inf
    session: str = ""


EVERYONE = Principal("local", frozenset(SCOPES), '{"sub":"local"}')
"""The caller while AUTH=off."""

VISITOR = Principal(
    EVERYONE.subject, frozenset(scope for scope in SCOPES if scope.endswith(":read")), EVERYONE.claims
)
"""A page of another site while AUTH=off: whether a route writes is told by its scope."""


Seconds = Annotated[float, Meta(ge=0, lt=253_402_300_800)]


class Header(Struct, frozen=True):
    alg: str
    kid: Annotated[str, Meta(max_length=256)] | None = None
    typ: str = "JWT"
    crit: Any = None
    b64: bool = True


class Claims(Struct, frozen=True):
    iss: str
    sub: str
    exp: Seconds
    nbf: Seconds = 0
    iat: Seconds = 0
    aud: str | list[str] | None = None
    client_id: str | None = None
    scope: str | list[str] = ""
    token_use: str = "access"  # noqa: S105 (Cognito's word)
    typ: str = "Bearer"


class Parsed(Struct, frozen=True):
    """The parts of a token, none of them verified yet. `payload` has the claims as they were written."""

    header: Header
    claims: Claims
    payload: dict[str, Any]
    signed: bytes
    signature: bytes


def is_subject(text: str) -> bool:
    """Whether logs, terminals and the audit can show it: short, and without invisible characters."""
    return 0 < len(text) <= SUBJECT_LENGTH and text.isprintable() and text.strip() == text


def is_own_subject(text: str) -> bool:
    """Whether we may give this name. Only subjects of external issuers have a bar (`|`)."""
    return is_subject(text) and "|" not in text


def granted(scopes: Iterable[str]) -> frozenset[str]:
    """Our scopes among these. `api/backend_access` stands for all of them but `admin`."""
    named = set(scopes)
    if BACKEND in named:
        named.update(scope for scope in SCOPES if scope != "admin")
    return frozenset(named.intersection(SCOPES))


def parse(token: bytes) -> Parsed:
    """Parse a compact JWS strictly: one spelling per token, no repeated names, the types of RFC 7519."""
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise InvalidToken("The token is not a signed JWT.")
    header_part, payload_part, signature_part = match.groups()
    header, claims = _json(header_part), _json(payload_part)
    try:
        _text(claims).encode()
        parsed = Parsed(
            msgspec.convert(header, Header),
            msgspec.convert(claims, Claims),
            claims,
            token[: match.end(2)],
            _base64(signature_part),
        )
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidToken(f"The token is malformed: {_reason(error)}.") from None
    if not is_subject(parsed.claims.sub):
        raise InvalidToken(f"The token's subject is not {SUBJECT_IS}.")
    if parsed.header.alg not in ALGORITHMS:
        raise InvalidToken(f"The token's algorithm is not one of {', '.join(sorted(ALGORITHMS))}.")
    if parsed.header.crit is not None or not parsed.header.b64 or parsed.header.typ.lower() not in TYPES:
        raise InvalidToken("The token's header asks for something that is not supported.")
    return parsed


def _text(claims: dict[str, Any]) -> str:
    return json.dumps(claims, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _reason(error: Exception) -> str:
    """msgspec names the place and the expected type, never the value."""
    return str(error) if isinstance(error, msgspec.ValidationError) else "text that is not Unicode"


def _base64(part: bytes) -> bytes:
    """Decode the only spelling of some bytes: two texts must not be one token."""
    try:
        return base64url.decode(part)
    except ValueError:
        raise InvalidToken("The token is not base64url.") from None


def _json(part: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(
            _base64(part).decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError):
        raise InvalidToken("The token does not hold well-formed JSON.") from None
    if not isinstance(found, dict):
        raise InvalidToken("The token does not hold a JSON object.")
    return cast("dict[str, Any]", found)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError("a number is out of range")
    return number


def check_claims(claims: Claims, audiences: frozenset[str], now: float) -> None:
    if claims.exp <= now - LEEWAY_S:
        raise InvalidToken("The token has expired.")
    if claims.nbf > now + LEEWAY_S:
        raise InvalidToken("The token is not valid yet.")
    if claims.token_use != "access" or claims.typ != "Bearer":  # noqa: S105 (Cognito's and Keycloak's words)
        raise InvalidToken("The token is no access token.")
    meant_for = claims.aud if claims.aud is not None else claims.client_id
    if audiences.isdisjoint([meant_for] if isinstance(meant_for, str) else meant_for or ()):
        raise InvalidToken("The token is meant for another audience.")


def _subject(sub: str, trust: Trust) -> str:
    """The subject of a `sub` of this issuer. The same `sub` of another issuer is another subject."""
    if trust.is_external:
        return f"{trust.issuer}|{sub}"
    if not is_own_subject(sub):
        raise InvalidToken("The token's subject is another issuer's.")
    return sub


class Remembered(Struct, frozen=True):
    principal: Principal
    weight: int


class Tokens:
    """Finds the callers of bearer tokens: `lookup` knows tokens verified before, `verify` takes any."""

    def __init__(self, trusted: Iterable[Trust], *, now: Callable[[], float] = time) -> None:
        self._trusted = {trust.issuer: trust for trust in trusted}
        self._now = now
        self._remembered: dict[bytes, Remembered] = {}
        self._weight = 0
        self._refused: dict[bytes, tuple[float, str]] = {}
        self._generation = 0

    def lookup(self, token: bytes) -> Principal | None:
        """The caller behind a token that was verified before and still holds; one dictionary lookup."""
        found = self._remembered.get(token)
        if found is None or found.principal.expires_at <= self._now():
            return None
        return found.principal

    async def verify(self, token: bytes) -> Principal:
        """Raises `InvalidToken` (401) with the reason, `IssuerUnavailable` if its keys cannot be fetched."""
        principal = self.lookup(token)
        if principal is not None:
            return principal
        if len(token) > TOKEN_BYTES:
            raise InvalidToken(f"The token is longer than {TOKEN_BYTES} bytes.")
        digest = sha256(token).digest()
        self._raise_if_refused(digest)
        parsed = parse(token)
        trust = self._trust(parsed.claims.iss)
        check_claims(parsed.claims, trust.audiences, self._now())
        subject = _subject(parsed.claims.sub, trust)
        key = await trust.keys.find(parsed.header.kid)
        self._forget_if_keys_changed()
        if key is None:
            raise InvalidToken("The token's key is not known.")
        if not key.signed(parsed.header.alg, parsed.signed, parsed.signature):
            self._refuse(digest, "The token's signature is wrong.")
        return self._remember(token, parsed, subject)

    async def knows(self, issuer: str, kid: str | None) -> bool:
        """Whether tokens that this key has signed are still accepted. Raises `IssuerUnavailable`."""
        return await self._trust(issuer).keys.find(kid) is not None

    async def watch(self, every_s: float = 5) -> None:
        """Runs for as long as the service: notices withdrawn keys even if nobody sends a new token."""
        while True:
            for trust in self._trusted.values():
                trust.keys.refresh_if_old()
            await asyncio.sleep(every_s)
            self._forget_if_keys_changed()

    async def close(self) -> None:
        for trust in self._trusted.values():
            await trust.keys.close()

    def _trust(self, issuer: str) -> Trust:
        trust = self._trusted.get(issuer)
        if trust is None and is_loopback_address(issuer):
            trust = next((trust for trust in self._trusted.values() if trust.any_loopback), None)
        if trust is None:
            raise InvalidToken("The token's issuer is not trusted here.")
        return trust

    def _remember(self, token: bytes, parsed: Parsed, subject: str) -> Principal:
        claims = parsed.claims
        text = _text(parsed.payload | {"sub": subject})
        scopes = claims.scope.split() if isinstance(claims.scope, str) else claims.scope
        principal = Principal(subject, granted(scopes), text, claims.exp + LEEWAY_S)
        weight = 1024 + len(token) + 4 * len(text)
        self._drop(token)
        self._remembered[token] = Remembered(principal, weight)
        self._weight += weight
        while self._weight > REMEMBERED_BYTES:
            self._drop(next(iter(self._remembered)))
        return principal

    def _drop(self, token: bytes) -> None:
        if dropped := self._remembered.pop(token, None):
            self._weight -= dropped.weight

    def _forget_if_keys_changed(self) -> None:
        generation = sum(trust.keys.generation for trust in self._trusted.values())
        if generation != self._generation:
            self._generation = generation
            self._remembered.clear()
            self._refused.clear()
            self._weight = 0

    def _raise_if_refused(self, digest: bytes) -> None:
        until, reason = self._refused.get(digest, (0.0, ""))
        if until > self._now():
            raise InvalidToken(reason)

    def _refuse(self, digest: bytes, reason: str) -> NoReturn:
        """Remember a wrong signature for a while, so that repeating it costs no second check."""
        self._refused[digest] = (self._now() + REFUSED_FOR_S, reason)
        if len(self._refused) > REFUSED_TOKENS:
            del self._refused[next(iter(self._refused))]
        raise InvalidToken(reason)
