"""The settings of the service: one frozen tree, which `environment` reads once.

Each field carries its variable, unit, default and help.
"""

from datetime import UTC, tzinfo
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from service import bundled
from service.settings.features import Alerts, History, Live, Logs, Model, Outbound, Pages, Traces
from service.settings.fields import env


class Database(Struct, frozen=True, kw_only=True):
    url: Annotated[str | None, env("DATABASE_URL", "owner connection", shown="embedded")] = None
    listen_url: Annotated[
        str | None,
        env(
            "LISTEN_DATABASE_URL",
            "Postgres's own address for the owner, if DATABASE_URL is a pooler in transaction mode",
        ),
    ] = None
    reader_url: Annotated[
        str | None,
        env(
            "READER_DATABASE_URL",
            "login role that runs stored SQL",
            shown="made by `migrate` for the embedded one",
        ),
    ] = None
    replica_urls: Annotated[
        tuple[str, ...],
        env(
            "REPLICA_DATABASE_URLS",
            "hot standbys that run stored SQL as the reader, comma-separated; the primary runs what they "
            "lag behind",
            shown="none",
        ),
    ] = ()
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
            "IANA name, such as Europe/Berlin: the session time zone of stored SQL; windows and `day_range`"
            " use its days",
        ),
    ] = "UTC"
    statement_timeout_ms: Annotated[
        int, env("STATEMENT_TIMEOUT_MS", "milliseconds that a stored statement may run", ge=1, le=3_600_000)
    ] = 5000
    row_limit: Annotated[int, env("ROW_LIMIT", "maximum rows of a result", ge=1, le=1_000_000)] = 10_000
    result_bytes_limit: Annotated[
        int, env("RESULT_BYTES_LIMIT", "maximum bytes of a result", ge=1024, le=1 << 30)
    ] = 8_388_608
    reader_pool_size: Annotated[
        int,
        env(
            "READER_POOL_SIZE",
            "connections per worker for stored SQL; two more connections plan new SQL",
            ge=1,
            le=39,
        ),
    ] = 8
    reader_queue_limit: Annotated[
        int,
        env(
            "READER_QUEUE_LIMIT",
            "callers that may wait for a reader connection; further callers get 503, and those who would "
            "wait too long",
            ge=0,
            le=100_000,
        ),
    ] = 128
    reader_pooler: Annotated[
        Literal["none", "transaction"],
        env(
            "READER_POOLER",
            "`transaction` if READER_DATABASE_URL is a pooler, such as PgBouncer, in transaction mode",
        ),
    ] = "none"

    @property
    def direct_url(self) -> str | None:
        """The owner's address for what needs a session: LISTEN, polls, migrations, commands."""
        return self.listen_url or self.url

    @property
    def zone(self) -> tzinfo:
        return zone_of(self.time_zone)


class Imports(Struct, frozen=True, kw_only=True):
    bytes_limit: Annotated[
        int,
        env("IMPORT_BYTES_LIMIT", "maximum bytes of a file to import, also of an unzipped XLSX", ge=1024),
    ] = 104_857_600


class Results(Struct, frozen=True, kw_only=True):
    cache_bytes: Annotated[
        int, env("RESULT_CACHE_BYTES", "bytes of memory per worker for cached results", ge=0)
    ] = 268_435_456
    fresh_for_s: Annotated[
        int,
        env(
            "FRESH_FOR_S",
            "seconds that a result that depends on the clock stays fresh; other results stay fresh until "
            "their tables change",
            ge=0,
        ),
    ] = 60
    stale_for_s: Annotated[
        int,
        env(
            "STALE_FOR_S",
            "seconds that a stale result is served, marked as stale, while it is revalidated; after that "
            "callers wait",
            ge=0,
        ),
    ] = 10
    stale_if_error_s: Annotated[
        int,
        env(
            "STALE_IF_ERROR_S",
            "seconds that cached results are served while the database is unavailable",
            ge=0,
        ),
    ] = 86_400


class Nodes(Struct, frozen=True, kw_only=True):
    redis_url: Annotated[
        str | None,
        env(
            "REDIS_URL",
            "Redis or Valkey through which nodes share results (`redis://`, `rediss://`, "
            "`redis+sentinel://`, `redis+cluster://`); needs the `redis` extra",
        ),
    ] = None


