"""Parse and validate REDIS_URL: one server, servers behind Sentinel, or a Cluster. Pure."""

from collections.abc import Iterable
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

from service.errors import Stop

Kind = Literal["one", "sentinel", "cluster"]

DEFAULT_PORT: Final[dict[Kind, int]] = {"one": 6379, "sentinel": 26379, "cluster": 6379}
_KINDS: Final[dict[str, Kind]] = {
    "redis": "one",
    "unix": "one",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
# The client's names for how it checks the certificate.
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"})
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})
_SHAPES: Final = (
    "expected redis://:password@host:port/0, rediss:// for TLS, unix:///path,"
    " redis+sentinel://host:port,host:port/service or redis+cluster://host:port,host:port"
)
_MOST_PORTS: Final = 65_535


class RedisAddress(Struct, frozen=True):
    """Where the shared store is. `service` is Sentinel's name of the primary, `path` that of a socket."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    tls: bool
    username: str | None
    password: str | None
    database: int
    service: str
    path: str
    options: dict[str, str | bool]
    sentinel: dict[str, str]

    @property
    def where(self) -> str:
        """The hosts, for messages. It never contains the password."""
        return self.path or ", ".join(
            f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in self.hosts
        )


def parse(url: str) -> RedisAddress:
    """Raises `Stop` (exit status 2) for a malformed address. The message never contains the password."""
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise Stop(f"REDIS_URL: {_SHAPES}", exit_code=2) from None
    tls = parts.scheme.startswith("rediss")
    kind = _KINDS.get(parts.scheme.replace("rediss", "redis", 1))
    if kind is None:
        raise Stop(f"REDIS_URL: {_SHAPES}", exit_code=2)
    login, _, netloc = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    is_socket = parts.scheme == "unix"
    options, sentinel = _options(given, kind, tls=tls)
    service, database = _service_and_database(parts, kind)
    return RedisAddress(
        kind=kind,
        hosts=() if is_socket else tuple(_hosts(netloc.split(","), kind)),
        tls=tls,
        username=unquote(username) or None,
        password=unquote(password) or None,
        database=database,
        service=service,
        path=unquote(parts.path) if is_socket else "",
        options=options,
        sentinel=sentinel,
    )


def _hosts(texts: Iterable[str], kind: Kind) -> Iterable[tuple[str, int]]:
    for text in texts:
        try:
            each = urlsplit(f"//{text}")
            host, port = each.hostname, each.port
        except ValueError:
            host, port = None, None
        if not host or port == 0 or (port or 0) > _MOST_PORTS:
            raise Stop(f"REDIS_URL: {text!r} is no host:port; {_SHAPES}", exit_code=2)
        yield host, port or DEFAULT_PORT[kind]


def _service_and_database(parts: SplitResult, kind: Kind) -> tuple[str, int]:
    words = [] if parts.scheme == "unix" else [unquote(each) for each in parts.path.split("/") if each]
    service = words.pop(0) if kind == "sentinel" and words else ""
    if kind == "sentinel" and not service:
        raise Stop("REDIS_URL: name Sentinel's service: redis+sentinel://host:port/service", exit_code=2)
    if kind == "cluster" and words:
        raise Stop("REDIS_URL: a Cluster has no numbered databases", exit_code=2)
    if len(words) > 1 or not all(word.isascii() and word.isdigit() for word in words):
        raise Stop(f"REDIS_URL: the database is a number, not {'/'.join(words)!r}", exit_code=2)
    return service, int(words[0]) if words else 0


def _options(
    given: list[tuple[str, str]], kind: Kind, *, tls: bool
) -> tuple[dict[str, str | bool], dict[str, str]]:
    options: dict[str, str | bool] = {}
    sentinel: dict[str, str] = {}
    known = (_TLS_OPTIONS if tls else frozenset[str]()) | (
        _SENTINEL_OPTIONS if kind == "sentinel" else frozenset[str]()
    )
    for name, value in given:
        if name not in known:
            hint = f"; it takes {', '.join(sorted(known))}" if known else ""
            raise Stop(f"REDIS_URL: this address takes no parameter {name!r}{hint}", exit_code=2)
        if name in _SENTINEL_OPTIONS:
            sentinel[name.removeprefix("sentinel_")] = value
        elif name == "ssl_check_hostname":
            if value not in {"true", "false"}:
                raise Stop(f"REDIS_URL: {name} is true or false, not {value!r}", exit_code=2)
            options[name] = value == "true"
        else:
            options[name] = value
    return options, sentinel
