"""What an operator can set: one frozen tree, read once from the environment.

Each field carries its variable, unit, default and help; the README's table is checked against `rows()`.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from msgspec import Meta, Struct

from service import bundled, postgres_url
from service.errors import Stop

T = TypeVar("T", bound=Struct)


def env(variable: str, help_text: str, *, shown: str = "", **limits: Any) -> Meta:
    """Bind a field to its variable; `shown` is what the table prints when the default says too little."""
    return Meta(description=help_text, extra={"env": variable, "shown": shown}, **limits)


class Database(Struct, frozen=True, kw_only=True):
    url: Annotated[str | None, env("DATABASE_URL", "owner connection", shown="embedded")] = None
    reader_url: Annotated[
        str | None,
        env(
            "READER_DATABASE_URL",
            "login role that runs stored SQL",
            shown="made by `migrate` for the embedded one",
        ),
    ] = None
    data_dir: Annotated[Path, env("DATA_DIR", "folder of the embedded Postgres and of keys")] = Path(".data")
    data_schemas: Annotated[
        tuple[str, ...],
        env(
            "DATA_SCHEMAS",
            "schemas that stored SQL may read, comma-separated; their order is the search path",
            min_length=1,
        ),
    ] = ("data",)
    time_zone: Annotated[
        str,
        env(
            "TIME_ZONE",
            "IANA name, such as Europe/Berlin: the time zone of stored SQL's session, whose days windows and"
            " `day_range` mean",
        ),
    ] = "UTC"
    statement_timeout_ms: Annotated[
        int, env("STATEMENT_TIMEOUT_MS", "milliseconds a stored statement may run", ge=1, le=3_600_000)
    ] = 5000
    row_limit: Annotated[int, env("ROW_LIMIT", "rows a result may hold", ge=1, le=1_000_000)] = 10_000
    result_bytes_limit: Annotated[
        int, env("RESULT_BYTES_LIMIT", "bytes a result may take", ge=1024, le=1 << 30)
    ] = 8_388_608
    reader_pool_size: Annotated[
        int,
        env(
            "READER_POOL_SIZE",
            "connections per worker for stored SQL, beside two on which new SQL is planned",
            ge=1,
            le=39,
        ),
    ] = 8
    reader_queue_limit: Annotated[
        int,
        env(
            "READER_QUEUE_LIMIT", "callers that may wait for one of them; the next gets 503", ge=0, le=100_000
        ),
    ] = 128
    reader_pooler: Annotated[
        Literal["none", "transaction"],
        env(
            "READER_POOLER",
            "`transaction` when READER_DATABASE_URL leads to a pooler such as PgBouncer in that mode",
        ),
    ] = "none"

    @property
    def zone(self) -> tzinfo:
        return zone_of(self.time_zone)


class Imports(Struct, frozen=True, kw_only=True):
    bytes_limit: Annotated[
        int,
        env("IMPORT_BYTES_LIMIT", "bytes of a file to import, of what an XLSX unzips to as well", ge=1024),
    ] = 104_857_600


class Results(Struct, frozen=True, kw_only=True):
    cache_bytes: Annotated[int, env("RESULT_CACHE_BYTES", "bytes of memory for results per worker", ge=0)] = (
        268_435_456
    )
    fresh_for_s: Annotated[
        int,
        env(
            "FRESH_FOR_S",
            "seconds that results stay fresh which time bounds; others until their data change",
            ge=0,
        ),
    ] = 60
    stale_for_s: Annotated[
        int,
        env(
            "STALE_FOR_S",
            "seconds past fresh that a result is served, so marked, while it is run again; "
            "after that callers wait for the run",
            ge=0,
        ),
    ] = 10
    stale_if_error_s: Annotated[
        int, env("STALE_IF_ERROR_S", "seconds that held results are served without the database", ge=0)
    ] = 86_400


class Server(Struct, frozen=True, kw_only=True):
    host: Annotated[str, env("HOST", "address to listen on")] = "127.0.0.1"
    port: Annotated[int, env("PORT", "port to listen on", ge=1, le=65535)] = 8000
    workers: Annotated[
        int, env("WORKERS", "server processes; one that dies or hangs is replaced", ge=1, le=64)
    ] = 1
    grace_s: Annotated[
        int, env("GRACE_S", "seconds that running requests may take after SIGTERM", ge=1, le=3600)
    ] = 25
    header_timeout_s: Annotated[
        int,
        env(
            "HEADER_TIMEOUT_S",
            "seconds a connection may take to send the head of a request, the first or the next; set it "
            "above the idle time of a load balancer in front",
            ge=1,
            le=3600,
        ),
    ] = 10
    body_timeout_s: Annotated[
        int,
        env(
            "BODY_TIMEOUT_S",
            "seconds that a request's body may be waited for, and one more for each KiB that has arrived",
            ge=1,
            le=3600,
        ),
    ] = 30
    connections_per_address: Annotated[
        int,
        env(
            "CONNECTIONS_PER_ADDRESS",
            "connections per client address (IPv6: /64) and worker; past it those without a running request "
            "are closed, the longest idle first",
            ge=1,
            le=1_000_000,
        ),
    ] = 1000

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


PerMinute = Annotated[int, Meta(ge=0, le=100_000_000)]


class Auth(Struct, frozen=True, kw_only=True):
    mode: Annotated[
        Literal["on", "off"],
        env("AUTH", "`off` lets everyone in as everyone: only on a loopback HOST"),
    ] = "on"
    clients: Annotated[
        str | None,
        env(
            "AUTH_CLIENTS",
            "`id:secret-hash:scope scope` entries, comma-separated, for `/oauth2/token`; the hash is "
            "hexadecimal SHA-256 of a machine-made secret, or an argon2id string",
        ),
    ] = None
    public_url: Annotated[
        str | None,
        env("PUBLIC_URL", "address that clients use; the issuer of our tokens", shown="http://HOST:PORT"),
    ] = None
    oidc_issuer: Annotated[
        str | None, env("OIDC_ISSUER", "an outside issuer (Cognito, Keycloak, Auth0) whose JWTs are accepted")
    ] = None
    oidc_audience: Annotated[
        tuple[str, ...],
        env(
            "OIDC_AUDIENCE",
            "audiences, comma-separated, one of which its tokens must name",
            shown="none",
        ),
    ] = ()
    oidc_jwks_url: Annotated[
        str | None, env("OIDC_JWKS_URL", "address of its keys", shown="by discovery")
    ] = None
    cors_origins: Annotated[
        tuple[str, ...],
        env("CORS_ORIGINS", "web origins, comma-separated, whose pages may call the API", shown="none"),
    ] = ()
    rate_limit: Annotated[
        PerMinute | None,
        env(
            "RATE_LIMIT",
            "requests a minute per caller and worker, 0 for no limit",
            shown="60000; none on a loopback HOST",
        ),
    ] = None
    metric_rate_limit: Annotated[
        PerMinute | None,
        env(
            "METRIC_RATE_LIMIT",
            "requests a minute per caller, metric and worker, 0 for no limit",
            shown="60000; none on a loopback HOST",
        ),
    ] = None


class Logs(Struct, frozen=True, kw_only=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], env("LOG_LEVEL", "least severe line that is written")
    ] = "info"
    format: Annotated[
        Literal["console", "json"] | None,
        env("LOG_FORMAT", "`console` or `json`", shown="`console` on a terminal, else `json`"),
    ] = None


class Outbound(Struct, frozen=True, kw_only=True):
    timeout_s: Annotated[
        float,
        env("EXTERNAL_TIMEOUT_S", "seconds an outside call may take, all tries together", gt=0, le=300),
    ] = 10
    cooldown_s: Annotated[
        float,
        env("OUTBOUND_COOLDOWN_S", "seconds a host that keeps failing is left alone", gt=0, le=3600),
    ] = 30
    external_api_url: Annotated[
        str,
        env("EXTERNAL_API_URL", "http(s) address of the API that items are enriched from"),
    ] = "https://jsonplaceholder.typicode.com"


class Model(Struct, frozen=True, kw_only=True):
    base_url: Annotated[
        str | None,
        env(
            "LLM_BASE_URL",
            "OpenAI-compatible endpoint that writes the SQL of prompts, up to `/v1`",
            shown="none: rules write it",
        ),
    ] = None
    api_key: Annotated[str | None, env("LLM_API_KEY", "its key")] = None
    name: Annotated[str | None, env("LLM_MODEL", "its model; needed with LLM_BASE_URL")] = None
    timeout_s: Annotated[
        float, env("LLM_TIMEOUT_S", "seconds a prompt may take, all tries together", gt=0, le=600)
    ] = 20
    cost_limit: Annotated[
        float, env("ASK_COST_LIMIT", "estimated cost above which SQL for a prompt is refused", gt=0)
    ] = 10_000_000


class Settings(Struct, frozen=True, kw_only=True):
    database: Database = Database()
    results: Results = Results()
    server: Server = Server()
    auth: Auth = Auth()
    logs: Logs = Logs()
    imports: Imports = Imports()
    outbound: Outbound = Outbound()
    model: Model = Model()
    seeds_dir: Annotated[Path, env("SEEDS_DIR", "folder that `seed` imports", shown="seeds")] = bundled(
        "seeds"
    )

    @property
    def public_url(self) -> str:
        """The address that clients use, without a slash at its end."""
        if self.auth.public_url is not None:
            return self.auth.public_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.server.host, self.server.host)  # noqa: S104 (a word to replace)
        return f"http://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{self.server.port}"

    @property
    def rate_limits(self) -> tuple[int, int]:
        """Requests a minute: per caller, and per caller and metric; 0 is no limit."""
        default = 0 if self.server.on_loopback else 60_000
        given = (self.auth.rate_limit, self.auth.metric_rate_limit)
        return (default if given[0] is None else given[0], default if given[1] is None else given[1])


class Row(Struct, frozen=True):
    """A line of the settings table."""

    env: str
    default: str
    help: str


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings; an empty variable counts as not set.

    Raises `Stop` (exit status 2) with one sentence that names the variable.
    """
    settings = _load(Settings, environ)
    _check_auth(settings)
    _check_time_zone(settings.database.time_zone)
    _check_addresses(settings)
    _check_model(settings.model)
    return settings


