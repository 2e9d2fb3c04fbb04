"""Tokens for a client of its own (OAuth2 client credentials), renewed before they end."""

import time
from threading import Lock

import httpx

from .answers import Answer
from .errors import UnexpectedAnswerError, error_of
from .exchange import base_address, unreachable

RENEW_S = 30.0


class ClientCredentials:
    """A token function: `Client(address, token=ClientCredentials(address, id, secret))`."""

    def __init__(self, address: str, client_id: str, secret: str, scope: str | None = None) -> None:
        self._url = f"{base_address(address)}/oauth2/token"
        self._auth = httpx.BasicAuth(client_id, secret)
        self._form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
        self._lock = Lock()
        self._token, self._until = "", 0.0

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() >= self._until:
                self._renew()
            return self._token

    def _renew(self) -> None:
        try:
            response = httpx.post(self._url, data=self._form, auth=self._auth)
        except httpx.TransportError as error:
            raise unreachable(error) from error
        answer = Answer(response.status_code, dict(response.headers), response.content, str(response.url))
        if answer.status != 200:
            raise error_of(answer)
        try:
            document = answer.json()
            self._token, lasts = str(document["access_token"]), float(document["expires_in"])
        except (ValueError, KeyError, TypeError) as error:
            raise UnexpectedAnswerError.of(answer) from error
        self._until = time.monotonic() + max(lasts - RENEW_S, lasts / 2)
