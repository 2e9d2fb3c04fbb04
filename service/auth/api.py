"""Tokens, keys and discovery for clients, and the audit log for administrators."""

import binascii
from base64 import b64decode
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, unquote_plus

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct

from service import audit
from service.audit import Entry
from service.auth.clients import Clients, narrow
from service.auth.issuer import TTL_S, Issuer
from service.auth.tokens import BACKEND, SCOPES
from service.database.gateway import Database
from service.errors import (
    ClientRefused,
    DatabaseUnavailable,
    GrantRefused,
    TokenProblem,
    TooLarge,
)
from service.http.cursors import Cursor, Limit, page_of, read_id_cursor
from service.http.fields import media_type_of
from service.http.ids import MAX_ID
from service.http.problems import note_problem
from service.http.requests import Call

FORM: Final = "application/x-www-form-urlencoded"
FORM_BYTES: Final = 65_536
NO_NUL: Final = r"^[^\x00]*$"
"""Text that Postgres can store."""
CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="tally", charset="UTF-8"'}
NOT_STORED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Token(Struct, frozen=True):
    """The token response of RFC 6749. `expires_in` is in seconds."""

    access_token: str
    token_type: str
    expires_in: int
    scope: str


class AuditPage(Struct, frozen=True):
    items: list[Entry]
    next_cursor: str | None


class Credentials(Struct, frozen=True):
    """A client's id, and its secret in each possible decoding."""

    client_id: str
    secrets: tuple[bytes, ...]


def answer_token_problem(request: Call, problem: TokenProblem) -> Response[dict[str, str]]:
    """Answer a token problem in the format of RFC 6749."""
    note_problem(problem, request.scope)
    return Response(
        {"error": problem.code, "error_description": problem.detail},
        status_code=problem.status,
        media_type="application/json",
        headers=NOT_STORED | problem.headers,
    )


class TokenController(Controller):
    tags = ("tokens",)
    opt = {"scope": None}  # noqa: RUF012 (Litestar's way)

    @post(
        "/oauth2/token",
        operation_id="createToken",
        summary="Issue a token (OAuth2 client credentials, by HTTP Basic or in the form)",
        status_code=200,
        exception_handlers={TokenProblem: answer_token_problem},
        opt={
            "problems": (TooLarge, DatabaseUnavailable),
            "form": {"grant_type": "client_credentials", "scope": "metrics:read"},
        },
    )
    async def token(
        self,
        request: Call,
        clients: NamedDependency[Clients],
        issuer: NamedDependency[Issuer],
    ) -> Response[Token]:
        form = read_form(request.headers.get("content-type", ""), await _body(request))
        credentials = read_credentials(request.headers.get("authorization"), form)
        if "grant_type" not in form:
            raise TokenProblem("grant_type is missing.")
        if form["grant_type"] != "client_credentials":
            raise GrantRefused
        address = request.scope["state"].get("address") or ""
        client = await clients.authenticate(credentials.client_id, credentials.secrets, address)
        scopes = narrow(client, form.get("scope"))
        signed = issuer.sign(client.id, scopes)
        return Response(Token(signed, "Bearer", TTL_S, " ".join(scopes)), headers=NOT_STORED)

    @get(
        "/.well-known/jwks.json",
        operation_id="getJwks",
        summary="Public keys that verify our tokens",
        sync_to_thread=False,
    )
    def jwks(self, issuer: NamedDependency[Issuer]) -> Response[dict[str, Any]]:
        return Response(issuer.jwks(), headers={"Cache-Control": "public, max-age=60"})

    @get(
        "/.well-known/openid-configuration",
        operation_id="getOpenidConfiguration",
        summary="OpenID Connect discovery document",
        sync_to_thread=False,
    )
    def discovery(self, issuer: NamedDependency[Issuer]) -> dict[str, Any]:
        return {
            "issuer": issuer.name,
            "token_endpoint": f"{issuer.name}/oauth2/token",
            "jwks_uri": f"{issuer.name}/.well-known/jwks.json",
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "scopes_supported": [*SCOPES, BACKEND],
        }


class AuditController(Controller):
    path = "/audit"
    tags = ("audit",)
    opt = {"scope": "admin"}  # noqa: RUF012 (Litestar's way)

    @get(
        "/",
        operation_id="listAudit",
        summary="Audit log, newest first",
        opt={"problems": (DatabaseUnavailable,)},
    )
    async def entries(
        self,
        database: NamedDependency[Database],
        limit: Limit = 50,
        cursor: Cursor = None,
        actor: Annotated[
            str | None, QueryParameter(pattern=NO_NUL, description="only events of this caller")
        ] = None,
        target: Annotated[
            str | None, QueryParameter(pattern=NO_NUL, description="only events on this target")
        ] = None,
    ) -> AuditPage:
        before = read_id_cursor(cursor, MAX_ID)
        found = await audit.page(database, limit, before=before, actor=actor, target=target)
        return AuditPage(*page_of(found, limit))


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """Fields of a token request. Raises `TokenProblem` for another media type and for repeated fields."""
    if media_type_of(content_type) != FORM:
        raise TokenProblem(f"The body has to be {FORM}.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise TokenProblem("The body is not a form.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise TokenProblem("A field is given more than once.")
    return form


def read_credentials(authorization: str | None, form: dict[str, str]) -> Credentials:
    """Read credentials from HTTP Basic or the form, not both (RFC 6749, 2.3).

    RFC 6749 form-encodes id and secret inside Basic, but many clients do not. So the secret is tried
    as sent and decoded. Raises `TokenProblem` or `ClientRefused`.
    """
    if authorization is None:
        if "client_id" not in form or "client_secret" not in form:
            raise ClientRefused(headers=CHALLENGE)
        return Credentials(form["client_id"], (form["client_secret"].encode(),))
    scheme, _, value = authorization.partition(" ")
    try:
        user, colon, secret = b64decode(value.strip(), validate=True).partition(b":")
        client_id = user.decode()
    except (binascii.Error, ValueError):
        raise ClientRefused(headers=CHALLENGE) from None
    if scheme.lower() != "basic" or not colon:
        raise ClientRefused(headers=CHALLENGE)
    if "client_secret" in form or form.get("client_id", client_id) not in {
        client_id,
        unquote_plus(client_id),
    }:
        raise TokenProblem("The client names itself twice: by HTTP Basic and in the form.")
    decoded = unquote_plus(secret.decode(errors="replace")).encode()
    return Credentials(unquote_plus(client_id), tuple(dict.fromkeys((secret, decoded))))


async def _body(request: Call) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES:
            raise TooLarge(f"A token request takes at most {FORM_BYTES} bytes.")
    return body