def zone_of(name: str) -> tzinfo:
    """The rules of an IANA zone; UTC needs no files."""
    return UTC if name == "UTC" else ZoneInfo(name)


def is_loopback(host: str) -> bool:
    """A name other than `localhost` may resolve to anything, so it does not count."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_loopback_address(url: str) -> bool:
    """Whether this is a plain `http://` address of this machine."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and is_loopback(parts.hostname or "")
    except ValueError:
        return False


def rows(tree: type[Struct] = Settings) -> list[Row]:
    """Every setting in the order of the tree, as the README prints it."""
    found: list[Row] = []
    for name, kind, meta in _fields(tree):
        if meta is None:
            found += rows(kind)
            continue
        extra = meta.extra or {}
        default = extra["shown"] or _text(getattr(tree(), name))
        found.append(Row(extra["env"], default, meta.description or ""))
    return found


def _fields(tree: type[Struct]) -> Iterator[tuple[str, Any, Meta | None]]:
    for name, hint in get_type_hints(tree, include_extras=True).items():
        meta = next((part for part in get_args(hint)[1:] if isinstance(part, Meta)), None)
        yield name, hint, meta


def _load(tree: type[T], environ: Mapping[str, str]) -> T:
    values: dict[str, Any] = {}
    for name, kind, meta in _fields(tree):
        if meta is None:
            values[name] = _load(kind, environ)
        elif text := environ.get((meta.extra or {})["env"], "").strip():
            values[name] = _convert(text, kind, meta)
    return tree(**values)


