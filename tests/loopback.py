"""Clients of services on this machine, which speak no TLS.

Reading the certificates of the world takes each client 20 ms of the processor, also that of `httpx.get`.
"""

import ssl
from typing import Any, Final

import httpx

NO_CERTIFICATES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def calling(base_url: str = "", **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, verify=NO_CERTIFICATES, **options)