class Server(Struct, frozen=True, kw_only=True):
    host: Annotated[str, env("HOST", "address to listen on")] = "127.0.0.1"
    port: Annotated[int, env("PORT", "port to listen on", ge=1, le=65535)] = 8000
    workers: Annotated[
        int, env("WORKERS", "server processes; one that dies or hangs is replaced", ge=1, le=64)
    ] = 1
    grace_s: Annotated[
        int, env("GRACE_S", "seconds that running requests may take after SIGTERM", ge=1, le=3600)
    ] = 25
    drain_s: Annotated[
        int,
        env(
            "DRAIN_S",
            "seconds after SIGTERM in which it still serves while `/health/ready` is 503, so that a load "
            "balancer that asks for it looks elsewhere first",
            ge=0,
            le=3600,
        ),
    ] = 0
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
            "seconds to receive the body of a request, plus one second for each KiB received",
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

    trusted_proxies: Annotated[
        tuple[str, ...],
        env(
            "TRUSTED_PROXIES",
            "networks of the proxies in front, comma-separated (`10.0.0.0/8`): their `X-Forwarded-For` names "
            "the client in the log and for limits, and CONNECTIONS_PER_ADDRESS does not hold for them",
            shown="none",
        ),
    ] = ()

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


PerMinute = Annotated[int, Meta(ge=0, le=100_000_000)]


class Auth(Struct, frozen=True, kw_only=True):
    mode: Annotated[
        Literal["on", "off"],
        env("AUTH", "`off` accepts every request without a token; only allowed on a loopback HOST"),
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
        str | None,
        env(
            "OIDC_ISSUER", "external OpenID Connect issuer (Cognito, Keycloak, Auth0) whose JWTs are accepted"
        ),
    ] = None
    oidc_audience: Annotated[
        tuple[str, ...],
        env(
            "OIDC_AUDIENCE",
            "accepted audiences of OIDC_ISSUER's tokens, comma-separated",
            shown="none",
        ),
    ] = ()
    oidc_jwks_url: Annotated[
        str | None, env("OIDC_JWKS_URL", "address of OIDC_ISSUER's keys", shown="by discovery")
    ] = None
    oidc_client_id: Annotated[
        str | None,
        env(
            "OIDC_CLIENT_ID",
            "our client at OIDC_ISSUER, for people who sign in on the pages",
            shown="the first OIDC_AUDIENCE",
        ),
    ] = None
    oidc_client_secret: Annotated[
        str | None, env("OIDC_CLIENT_SECRET", "its secret, if OIDC_ISSUER gave it one")
    ] = None
    oidc_scope: Annotated[
        str, env("OIDC_SCOPE", "scopes that a sign-in asks OIDC_ISSUER for, separated by spaces")
    ] = "openid"
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
            "requests a minute per caller, metric and worker, 0 for no limit; entries of batches, "
            "tools of MCP and subscriptions count, a dashboard does not",
            shown="60000; none on a loopback HOST",
        ),
    ] = None


class Settings(Struct, frozen=True, kw_only=True):
    database: Database = Database()
    results: Results = Results()
    nodes: Nodes = Nodes()
    server: Server = Server()
    auth: Auth = Auth()
    pages: Pages = Pages()
    logs: Logs = Logs()
    traces: Traces = Traces()
    imports: Imports = Imports()
    outbound: Outbound = Outbound()
    model: Model = Model()
    live: Live = Live()
    alerts: Alerts = Alerts()
    history: History = History()
    seeds_dir: Annotated[Path, env("SEEDS_DIR", "folder that `seed` imports", shown="seeds")] = bundled(
        "seeds"
    )
    sample: Annotated[
        Literal["auto", "on", "off"],
        env(
            "SAMPLE",
            "whether `seed` imports SEEDS_DIR; `auto`: into the embedded database, or when SEEDS_DIR is set",
        ),
    ] = "auto"
    env_file: Annotated[
        Path, env("ENV_FILE", "file with settings, which `connect` writes; the environment wins over it")
    ] = Path(".env")

    @property
    def brings_sample(self) -> bool:
        """Whether `seed` may import, so that a user's own database gets no sample company unasked."""
        if self.sample == "auto":
            return self.database.url is None or self.seeds_dir != bundled("seeds")
        return self.sample == "on"

    @property
    def public_url(self) -> str:
        """The address that clients use, without a trailing slash."""
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

    @property
    def allows_private_webhooks(self) -> bool:
        """A service that only this machine reaches may call this machine."""
        return self.alerts.webhook_private == "on" or self.server.on_loopback

    @property
    def streams_per_caller(self) -> int:
        default = self.live.streams if self.server.on_loopback else 1000
        return self.live.streams_per_caller or default


def zone_of(name: str) -> tzinfo:
    """Return an IANA time zone. UTC needs no files."""
    return UTC if name == "UTC" else ZoneInfo(name)


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """A name other than `localhost` may resolve to anything, so it does not count."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_loopback_address(url: str) -> bool:
    """Whether the URL is a plain `http://` address of this machine."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and is_loopback(parts.hostname or "")
    except ValueError:
        return False
