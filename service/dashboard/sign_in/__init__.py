"""Signing in: where a caller goes next, and the issuer's code flow with PKCE (RFC 6749, 7636, 9700)."""

import re
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from time import monotonic
from typing import Final
from urllib.parse import parse_qsl, urlencode

import msgspec
from msgspec import Struct

from service.auth.clients import Clients
from service.auth.guards import Gate
from service.auth.sessions import Sessions
from service.auth.tokens import Principal, Tokens
from service.dashboard.pages import Pages
from service.errors import (
    BadRequest,
    ClientFailures,
    ClientRefused,
    FieldError,
    InvalidInput,
    NotFound,
    SignInFailed,
    TokenProblem,
    UnsupportedMediaType,
    UpstreamFailed,
)
from service.http import base64url
from service.http.fields import media_type_of
from service.outbound import Outbound
from service.settings import Auth, is_loopback_address

FORM: Final = "application/x-www-form-urlencoded"
CALLBACK: Final = "/sign-in/callback"
FLOW_COOKIE: Final = "tally_sign_in"
FLOW_S: Final = 600
"""Seconds that a person has at the issuer."""
DISCOVERED_FOR_S: Final = 600

_LOCAL: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}")


def local_address(text: str | None) -> str:
    """Where to go after the sign-in: a path of ours, else the dashboard."""
    return text if text is not None and _LOCAL.fullmatch(text) else "/"


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form of ours. Raises `UnsupportedMediaType` and `InvalidInput`."""
    if media_type_of(content_type) != FORM:
        raise UnsupportedMediaType(f"The body has to be {FORM}.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise InvalidInput(errors=(FieldError("body", "it is no form"),)) from None


class Flow(Struct, frozen=True):
    """A sign-in that is under way at the issuer. The browser keeps it, in a cookie for the callback alone."""

    state: str
    verifier: str
    next: str

    def text(self) -> str:
        return base64url.encode(msgspec.json.encode(self)).decode()


def flow_of(cookie: str | None, state: str | None) -> Flow:
    """The flow that a callback belongs to. Raises `BadRequest` if this browser did not begin it."""
    try:
        flow = msgspec.json.decode(base64url.decode((cookie or "").encode()), type=Flow)
    except (ValueError, msgspec.DecodeError):
        flow = None
    if flow is None or state is None or not compare_digest(flow.state.encode(), state.encode()):
        raise BadRequest("This sign-in was not begun in this browser, or too long ago: try again.")
    return flow


class Endpoints(Struct, frozen=True):
    """The part of an issuer's discovery document that a sign-in needs."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str


class Granted(Struct, frozen=True):
    """The issuer's token answer."""

    access_token: str


