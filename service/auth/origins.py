"""Where a request comes from: the name in `Host`, and whether a page of another site sent it.

`Host` is read once, by the grammar of RFC 9110 (7.2) and RFC 3986 (3.2.2): a reader that takes more is fooled
by `evil@127.0.0.1` and `127.0.0.1:80.evil.example`.
"""

import re
from collections.abc import Set as AbstractSet
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Final
from urllib.parse import urlsplit

from service.errors import BadRequest
from service.http.asgi import header_of
from service.http.short_cache import remember_short

PORTS: Final = 65_535

_HOST: Final = re.compile(
    rb"""
    (?: \[ (?: (?P<v6> [0-9a-f:.]+ ) | v[0-9a-f]+ \. [a-z0-9._~!$&'()*+,;=:-]+ ) \]
      | (?P<name> (?: [a-z0-9._~!$&'()*+,;=-] | %[0-9a-f]{2} )+ ) )
    (?: : (?P<port> [0-9]* ) )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TELLING: Final = frozenset({b"origin", b"sec-fetch-site", b"referer"})
_OWN_PAGE: Final = frozenset({"", "none", "same-origin"})


def host_of(scope: Any) -> bytes:
    """The only `Host` of a request, empty where HTTP/1.0 may leave it out. Raises `BadRequest`."""
    given = [value for name, value in scope["headers"] if name == b"host"]
    if len(given) > 1:
        raise BadRequest("Two Host headers: send one.")
    if given and given[0]:
        if read_host(given[0]) is None:
            raise BadRequest("The Host header is no host name or address, with or without a port.")
        return given[0]
    if scope.get("http_version") in {"1.1", "2"}:
        raise BadRequest("The Host header is missing.")
    return b""


@remember_short
def read_host(host: bytes) -> str | None:
    """The name in a `Host` header, in lower case, None if it is malformed; clients repeat a few."""
    found = _HOST.fullmatch(host)
    if found is None or len(found["port"] or b"") > len(str(PORTS)) or int(found["port"] or 0) > PORTS:
        return None
    if found["v6"] is None:
        return (found["name"] or host).decode().lower()
    try:
        return str(IPv6Address(found["v6"].decode()))
    except AddressValueError:
        return None


def is_foreign(scope: Any, host: bytes, allowed: AbstractSet[str]) -> bool:
    """Whether a page of neither `host` nor an `allowed` origin sent this request.

    Browsers say so in `Origin`; where they leave it out (`<img>`, a link) in `Sec-Fetch-Site`, old ones in
    `Referer`. Another port is another origin: `same-site` is foreign too. No page can forge these headers.
    """
    if _TELLING.isdisjoint([name for name, _ in scope["headers"]]):
        return False
    own = _own(host) | allowed
    if origin := header_of(scope, b"origin"):
        return origin not in own
    if site := header_of(scope, b"sec-fetch-site"):
        return site not in _OWN_PAGE
    referer = header_of(scope, b"referer")
    return bool(referer) and _origin(referer) not in own


def is_own(scope: Any, host: bytes, allowed: AbstractSet[str]) -> bool:
    """Whether the browser says that a page of `host` or of an `allowed` origin sent this request."""
    if origin := header_of(scope, b"origin"):
        return origin in _own(host) | allowed
    return header_of(scope, b"sec-fetch-site") == "same-origin"


def _own(host: bytes) -> set[str]:
    return {f"{scheme}://{host.decode()}" for scheme in ("http", "https")}


def _origin(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}"
