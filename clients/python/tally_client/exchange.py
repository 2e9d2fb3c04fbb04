"""One request and its repetitions, once for both clients: they do the steps that this asks them for."""

import hashlib
import random
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from . import exact
from .answers import Answer
from .errors import TallyError, TimedOutError, UnreachableError, error_of
from .etags import EtagCache, Key

REPEATABLE = frozenset(("GET", "HEAD", "PUT", "DELETE"))
"""Methods whose repetition changes nothing more (RFC 9110, 9.2.2)."""
NOT_NOW = frozenset((429, 503))
TOKEN_PATH = "/oauth2/token"  # noqa: S105 (a path)
"""Its caller says who it is in the form, not by a token."""
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Options:
    """What both clients can be told."""

    retries: int = 3
    longest_wait_s: float = 30.0


@dataclass(frozen=True)
class AskToken:
    """Asks for the token, which may come from a function."""


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Call:
    """Asks for an answer to this, or for the error of the network."""

    request: dict[str, Any]


Step = AskToken | Pause | Call
Exchange = Generator[Step, Any, Answer]


@dataclass(frozen=True)
class Wanted:
    """A request before anything of this client's is added."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    params: dict[str, Any] | None = None
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    repeatable: bool = False
    accepted: tuple[int, ...] = ()

    @classmethod
    def of(cls, request: dict[str, Any], *, repeatable: bool, accepted: tuple[int, ...] = ()) -> "Wanted":
        if not request["url"].startswith("/") or request["url"].startswith("//"):
            raise ValueError(f"{request['url']!r} is no path: it begins with one slash")
        body = {name: request[name] for name in ("data", "files", "content", "timeout") if name in request}
        headers = {name.title(): value for name, value in dict(request.get("headers") or {}).items()}
        if "json" in request:
            body["content"] = exact.dumps(request["json"])
            headers["Content-Type"] = "application/json"
        return cls(
            request["method"],
            request["url"],
            headers,
            request.get("params"),
            body,
            repeatable or request["method"] in REPEATABLE,
            accepted,
        )

    def call(self, **headers: str) -> Call:
        sent = {"Accept": "application/json, */*;q=0.5", **self.headers, **headers}
        return Call(
            {"method": self.method, "url": self.url, "headers": sent, "params": self.params, **self.body}
        )


def base_address(address: str) -> str:
    """The address of the service without a path; an address that cannot be one is refused at once."""
    parts = urlsplit(address.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{address!r} is no address of a service: give one like http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise ValueError("an address with a password in it is refused: give the token as `token`")
    if parts.port == 0:
        raise ValueError(f"{address!r} names port 0, where nobody can listen")
    path = parts.path.rstrip("/").removesuffix("/api/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


def bearer(token: Any) -> dict[str, str]:
    """The header of a token."""
    if token is None or token == "":
        return {}
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token.strip()):
        raise ValueError("the token must be text of visible ASCII characters: was it cut or pasted wrongly?")
    return {"Authorization": f"Bearer {token.strip()}"}


def exchange(wanted: Wanted, cache: EtagCache, options: Options) -> Exchange:
    """Ask, wait and ask again while that can help, and answer from memory what has not changed."""
    for attempt in range(options.retries + 1):
        last = attempt == options.retries or not wanted.repeatable
        headers = {} if wanted.url == TOKEN_PATH else bearer((yield AskToken()))
        key = _key(wanted, headers)
        held = cache.get(key) if key else None
        if held and held.etag:
            headers["If-None-Match"] = held.etag
        outcome: Answer | httpx.TransportError = yield wanted.call(**headers)
        if isinstance(outcome, httpx.TransportError):
            if last:
                raise unreachable(outcome) from outcome
            yield Pause(pause(attempt))
            continue
        if held and outcome.status == 304:
            return Answer(200, {**held.headers, **outcome.headers}, held.content, held.url, held=True)
        if outcome.status < 300 or (outcome.status in wanted.accepted and not outcome.is_problem):
            if key and outcome.status == 200:
                cache.keep(key, outcome)
            return outcome
        wait = outcome.retry_after if outcome.retry_after is not None else pause(attempt)
        if last or outcome.status not in NOT_NOW or wait > options.longest_wait_s:
            raise error_of(outcome)
        yield Pause(wait)
    raise AssertionError("the last attempt returns or raises")


def pause(attempt: int) -> float:
    """Seconds to wait: at random and twice as many each time, so that clients do not return all at once."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt, 16))
    return random.uniform(longest / 2, longest)  # noqa: S311 (no secret)


def _key(wanted: Wanted, headers: dict[str, str]) -> Key | None:
    if wanted.method != "GET":
        return None
    whose = hashlib.sha256(headers.get("Authorization", "").encode()).hexdigest()
    query = str(httpx.QueryParams(wanted.params)) if wanted.params else ""
    return (f"{wanted.url}?{query}", wanted.headers.get("Accept", ""), whose)


def unreachable(error: httpx.TransportError) -> TallyError:
    """What an error of the network means to whoever called."""
    where = error.request.url if _has_request(error) else "the service"
    said = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return UnreachableError(
            f"nobody answers at {where} ({said}): is the address right, and does the service run?"
        )
    if isinstance(error, httpx.TimeoutException):
        return TimedOutError(
            f"{where} did not answer in time: raise `timeout`, or look at the service's load"
        )
    return UnreachableError(f"the connection to {where} broke ({said}): try again")


def _has_request(error: httpx.TransportError) -> bool:
    try:
        return error.request is not None
    except RuntimeError:
        return False