class CodeFlow:
    """The sign-in at OIDC_ISSUER. Its access token says who the caller is, with which scopes."""

    def __init__(self, auth: Auth, public_url: str, outbound: Outbound, tokens: Tokens) -> None:
        self.issuer = auth.oidc_issuer or ""
        self._client = auth.oidc_client_id or (auth.oidc_audience[0] if auth.oidc_audience else "")
        self._secret = auth.oidc_client_secret
        self._scope = auth.oidc_scope
        self._callback = f"{public_url}{CALLBACK}"
        self._outbound = outbound
        self._tokens = tokens
        self._found: tuple[float, Endpoints] | None = None

    @property
    def offered(self) -> bool:
        return bool(self.issuer)

    async def begin(self, following: str) -> tuple[str, Flow]:
        """The issuer's address to send the browser to, and the flow to remember.

        Raises `NotFound` without an issuer, and `UpstreamFailed`.
        """
        if not self.offered:
            raise NotFound("No issuer signs people in here: OIDC_ISSUER is not set.")
        endpoints = await self._endpoints()
        flow = Flow(token_urlsafe(24), token_urlsafe(48), following)
        challenge = base64url.encode(sha256(flow.verifier.encode()).digest()).decode()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client,
                "redirect_uri": self._callback,
                "scope": self._scope,
                "state": flow.state,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            }
        )
        joiner = "&" if "?" in endpoints.authorization_endpoint else "?"
        return f"{endpoints.authorization_endpoint}{joiner}{query}", flow

    async def finish(self, flow: Flow, code: str | None, issuer: str | None, error: str | None) -> Principal:
        """Who has signed in. Raises `SignInFailed`, `InvalidToken` and `UpstreamFailed`."""
        if error is not None:
            raise SignInFailed(f"The issuer answered {error[:100]!r}.")
        if issuer is not None and issuer != self.issuer:  # RFC 9207: a mix-up of two issuers
            raise SignInFailed("The answer is another issuer's.")
        if not code:
            raise SignInFailed("The issuer sent no code.")
        endpoints = await self._endpoints()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "client_id": self._client,
            "code_verifier": flow.verifier,
        }
        credentials = None if self._secret is None else (self._client, self._secret)
        try:
            granted = await self._outbound.post_form(
                endpoints.token_endpoint, form, Granted, credentials=credentials
            )
        except UpstreamFailed as failed:
            raise SignInFailed(f"The issuer did not take the code: {failed}.") from None
        return await self._tokens.verify(granted.access_token.encode())

    async def _endpoints(self) -> Endpoints:
        if self._found is not None and self._found[0] + DISCOVERED_FOR_S > monotonic():
            return self._found[1]
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._outbound.get_json(address, Endpoints)
        if found.issuer != self.issuer:
            raise UpstreamFailed("The discovery document is another issuer's.")
        for each in (found.authorization_endpoint, found.token_endpoint):
            if not (each.startswith("https://") or is_loopback_address(each)):
                raise UpstreamFailed("The discovery document names an address that is not https.")
        self._found = (monotonic(), found)
        return found


class SignIn(Struct, frozen=True):
    """The parts that a sign-in needs."""

    pages: Pages
    clients: Clients
    sessions: Sessions
    gate: Gate
    code_flow: CodeFlow

    def form(self, following: str, *, error: str = "", client_id: str = "") -> str:
        """The page with the form, and the way to the issuer if there is one."""
        issuer = f"/sign-in/issuer?{urlencode({'next': following})}" if self.code_flow.offered else ""
        return self.pages.render(
            "sign_in.html", following=following, error=error, client_id=client_id[:128], issuer=issuer
        )

    async def by_secret(self, form: Mapping[str, str], address: str, cookies: bytes, request_id: str) -> str:
        """Begin a session for a client's id and secret, in place of the old one. Raises `TokenProblem`."""
        offered = form.get("client_secret", "").strip().encode()
        client = await self.clients.authenticate(form.get("client_id", "").strip(), (offered,), address)
        await self.sessions.end(cookies, request_id)
        return await self.sessions.begin_for_client(client, request_id)

    async def by_code(
        self, flow: Flow, answer: Mapping[str, str], cookies: bytes, request_id: str
    ) -> tuple[str, str]:
        """Begin a session for whom the issuer has signed in. Return the cookie and the page."""
        principal = await self.code_flow.finish(
            flow, answer.get("code"), answer.get("iss"), answer.get("error")
        )
        await self.sessions.end(cookies, request_id)
        value = await self.sessions.begin_for_principal(principal, request_id)
        # A page, and no redirect: to a browser a redirect still belongs to the issuer's page, and it would
        # hold back a cookie that is for requests of our own pages.
        return value, self.pages.render("onward.html", title="You are signed in", following=flow.next)


def failure(problem: TokenProblem) -> str:
    """A failed sign-in in words of the form."""
    if isinstance(problem, ClientFailures):
        return f"Too many failures. Try again in {problem.headers['Retry-After']} seconds."
    return "Client id or secret is wrong." if isinstance(problem, ClientRefused) else problem.detail
