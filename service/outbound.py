"""The HTTP client for all outbound calls, with limits on time, size and concurrency.

One deadline covers all tries of a call, including waiting and reading. After repeated failures a circuit
breaker stops calls to the host for a while.
"""

import asyncio
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from math import ceil
from typing import Any, Self, TypeVar

import httpx
import msgspec
import stamina

from service.errors import Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from service.observe.trace import UNTRACED, Traces

T = TypeVar("T")

TRIES = 5
BODY_LIMIT = 1_048_576  # bytes, after decompression
FAILURES_TO_OPEN = 5  # failed calls in a row, not tries
CALLS_PER_HOST = 50  # further callers wait, within their deadline: a slow host must not use up every socket
PORTS = 65535
AGAIN = frozenset({429, 502, 503, 504})  # statuses that a later try may mend
WEBHOOK_TIMEOUT_S = 10.0
SILENCE = httpx.Timeout(connect=3.0, read=5.0, write=5.0, pool=None)  # seconds without progress
RETRY = stamina.AsyncRetryingCaller(
    attempts=TRIES, timeout=None, wait_initial=0.2, wait_max=2.0, wait_jitter=0.3
)


OutboundError = httpx.HTTPError
"""Errors of `Outbound.client`: response too large, broken coding, lost connection, timeout."""
OutboundTimeout = httpx.TimeoutException


