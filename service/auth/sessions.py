"""Sessions of the pages: a random cookie that stands for a caller. It is no token, and no token is one.

The database knows a session by the SHA-256 of its cookie. Each process remembers what it has read for a
minute, and forgets all of it when a session ends anywhere or a client changes.
"""

import re
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import monotonic, time
from typing import Final

import msgspec
from msgspec import Struct

from service import audit
from service.audit import Actor
from service.auth.clients import Client
from service.auth.remembered import Remembered
from service.auth.tokens import Principal, granted
from service.database.gateway import Database
from service.database.queries import SqlFile

TABLES: Final = ("app.session", "app.api_client")
"""The tables whose changes may end a session."""

SECRET_BYTES: Final = 32

_VALUE: Final = rb"[A-Za-z0-9_-]{43}"


class Stored(Struct, frozen=True):
    """A session as it is stored. `secret_mark` tells which secret its client signed in with."""

    id: bytes
    subject: str
    client_id: str | None
    secret_mark: bytes | None
    scopes: list[str]
    claims: str
    expires_at: datetime


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_FIND: Final = _SQL.rows("find_session", Stored)
_BEGIN: Final = _SQL.command("begin_session")
_END: Final = _SQL.rows("end_session", Stored)
_SWEEP: Final = _SQL.command("sweep_sessions")

FindClient = Callable[[str], Awaitable[Client | None]]


class Cookie(Struct, frozen=True):
    """The cookie's name and whether browsers send it over https only.

    Over https its name begins with `__Host-`, so that no other host of the domain can set it. Elsewhere its
    name has the port, since cookies of all ports of a host share one jar.
    """

    name: str
    secure: bool
    ttl_s: int


def cookie_for(public_url: str, port: int | None, ttl_s: int) -> Cookie:
    """The cookie of a service at this address."""
    if public_url.startswith("https://"):
        return Cookie("__Host-tally", secure=True, ttl_s=ttl_s)
    return Cookie(f"tally_{port}" if port else "tally", secure=False, ttl_s=ttl_s)


class Sessions:
    """Begins, finds and ends sessions. `database` and `find_client` are there while the service is open."""

    def __init__(
        self,
        cookie: Cookie,
        issuer: str,
        database: Callable[[], Database],
        find_client: FindClient,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.cookie = cookie
        self._issuer = issuer
        self._database = database
        self._find_client = find_client
        self._remembered: Remembered[bytes, Principal] = Remembered(now)
        self._pattern = re.compile(rb"(?:^|;)\s*%s=\"?(%s)\"?\s*(?=;|$)" % (cookie.name.encode(), _VALUE))
        self._name = cookie.name.encode() + b"="

    def value_in(self, cookies: bytes) -> bytes | None:
        """The session's value among the cookies of a request. Two of them are ignored: one is not ours."""
        if self._name not in cookies:
            return None
        found = self._pattern.findall(cookies)
        return found[0] if len(found) == 1 else None

    def lookup(self, cookies: bytes) -> Principal | None:
        """The caller, if this takes no waiting."""
        value = self.value_in(cookies)
        found = self._remembered.lookup(_digest(value)) if value else None
        return None if found is None or _over(found) else found

    async def find(self, cookies: bytes) -> Principal | None:
        """The caller who has this session. Raises `DatabaseUnavailable` if it is not known here."""
        value = self.value_in(cookies)
        return None if value is None else await self._principal(_digest(value))

    async def holds(self, session: str) -> bool:
        """Whether a session, by its id, has not ended."""
        return await self._principal(bytes.fromhex(session)) is not None

    async def begin_for_client(self, client: Client, request_id: str | None) -> str:
        """Begin a session for a client that has shown its secret. Return the cookie's value."""
        claims = {"client_id": client.id, "iss": self._issuer, "sub": client.id}
        text = msgspec.json.encode(claims, order="deterministic").decode()
        principal = Principal(client.id, frozenset(client.scopes), text)
        return await self._begin(principal, client, request_id)

    async def begin_for_principal(self, principal: Principal, request_id: str | None) -> str:
        """Begin a session for a caller whose token was checked. Return the cookie's value."""
        return await self._begin(principal, None, request_id)

    async def end(self, cookies: bytes, request_id: str | None) -> None:
        """End the session that a request shows, if there is one."""
        value = self.value_in(cookies)
        if value is None:
            return
        digest = _digest(value)
        self._remembered.drop(digest)
        async with self._database().transaction() as tx:
            if ended := await tx.read_one(_END, digest):
                actor = Actor(ended.subject, request_id)
                await audit.record(tx, actor, "session.end", ended.subject)

    def forget(self) -> None:
        """Read all sessions anew: one has ended somewhere, or a client has changed."""
        self._remembered.forget()

    async def _begin(self, principal: Principal, client: Client | None, request_id: str | None) -> str:
        value = secrets.token_urlsafe(SECRET_BYTES)
        began = Stored(
            _digest(value.encode()),
            principal.subject,
            client.id if client else None,
            _mark(client) if client else None,
            sorted(principal.scopes),
            principal.claims,
            datetime.now(UTC) + timedelta(seconds=self.cookie.ttl_s),
        )
        who = principal.subject
        async with self._database().transaction() as tx:
            await tx.write(_SWEEP)
            await tx.write(_BEGIN, *msgspec.structs.astuple(began))
            await audit.record(tx, Actor(who, request_id), "session.begin", who)
        return value

    async def _principal(self, digest: bytes) -> Principal | None:
        async def read() -> Principal | None:
            stored = await self._database().read_one(_FIND, digest)
            return None if stored is None else await self._checked(stored)

        found = await self._remembered.find(digest, read)
        return None if found is None or _over(found) else found

    async def _checked(self, stored: Stored) -> Principal | None:
        """The caller of a stored session, with the scopes that its client has now."""
        scopes = granted(stored.scopes)
        if stored.client_id is not None:
            client = await self._find_client(stored.client_id)
            if client is None or _mark(client) != stored.secret_mark:
                return None
            scopes &= granted(client.scopes)
        expires_at = stored.expires_at.timestamp()
        return Principal(stored.subject, scopes, stored.claims, expires_at, session=stored.id.hex())


def _digest(value: bytes) -> bytes:
    return sha256(value).digest()


def _mark(client: Client) -> bytes:
    return sha256(client.secret_hash.encode()).digest()


def _over(principal: Principal) -> bool:
    return principal.expires_at <= time()
