"""Translate a libpq address into asyncpg's arguments, so that both drivers connect to the same server."""

import os
import re
import socket
import ssl
from typing import Any, Final
from urllib.parse import urlencode

from service.postgres_url import hosts, parameters

CONNECT_TIMEOUT_S: Final = 5
_SHORTEST_S: Final = 2  # the same minimum as libpq's

# Parameters that asyncpg reads under libpq's names and with libpq's meaning.
_SHARED: Final = frozenset(
    {
        "gsslib",
        "krbsrvname",
        "passfile",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
    }
)
# Parameters that this module passes on itself; the service always uses UTF-8.
_HANDLED: Final = frozenset(
    {
        "application_name",
        "client_encoding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "host",
        "hostaddr",
        "options",
        "password",
        "port",
        "service",
        "servicefile",
        "user",
    }
)
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


def asyncpg_arguments(url: str, server_settings: dict[str, str] | None) -> dict[str, Any]:
    """Arguments of `asyncpg.connect` and `create_pool`; the address's own application name wins over ours.

    With `server_settings=None` nothing of ours is sent, which a pooler might refuse.
    """
    given = parameters(url)
    shared = {name: value for name, value in given.items() if name in _SHARED}
    settings = dict(server_settings or {})
    if "options" in given:
        settings["options"] = given["options"]
    if name := given.get("application_name") or given.get("fallback_application_name"):
        settings["application_name"] = name
    arguments: dict[str, Any] = {"timeout": _timeout_s(given), "server_settings": settings or None}
    if shared.get("sslrootcert") == "system":  # libpq's name for the system's certificate store
        del shared["sslrootcert"]
        arguments["ssl"] = ssl.create_default_context()
    arguments["dsn"] = f"postgresql://?{urlencode(shared)}"
    if given.get("host") or given.get("hostaddr"):
        addresses = hosts(given)
        arguments["host"] = [host or "localhost" for host, _ in addresses]
        arguments["port"] = [int(port) for _, port in addresses]
    elif "port" in given:
        arguments["port"] = int(given["port"])
    names = {"user": "user", "password": "password", "dbname": "database"}
    names |= {"service": "service", "servicefile": "servicefile"}
    return arguments | {ours: given[theirs] for theirs, ours in names.items() if theirs in given}


def left_out(url: str) -> list[str]:
    """Parameters of the address that psycopg (`migrate`, `watch`) supports and asyncpg does not."""
    return sorted(parameters(url).keys() - _SHARED - _HANDLED)


def cause(error: BaseException) -> str:
    """Why a connection failed, in a few words and without its address."""
    if isinstance(error, TimeoutError):
        return "no answer in time (connect_timeout)"
    if isinstance(error, socket.gaierror):
        return f"unknown host ({error.strerror})"
    message = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    numbers = {int(number) for number in _ERRNO.findall(message)}  # one for each address of a host
    return ", ".join(os.strerror(number) for number in sorted(numbers)) or message


def _timeout_s(given: dict[str, str]) -> float:
    """The timeout; libpq reads zero or less as no limit, and the service then uses its default."""
    timeout_s = int(given.get("connect_timeout", 0))
    return max(timeout_s, _SHORTEST_S) if timeout_s > 0 else CONNECT_TIMEOUT_S
