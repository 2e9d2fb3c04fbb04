"""Clients that may request tokens, and their scopes: from AUTH_CLIENTS and from `app.api_client`.

Generated secrets have 256 bits, so a fast hash is enough. Chosen secrets need argon2id. Every failure costs
one argon2id check and has the same answer, so that it does not reveal which clients exist.
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from time import monotonic
from typing import Final

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError
from msgspec import Struct

from service import audit
from service.audit import Actor
from service.auth.limits import Allowance
from service.auth.tokens import BACKEND, SCOPES, granted
from service.database.gateway import Database, Transaction, violation
from service.database.queries import SqlFile
from service.errors import ClientFailures, ClientRefused, Conflict, NotFound, ScopeRefused, Stop

FAILURES_A_MINUTE = 60
CHECKS_AT_ONCE = 2
CHECKS_WAITING = 32
"""Further callers are asked to retry later. A check takes about 20 MB and 20 ms of a core."""

CHOSEN_LENGTH = 12
"""Minimum length of a chosen secret, in characters."""

CLIENT_ID = re.compile(r"[A-Za-z0-9._~@/-]{1,128}")

_ENTRY = re.compile(
    r"""(?P<id>[^:,\s]+) : (?P<hash>[0-9a-f]{64} | \$argon2id\$[^:\s]+) : (?P<scopes>[^,]+) (?:,|$)""",
    re.VERBOSE,
)
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class Client(Struct, frozen=True):
    """`secret_hash` is hexadecimal SHA-256 or an argon2id string."""

    id: str
    secret_hash: str
    scopes: Sequence[str]


def new_secret() -> tuple[str, str]:
    """Generate a secret of 256 bits. Return it with the hash to store."""
    secret = secrets.token_urlsafe(32)
    return secret, sha256(secret.encode()).hexdigest()


def hash_chosen(secret: str) -> str:
    return _HASHER.hash(secret)


def parse_clients(text: str | None) -> dict[str, Client]:
    """Parse AUTH_CLIENTS. Entries are separated by commas, and argon2id strings contain commas too.

    Raises `Stop` naming the entry by its number, never by its text.
    """
    found: dict[str, Client] = {}
    position, rest = 0, (text or "").strip().rstrip(",")
    while position < len(rest):
        entry = _ENTRY.match(rest, position)
        number = f"AUTH_CLIENTS: entry {len(found) + 1}"
        if entry is None or not CLIENT_ID.fullmatch(entry["id"]):
            raise Stop(f"{number} is not `id:hash:scope scope` (SHA-256 in hex, or argon2id)", exit_code=2)
        if entry["id"] in found:
            raise Stop(f"{number} repeats the id {entry['id']}", exit_code=2)
        if _is_argon2(entry["hash"]) and not _is_well_formed(entry["hash"]):
            raise Stop(f"{number} has a damaged argon2id string", exit_code=2)
        scopes = parse_scopes(entry["scopes"], number)
        found[entry["id"]] = Client(entry["id"], entry["hash"], scopes)
        position = entry.end()
        position += len(rest[position:]) - len(rest[position:].lstrip())
    return found


def parse_scopes(text: str, place: str) -> tuple[str, ...]:
    """Parse scopes. Raises `Stop` for no scope and for an unknown scope."""
    scopes = tuple(dict.fromkeys(text.split()))
    unknown = [scope for scope in scopes if scope not in (*SCOPES, BACKEND)]
    if unknown or not scopes:
        wrong = f"unknown scope {unknown[0]!r}" if unknown else "no scope"
        raise Stop(f"{place}: {wrong}; there are {', '.join((*SCOPES, BACKEND))}", exit_code=2)
    return scopes


def narrow(client: Client, asked: str | None) -> tuple[str, ...]:
    """The scopes of a new token: the requested scopes, or all of the client's. Raises `ScopeRefused`."""
    if asked is None:
        return tuple(client.scopes)
    scopes = tuple(dict.fromkeys(asked.split()))
    allowed = granted(client.scopes).union(client.scopes)
    if not scopes or not allowed.issuperset(scopes):
        raise ScopeRefused
    return scopes


class ListedClient(Struct, frozen=True):
    """A client of the database as `tally client list` shows it; `chosen` tells how its secret came to be."""

    id: str
    scopes: list[str]
    chosen: bool
    created_at: datetime
    revoked_at: datetime | None


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_FIND: Final = _SQL.rows("find_client", Client)
_LIST: Final = _SQL.rows("list_clients", ListedClient)
_ADD: Final = _SQL.command("add_client")
_REVOKE: Final = _SQL.command("revoke_client")
_RENEW: Final = _SQL.command("renew_client")


async def find(db: Database | Transaction, client_id: str) -> Client | None:
    """A client that was not revoked."""
    return await db.read_one(_FIND, client_id)