def _convert(text: str, kind: Any, meta: Meta) -> Any:
    variable = (meta.extra or {})["env"]
    many = getattr(get_args(kind)[0], "__origin__", None) is tuple
    value: Any = [part.strip() for part in text.split(",") if part.strip()] if many else text
    try:
        converted = msgspec.convert(value, kind, strict=False, dec_hook=lambda to, raw: to(raw))
    except msgspec.ValidationError as error:
        raise Stop(f"{variable}={text!r}: {error} ({meta.description})", exit_code=2) from None
    if variable.endswith("DATABASE_URL"):
        postgres_url.check(variable, text)
    return converted


def _check_time_zone(name: str) -> None:
    """A zone must be one for us and for Postgres, which reads other names its own way (`UTC+3` is west)."""
    if name == "UTC":
        return
    known = available_timezones() - {"localtime", "posixrules"}
    if name in known:
        return
    if not known:
        raise Stop(f"TIME_ZONE={name!r}: this machine has no time zone database; install tzdata", exit_code=2)
    places = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), places, n=1)
    meant = f"; did you mean {places[near[0]]}?" if near else ""
    raise Stop(f"TIME_ZONE={name[:80]!r}: expected an IANA name such as Europe/Berlin{meant}", exit_code=2)


def _check_auth(settings: Settings) -> None:
    auth, host = settings.auth, settings.server.host
    if auth.mode == "off" and not settings.server.on_loopback:
        raise Stop(
            f"AUTH=off lets everyone in and is allowed only on a loopback address, but HOST is {host}:"
            " set AUTH=on or HOST=127.0.0.1",
            exit_code=2,
        )
    if auth.oidc_issuer is not None and not auth.oidc_audience:
        raise Stop("OIDC_ISSUER needs OIDC_AUDIENCE: whom its tokens must be meant for", exit_code=2)
    if auth.oidc_issuer is None and (auth.oidc_audience or auth.oidc_jwks_url):
        raise Stop("OIDC_AUDIENCE and OIDC_JWKS_URL need OIDC_ISSUER", exit_code=2)
    for origin in auth.cors_origins:
        if not _is_address(origin, plain=True) or urlsplit(origin).path:
            raise Stop(f"CORS_ORIGINS: {origin!r} is no origin such as https://example.org", exit_code=2)


