"""The address of a client behind proxies that we trust (`TRUSTED_PROXIES`)."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

from service.http.asgi import header_of

HOPS: Final = 16
"""Of a longer `X-Forwarded-For`, only the last hops are read."""


class Proxies:
    """Networks of proxies whose `X-Forwarded-For` we believe. Raises ValueError for what is no network."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in networks]
        self._trusted = lru_cache(maxsize=4096)(self._contains)

    def trust(self, address: str) -> bool:
        """Whether a trusted proxy has this address."""
        return bool(self._networks) and self._trusted(address)

    def client_address(self, scope: Any) -> str | None:
        """The peer's address, or the last one in `X-Forwarded-For` that is no trusted proxy.

        Every proxy appends the address that it saw, so addresses before that one may be forged.
        """
        client = scope.get("client")
        if not client:
            return None
        address: str = client[0]
        if not self.trust(address):
            return address
        hops = header_of(scope, b"x-forwarded-for").split(",")[-HOPS:]
        for hop in reversed([each.strip() for each in hops]):
            try:
                address = str(ip_address(hop))
            except ValueError:  # a proxy appends addresses alone: the rest is the caller's
                return address
            if not self.trust(address):
                return address
        return address

    def _contains(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(mapped in network for network in self._networks)
