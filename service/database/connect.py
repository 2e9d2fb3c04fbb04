"""How asyncpg connects to an address that is written for libpq, so that both drivers mean the same server."""

import ssl
from typing import Any, Final
from urllib.parse import urlencode

from service.postgres_url import hosts, parameters

CONNECT_TIMEOUT_S: Final = 5
_SHORTEST_S: Final = 2  # libpq's own

# What asyncpg reads from an address by libpq's names, and means the same by.
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
# What this module hands on by itself; the service always speaks UTF-8.
_TAKEN: Final = frozenset(
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
    if shared.get("sslrootcert") == "system":  # libpq's word for the system's own list
        del shared["sslrootcert"]
        arguments["ssl"] = ssl.create_default_context()
    arguments["dsn"] = f"postgresql://?{urlencode(shared)}"
    if given.get("host") or given.get("hostaddr"):
        places = hosts(given)
        arguments["host"] = [host or "localhost" for host, _ in places]
        arguments["port"] = [int(port) for _, port in places]
    elif "port" in given:
        arguments["port"] = int(given["port"])
    names = {"user": "user", "password": "password", "dbname": "database"}
    names |= {"service": "service", "servicefile": "servicefile"}
    return arguments | {ours: given[theirs] for theirs, ours in names.items() if theirs in given}


def left_out(url: str) -> list[str]:
    """Parameters of the address that psycopg (`migrate`, `watch`) honours and asyncpg cannot."""
    return sorted(parameters(url).keys() - _SHARED - _TAKEN)


def _timeout_s(given: dict[str, str]) -> float:
    """Zero and less is libpq's word for no limit, which a service does not have."""
    wanted = int(given.get("connect_timeout", 0))
    return max(wanted, _SHORTEST_S) if wanted > 0 else CONNECT_TIMEOUT_S