def _check_addresses(settings: Settings) -> None:
    auth = settings.auth
    addresses = {
        "OIDC_ISSUER": (auth.oidc_issuer, False),
        "OIDC_JWKS_URL": (auth.oidc_jwks_url, False),
        "PUBLIC_URL": (auth.public_url, True),
        "EXTERNAL_API_URL": (settings.outbound.external_api_url, True),
        "LLM_BASE_URL": (settings.model.base_url, True),
    }
    for variable, (address, plain) in addresses.items():
        if address is not None and not _is_address(address, plain=plain):
            secure = "http or https" if plain else "https (http on loopback only)"
            raise Stop(f"{variable}={address!r}: expected an absolute {secure} address", exit_code=2)


def _check_model(model: Model) -> None:
    if model.base_url is not None and model.name is None:
        raise Stop("LLM_BASE_URL needs LLM_MODEL: the name of a model that it serves", exit_code=2)
    if model.base_url is None and model.name is not None:
        raise Stop("LLM_MODEL needs LLM_BASE_URL: the endpoint that serves it", exit_code=2)
    if model.api_key is not None and not (model.api_key.isascii() and model.api_key.isprintable()):
        raise Stop("LLM_API_KEY: expected printable ASCII", exit_code=2)


def _is_address(text: str, *, plain: bool) -> bool:
    """An absolute http(s) address without user, query and fragment; `plain` allows http anywhere."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (plain and parts.scheme == "http") or is_loopback_address(text)
    plain_text = text.isprintable() and not set(text) & {" ", "?", "#", "\\"} and "@" not in parts.netloc
    return bool(secure and host and plain_text)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, (str, int, Path)) else ",".join(value)
