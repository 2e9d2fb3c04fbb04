"""Whom the current work is for, so that callers get equal shares of the reader's connections."""

from contextvars import ContextVar
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

current_caller: Final[ContextVar[str | None]] = ContextVar("caller", default="")
"""The token's subject, or else the address. None is the service itself, whose work is never refused:
live streams, and results that are refreshed before anybody asks."""


def address_of(scope: Any) -> str:
    """The address block of a request's client, behind trusted proxies too; empty if there is none."""
    client = scope.get("client")
    address = scope.get("state", {}).get("address") or (client[0] if client else "")
    return address_block(address) if address else ""


@lru_cache(maxsize=4096)
def address_block(host: str) -> str:
    """An IPv4 address, or an IPv6 /64, the smallest block that one customer gets."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # no address, as in tests
        return host
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64))
