"""Parse and validate Postgres URLs with libpq itself."""

from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, PGconn

from service.errors import Stop

SCHEMES: Final = ("postgresql://", "postgres://")
DEFAULT_PORT: Final = "5432"
# A connection to this socket fails at once, after libpq has validated every parameter.
_UNREACHABLE: Final = "/nonexistent/tally"
_FAILED_CONNECTION: Final = "connection to server"
_HARMLESS: Final = ("invalid URI query parameter", "extra key/value separator")
_NUMBERS: Final = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)


def parameters(url: str) -> dict[str, str]:
    """The parameters of a URL by libpq's names. Raises `psycopg.ProgrammingError` if it is malformed."""
    return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}


def hosts(given: dict[str, str]) -> list[tuple[str, str]]:
    """Each host with its port. An empty host is the default host."""
    names = _names(given)
    ports = given.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    return [(name, port or DEFAULT_PORT) for name, port in zip(names, ports, strict=False)]


def _names(given: dict[str, str]) -> list[str]:
    return (given.get("hostaddr") or given.get("host", "")).split(",")


def where(url: str) -> str:
    """`host:port` of every host, for messages. It never contains the password."""
    try:
        given = parameters(url)
    except psycopg.Error:
        return "the given address"
    if "service" in given and not given.get("host"):
        return f"service {given['service']}"
    return ", ".join(
        f"{f'[{host}]' if ':' in host else host or 'localhost'}:{port}" for host, port in hosts(given)
    )


def check(variable: str, url: str) -> None:
    """Raise `Stop` (exit status 2) for a URL that libpq refuses. The message never contains the password."""
    given: dict[str, str] = {}
    try:
        given = parameters(url) if url.startswith(SCHEMES) else {}
        well_formed = bool(given) and all(_is_port(port) for _, port in hosts(given))
    except psycopg.ProgrammingError as error:
        reason = str(error).strip()
        if reason.startswith(_HARMLESS):  # other reasons may repeat the password
            raise Stop(f"{variable}: {reason}", exit_code=2) from None
        well_formed = False
    if not well_formed:
        raise Stop(f"{variable}: expected postgresql://user:password@host:port/database", exit_code=2)
    if "@" in given.get("host", ""):
        raise Stop(f"{variable}: an @ in the user or password is written %40", exit_code=2)
    for name in _NUMBERS:
        if not given.get(name, "0").strip().removeprefix("-").isdecimal():
            raise Stop(f"{variable}: {name} is a whole number, not {given[name]!r}", exit_code=2)
    if reason := _refusal(given):
        raise Stop(f"{variable}: {reason}", exit_code=2)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16


def _refusal(given: dict[str, str]) -> str | None:
    """The reason why libpq refuses a parameter's value; None if it accepts all."""
    test_parameters = {name: value for name, value in given.items() if name != "hostaddr"}
    test_parameters["host"] = ",".join(_UNREACHABLE for _ in _names(given))
    test_parameters.setdefault("port", DEFAULT_PORT)
    connection = PGconn.connect_start(make_conninfo(**test_parameters).encode())
    try:
        message = connection.error_message.decode(errors="replace").strip()
        refused = connection.status == ConnStatus.BAD and not message.startswith(_FAILED_CONNECTION)
    finally:
        connection.finish()
    return message.splitlines()[0] if refused and message else None