class Outbound:
    """Fetches JSON; `async with` closes its connections.

    `client` is for calls of another kind (the language model's). It keeps the cap on size; deadline and
    retries are the caller's, and the host's record is not touched.
    """

    def __init__(self, *, timeout_s: float, cooldown_s: float, traces: Traces = UNTRACED) -> None:
        self._timeout_s = timeout_s
        self._cooldown_s = cooldown_s
        self._hosts: dict[bytes, _Host] = {}
        self.client: httpx.AsyncClient = _Client(
            traces,
            timeout=SILENCE,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            follow_redirects=False,
            headers={"Accept-Encoding": "gzip", "User-Agent": "tally"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            event_hooks={"response": [_cap]},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def get_json(self, url: str, expect: type[T], *, deadline_s: float | None = None) -> T:
        """Give the answer's body as an `expect`, within EXTERNAL_TIMEOUT_S or a shorter deadline.

        Raises `UpstreamFailed` (it answered an error, a redirect, nonsense or too much, or hung up),
        `UpstreamTimeout` (it was too slow) or `UpstreamUnavailable` (it is left alone; with `Retry-After`).
        """
        address = _address(url)
        body = await self._get(
            address, self._timeout_s if deadline_s is None else min(deadline_s, self._timeout_s)
        )
        try:
            return msgspec.json.decode(body.decode(), type=expect)
        except (ValueError, RecursionError) as error:
            raise UpstreamFailed(f"{address.host} answered with something unexpected: {error}") from None

    async def post_form(
        self, url: str, form: Mapping[str, str], expect: type[T], *, credentials: tuple[str, str] | None
    ) -> T:
        """Send a form once, with HTTP Basic where `credentials` are given, and read the JSON of the answer.

        Raises `UpstreamFailed` or `UpstreamTimeout`.
        """
        address = _address(url)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self.client.post(
                    address,
                    data=dict(form),
                    headers={"Accept": "application/json"},
                    auth=credentials or httpx.USE_CLIENT_DEFAULT,
                )
        except (TimeoutError, httpx.TimeoutException):
            raise UpstreamTimeout(f"{address.host} did not answer") from None
        except httpx.HTTPError as error:
            raise UpstreamFailed(f"{address.host}: {error or 'the connection broke'}") from None
        if not response.is_success:
            raise UpstreamFailed(f"{address.host} answered {response.status_code}")
        try:
            return msgspec.json.decode(response.content.decode(), type=expect)
        except (ValueError, RecursionError) as error:
            raise UpstreamFailed(f"{address.host} answered with something unexpected: {error}") from None

    async def _get(self, url: httpx.URL, deadline_s: float) -> bytes:
        """Try until there is an answer, a failure that no retry mends, or no time left.

        When the time runs out between two tries, the last failure tells more than the clock does.
        """
        host = self._hosts.setdefault(url.netloc, _Host(self._cooldown_s))
        now = asyncio.get_running_loop().time
        deadline = now() + deadline_s
        pending: _Failure | None = None

        def again(error: Exception) -> bool | float:
            nonlocal pending
            if not isinstance(error, _Failure) or now() + error.after_s >= deadline:
                return False
            pending = error
            return error.after_s or error.again

        async def once() -> bytes:
            nonlocal pending
            pending = None
            return await self._once(url)

        with host.watch(now):
            try:
                async with asyncio.timeout_at(deadline), host.slots:
                    return await RETRY(again, once)
            except TimeoutError:
                late = UpstreamTimeout(f"{url.host} did not answer within {deadline_s:g} s")
                raise pending or _Failure(late, sick=True) from None

    async def _once(self, url: httpx.URL) -> bytes:
        try:
            async with self.client.stream("GET", url, headers={"Accept": "application/json"}) as response:
                if response.is_success:
                    return await response.aread()
        except httpx.TimeoutException:
            silent = UpstreamTimeout(f"{url.host} fell silent")
            raise _Failure(silent, sick=True, again=True) from None
        except httpx.DecodingError as error:
            raise _Failure(UpstreamFailed(f"{url.host}: {error}"), sick=False) from None
        except httpx.HTTPError as error:
            broken = UpstreamFailed(f"{url.host}: {error or 'the connection broke'}")
            raise _Failure(broken, sick=True, again=True) from None
        status = response.status_code
        followed = ", and redirects are not followed" if response.is_redirect else ""
        raise _Failure(
            UpstreamFailed(f"{url.host} answered {status}{followed}"),
            sick=status in AGAIN or response.is_server_error,
            again=status in AGAIN,
            after_s=retry_after_s(response.headers.get("Retry-After", "")) if status in AGAIN else 0.0,
        )


class _Client(httpx.AsyncClient):
    """Makes a span of each try. Our own trace stays here: no header tells others of it."""

    def __init__(self, traces: Traces, **options: Any) -> None:
        super().__init__(**options)
        self._traces = traces

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        with self._traces.span(request.method, "client") as span:
            span.note(http_request_method=request.method, server_address=request.url.host)
            try:
                response = await super().send(request, **options)
            except httpx.HTTPError as error:
                span.fail(type(error).__name__)
                raise
            span.note(http_response_status__code=response.status_code)
            if response.is_error:
                span.fail(str(response.status_code))
            return response


class _Failure(Exception):  # noqa: N818 (it names what happened)
    """One failed try: what the caller is told, whether the host is to blame, whether another try may help."""

    def __init__(self, problem: Problem, *, sick: bool, again: bool = False, after_s: float = 0.0) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.sick = sick
        self.again = again
        self.after_s = after_s  # seconds of the host's `Retry-After`, 0 for none


class _Host:
    """A host's record (circuit breaker): after repeated failures it is left alone, then one call tries it."""

    def __init__(self, cooldown_s: float) -> None:
        self.slots = asyncio.Semaphore(CALLS_PER_HOST)
        self._cooldown_s = cooldown_s
        self._failures = 0
        self._alone_until = 0.0
        self._trial = False

    @contextmanager
    def watch(self, now: Callable[[], float]) -> Generator[None, None, None]:
        """Refuse the call or record its outcome. A cancelled call does not count."""
        trial = self._failures >= FAILURES_TO_OPEN
        if trial:
            self._begin_trial(now())
        try:
            yield
        except _Failure as failure:
            self._failures = self._failures + 1 if failure.sick else 0
            if self._failures >= FAILURES_TO_OPEN:
                self._alone_until = now() + self._cooldown_s
            raise failure.problem from None
        else:
            self._failures = 0
        finally:
            if trial:
                self._trial = False

    def _begin_trial(self, now: float) -> None:
        if self._trial or now < self._alone_until:
            seconds = max(1, ceil(self._alone_until - now))
            raise UpstreamUnavailable(headers={"Retry-After": str(seconds)})
        self._trial = True


class _Capped(httpx.AsyncByteStream):
    """A body, decompressed here because httpx 0.28 inflates each chunk without bound."""

    def __init__(self, stream: httpx.AsyncByteStream, coding: str) -> None:
        self._stream = stream
        self._coding = coding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._coding not in {"identity", "gzip"}:
            raise httpx.DecodingError(f"content-encoding {self._coding!r} was not asked for")
        gzip = zlib.decompressobj(wbits=31) if self._coding == "gzip" else None
        received = seen = 0
        async for part in self._stream:
            try:
                plain = gzip.decompress(part, BODY_LIMIT + 1 - seen) if gzip else part
            except zlib.error as error:
                raise httpx.DecodingError(f"the body is no gzip: {error}") from None
            if gzip and gzip.unused_data:  # zlib keeps whatever follows, without bound
                raise httpx.DecodingError("the body goes on after its gzip stream")
            received += len(part)  # gzip may go on for ever without giving anything
            seen += len(plain)
            if max(received, seen) > BODY_LIMIT:
                raise httpx.DecodingError(f"the body is larger than {BODY_LIMIT} bytes")
            yield plain
        if gzip and not gzip.eof:
            raise httpx.DecodingError("the body ends within its gzip stream")

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _cap(response: httpx.Response) -> None:
    coding = response.headers.pop("Content-Encoding", "identity").strip().lower()
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _Capped(response.stream, coding)


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UpstreamFailed(f"{url!r} is no address: {error}") from None
    if address.scheme not in {"http", "https"} or not address.host or (address.port or 0) > PORTS:
        raise UpstreamFailed(f"{url!r} is no http or https address")
    return address


def retry_after_s(text: str) -> float:
    """Seconds of a `Retry-After`, which is a number or a date; 0 for none, nonsense or the past."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if date.tzinfo is None:  # "-0000": UTC by RFC 5322
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


class WebhookFailed(Exception):  # noqa: N818 (it says what happened)
    """A try of a webhook failed. `lasting`: no later try can succeed. The message says why."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class Webhooks:
    """Posts to addresses that users gave; `async with` closes its connections.

    Without `allow_private` it connects to public addresses only. It resolves the name, checks all its
    addresses, and connects to one of those, so that a second answer of the name server changes nothing.
    Redirects are not followed. No proxy is used, because it would resolve the name itself.
    """

    def __init__(self, *, allow_private: bool, timeout_s: float = WEBHOOK_TIMEOUT_S) -> None:
        self.allow_private = allow_private
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s),
            # A connection belongs to one name, also where names share an address: it is not used again.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> None:
        """Raises `WebhookFailed` for every answer but 2xx, and for none in time."""
        try:
            address = _address(url)
            async with asyncio.timeout(self._timeout_s):
                await self._post(address, body, headers)
        except UpstreamFailed as error:
            raise WebhookFailed(str(error), lasting=True) from None
        except TimeoutError:
            raise WebhookFailed(f"no answer within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise WebhookFailed(f"{type(error).__name__}: {error}"[:500]) from None

    async def _post(self, url: httpx.URL, body: bytes, headers: dict[str, str]) -> None:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        checked = await self._resolved(url.host, port)
        target = url.copy_with(host=checked)
        host = url.netloc.decode("ascii")
        async with self._client.stream(
            "POST",
            target,
            content=body,
            headers={**headers, "Host": host},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        ) as response:
            status = response.status_code
            if response.is_redirect:
                raise WebhookFailed(f"answered {status}; redirects are not followed")
            if not response.is_success:
                raise WebhookFailed(f"answered {status}")

    async def _resolved(self, host: str, port: int) -> str:
        """One address of the name. All of them have to be public."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise WebhookFailed(f"the name {host[:100]!r} has no address: {error}") from None
        addresses = [str(each[4][0]) for each in found]
        if not self.allow_private and (private := [each for each in addresses if not is_public(each)]):
            raise WebhookFailed(
                f"{host[:100]!r} is the private address {private[0]}: WEBHOOK_PRIVATE=on allows these",
                lasting=True,
            )
        if not addresses:
            raise WebhookFailed(f"the name {host[:100]!r} has no address")
        return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet, also where it holds an IPv4 address inside."""
    ip = ip_address(address.partition("%")[0])
    inside: list[IPv4Address | IPv6Address] = [ip]
    if isinstance(ip, IPv6Address):
        inside += [each for each in (ip.ipv4_mapped, ip.sixtofour) if each is not None]
        if ip.teredo is not None or ip in _SITE_LOCAL:
            return False
        if ip in _NAT64:
            inside.append(IPv4Address(int(ip) & 0xFFFFFFFF))
            return all(each.is_global and not each.is_multicast for each in inside[1:])
        if ip.ipv4_mapped is not None:
            inside = inside[1:]
    return all(each.is_global and not each.is_multicast for each in inside)


_NAT64 = IPv6Network("64:ff9b::/96")
_SITE_LOCAL = IPv6Network("fec0::/10")
