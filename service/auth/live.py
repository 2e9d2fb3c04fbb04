"""The rights of callers who stay: tickets to open a stream with, and whether a credential still holds.

A ticket is a token of ours for the audience `live`. It lives for a minute, because it travels in an address.
What it opens has the rights, claims and end of the token that it was issued for.
"""

from collections.abc import Awaitable, Callable, Iterable
from math import inf
from pathlib import Path
from time import time
from typing import Final
from urllib.parse import parse_qsl
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from service.auth.guards import CHALLENGE, Gate
from service.auth.issuer import Issuer
from service.auth.tokens import Principal, Tokens, parse
from service.database.gateway import Database
from service.database.queries import SqlFile
from service.errors import DatabaseUnavailable, InvalidToken, IssuerUnavailable
from service.http.asgi import Scope, field_of

Holds = Callable[[str], Awaitable[bool]]

AUDIENCE: Final = "live"
TICKET_S: Final = 60
TICKET: Final = "ticket"


class Origin(Struct, frozen=True):
    """The token that a ticket was issued for: its issuer and key, to notice when the key is withdrawn."""

    subject: str
    claims: str
    until: float | None = None
    iss: str | None = None
    kid: str | None = None
    session: str = ""


class _Payload(Struct, frozen=True):
    origin: Origin


class Credential(Struct, frozen=True, eq=False, weakref=True):
    """What a caller showed. All connections with the same token share one."""

    principal: Principal
    token: bytes = b""
    origin: Origin | None = None


class Revoked(Struct, frozen=True):
    id: str


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_LIST_REVOKED: Final = _SQL.rows("list_revoked", Revoked)

TABLE: Final = "app.api_client"
"""The table whose changes may revoke clients."""


class LiveRights:
    """Admits live connections, and looks again whether their credentials hold. `tokens` is None: AUTH=off.

    `holds` tells whether a session or a signed link, by its id, has not ended.
    """

    def __init__(self, gate: Gate, issuer: Issuer, tokens: Tokens | None, holds: Holds) -> None:
        self._gate = gate
        self._issuer = issuer
        self._tokens = tokens
        self._holds = holds
        self._tickets = Tokens([issuer.trust(AUDIENCE)])
        self._revoked: frozenset[str] = frozenset()
        self._shown: WeakValueDictionary[bytes, Credential] = WeakValueDictionary()
        self.open_to_all = tokens is None

    async def load(self, database: Database) -> None:
        """Read which clients are revoked."""
        self._revoked = frozenset(each.id for each in await database.read(_LIST_REVOKED))

    def ticket(self, principal: Principal, authorization: str) -> str:
        """A ticket for the caller of a request. `authorization` is the header that it was admitted by."""
        origin = Origin(principal.subject, principal.claims)
        if principal.session:
            origin = Origin(
                principal.subject, principal.claims, principal.expires_at, session=principal.session
            )
        elif self._tokens is not None:
            parsed = parse(authorization[7:].strip().encode())
            origin = Origin(
                principal.subject,
                principal.claims,
                principal.expires_at,
                parsed.claims.iss,
                parsed.header.kid,
            )
        more = {"origin": msgspec.to_builtins(origin)}
        return self._issuer.sign(AUDIENCE, sorted(principal.scopes), TICKET_S, audience=AUDIENCE, **more)

    async def admit(self, scope: Scope) -> Credential | None:
        """The credential of a request, by header or ticket. None if it shows none, which a socket may."""
        header = field_of(scope, b"authorization")
        ticket = None if header else _ticket_of(scope["query_string"])
        if self._tokens is not None and not header and ticket is not None:
            self._gate.check_host(scope)
            return await self.by_ticket(ticket)
        if self._tokens is not None and not header and scope["type"] == "websocket":
            self._gate.check_host(scope)
            principal = await self._gate.session(scope)
        else:
            principal = await self._gate.admit(scope)
        if principal is None:
            return None
        token = b"" if self._tokens is None else header[7:].strip(b" ")
        if principal.session:
            token = b"session " + principal.session.encode()
        return await self._checked(Credential(principal, token))

    async def by_ticket(self, ticket: bytes) -> Credential:
        """Raises `InvalidToken`."""
        try:
            shown = await self._tickets.verify(ticket)
        except InvalidToken as invalid:
            challenge = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}
            raise InvalidToken(f"The ticket does not hold: {invalid}", headers=challenge) from None
        origin = msgspec.json.decode(shown.claims, type=_Payload).origin
        until = inf if origin.until is None else origin.until
        principal = Principal(origin.subject, shown.scopes, origin.claims, until, origin.session)
        return await self._checked(Credential(principal, ticket, origin))

    async def by_token(self, token: bytes) -> Credential:
        """The credential of a socket's first message: a token or a ticket. Raises `InvalidToken`."""
        assert self._tokens, "with AUTH=off everybody is admitted"
        try:
            return await self._checked(Credential(await self._tokens.verify(token), token))
        except InvalidToken as invalid:
            try:
                return await self.by_ticket(token)
            except InvalidToken:
                raise invalid from None

    async def _checked(self, credential: Credential) -> Credential:
        if problem := await self.problem(credential):
            raise problem
        return self._shown.setdefault(credential.token, credential)

    async def problem(self, credential: Credential) -> InvalidToken | None:
        """Why a credential does not hold any more. A GET with its token would be refused, too."""
        principal = credential.principal
        if principal.session:
            return await self._session_problem(principal)
        return await self._token_problem(credential)

    async def _token_problem(self, credential: Credential) -> InvalidToken | None:
        principal = credential.principal
        if self._tokens is None or principal.subject in self._revoked:
            return InvalidToken("The client is revoked.") if self._tokens else None
        try:
            if credential.origin is None:
                await self._tokens.verify(credential.token)
            elif principal.expires_at <= time():
                return InvalidToken("The token has expired.")
            elif not await self._tokens.knows(credential.origin.iss or "", credential.origin.kid):
                return InvalidToken("The token's key is not known.")
        except IssuerUnavailable:
            return None  # its known keys are kept, as for a GET
        except InvalidToken as invalid:
            return invalid
        return None

    async def _session_problem(self, principal: Principal) -> InvalidToken | None:
        try:
            ended = principal.expires_at <= time() or not await self._holds(principal.session)
        except DatabaseUnavailable:
            return None
        return InvalidToken("The session or link has ended.") if ended else None

    async def problems(self, credentials: Iterable[Credential]) -> dict[Credential, InvalidToken]:
        """The problems of those that do not hold."""
        found = {each: await self.problem(each) for each in credentials}
        return {each: problem for each, problem in found.items() if problem is not None}


def _ticket_of(query: bytes) -> bytes | None:
    given = [value for name, value in parse_qsl(query.decode("latin-1")) if name == TICKET]
    return given[0].encode() if len(given) == 1 else None