async def list_all(db: Database | Transaction) -> list[ListedClient]:
    return await db.read(_LIST)


async def add(
    db: Database | Transaction, client_id: str, scopes: tuple[str, ...], *, chosen: str | None, actor: str
) -> str:
    """Register a client with a chosen secret or a new one. Return the secret, which is not stored.

    Raises `Stop` for a malformed id, `Conflict` for an id that was used before.
    """
    if not CLIENT_ID.fullmatch(client_id):
        raise Stop(
            f"{client_id!r} is no client id: letters, digits and . _ ~ @ / - (at most 128)", exit_code=2
        )
    secret, hashed = _secret(chosen)
    async with db.transaction() as tx:
        with violation("api_client_pkey", Conflict("A client with this id exists already, or was revoked.")):
            await tx.write(_ADD, client_id, hashed, list(scopes))
        await audit.record(tx, Actor(actor), "client.add", client_id)
    return secret


async def renew(db: Database | Transaction, client_id: str, *, chosen: str | None, actor: str) -> str:
    """Replace a client's secret. Return the new one, which is not stored. Raises `NotFound`."""
    secret, hashed = _secret(chosen)
    async with db.transaction() as tx:
        if not await tx.write(_RENEW, client_id, hashed):
            raise NotFound(
                f"There is no client {client_id!r} to renew; AUTH_CLIENTS is edited where it is set."
            )
        await audit.record(tx, Actor(actor), "client.renew", client_id)
    return secret


def _secret(chosen: str | None) -> tuple[str, str]:
    """A chosen secret or a new one, with the hash to store."""
    return new_secret() if chosen is None else (chosen, hash_chosen(chosen))


async def revoke(db: Database | Transaction, client_id: str, *, actor: str) -> None:
    """Issue no more tokens to a client. Its tokens stay valid until they expire. Raises `NotFound`."""
    async with db.transaction() as tx:
        if not await tx.write(_REVOKE, client_id):
            raise NotFound(
                f"There is no client {client_id!r} to revoke; AUTH_CLIENTS is edited where it is set."
            )
        await audit.record(tx, Actor(actor), "client.revoke", client_id)


class Clients:
    """Checks credentials; `stored` finds a client of the database."""

    def __init__(
        self,
        configured: Mapping[str, Client],
        stored: Callable[[str], Awaitable[Client | None]],
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._configured = configured
        self._stored = stored
        self._failures = Allowance(FAILURES_A_MINUTE, 60, now=now)
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)
        self._waiting = 0
        own = (client.secret_hash for client in configured.values())
        self._decoy = next((hashed for hashed in own if _is_argon2(hashed)), None) or hash_chosen("decoy")

    async def authenticate(self, client_id: str, offered: Sequence[bytes], address: str) -> Client:
        """The client whose secret is among `offered` (the spellings a header may mean).

        Raises `ClientRefused`, the same for an unknown client and a wrong secret, and `ClientFailures`
        once an address has failed too often. A right machine-made secret always passes: it cannot be
        guessed, and nobody is locked out by the failures of others.
        """
        client = await self.find(client_id)
        digests = [sha256(secret).hexdigest() for secret in offered]
        if client is not None and any(compare_digest(digest, client.secret_hash) for digest in digests):
            return client
        place = _network(address)
        if not (decision := self._failures.look(place)).allowed:
            raise ClientFailures(headers={"Retry-After": str(decision.retry_s)})
        hashed = client.secret_hash if client is not None and _is_argon2(client.secret_hash) else None
        right = [await self._check(hashed or self._decoy, secret) for secret in offered]
        if client is not None and hashed is not None and any(right):
            return client
        if not (decision := self._failures.take(place)).allowed:
            raise ClientFailures(headers={"Retry-After": str(decision.retry_s)})
        raise ClientRefused(headers={"WWW-Authenticate": 'Basic realm="tally", charset="UTF-8"'})

    async def find(self, client_id: str) -> Client | None:
        """A client that may sign in, by its id."""
        if not CLIENT_ID.fullmatch(client_id):
            return None
        return self._configured.get(client_id) or await self._stored(client_id)

    async def _check(self, hashed: str, secret: bytes) -> bool:
        if self._waiting >= CHECKS_WAITING:
            raise ClientFailures(headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            async with self._checks:
                return await asyncio.to_thread(_verify, hashed, secret)
        finally:
            self._waiting -= 1


def _is_argon2(hashed: str) -> bool:
    return hashed.startswith("$argon2id$")


def _is_well_formed(hashed: str) -> bool:
    try:
        extract_parameters(hashed)
    except InvalidHashError:
        return False
    return True


def _verify(hashed: str, secret: bytes) -> bool:
    try:
        return _HASHER.verify(hashed, secret)
    except (Argon2Error, InvalidHashError):
        return False


def _network(address: str) -> str:
    """The network whose failures are counted: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
