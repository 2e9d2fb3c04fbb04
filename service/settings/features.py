"""Settings of single features."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from service.settings.fields import env

Streams = Annotated[int, Meta(ge=1, le=1_000_000)]


class Pages(Struct, frozen=True, kw_only=True):
    session_ttl_s: Annotated[
        int,
        env("SESSION_TTL_S", "seconds that a sign-in on the pages lasts", ge=60, le=2_592_000),
    ] = 43_200
    embed_origins: Annotated[
        tuple[str, ...],
        env(
            "EMBED_ORIGINS",
            "web origins, comma-separated, whose pages may frame every signed link",
            shown="none",
        ),
    ] = ()
    link_secret_file: Annotated[
        Path | None, env("LINK_SECRET_FILE", "key that signs links", shown="DATA_DIR/links.key")
    ] = None
    link_rate_limit: Annotated[
        int,
        env(
            "LINK_RATE_LIMIT",
            "requests a minute per signed link and worker, 0 for no limit",
            ge=0,
            le=100_000_000,
        ),
    ] = 6000


class Logs(Struct, frozen=True, kw_only=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], env("LOG_LEVEL", "minimum severity of log lines")
    ] = "info"
    format: Annotated[
        Literal["console", "json"] | None,
        env("LOG_FORMAT", "`console` or `json`", shown="`console` on a terminal, else `json`"),
    ] = None


class Traces(Struct, frozen=True, kw_only=True):
    endpoint: Annotated[
        str | None,
        env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OpenTelemetry collector that gets traces by OTLP over HTTP, such as http://127.0.0.1:4318; "
            "needs the extra `otel`",
        ),
    ] = None


class Outbound(Struct, frozen=True, kw_only=True):
    timeout_s: Annotated[
        float,
        env(
            "EXTERNAL_TIMEOUT_S",
            "seconds that a call to an external API may take, all tries together",
            gt=0,
            le=300,
        ),
    ] = 10
    cooldown_s: Annotated[
        float,
        env("OUTBOUND_COOLDOWN_S", "seconds without calls to a host after repeated failures", gt=0, le=3600),
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
    api_key: Annotated[str | None, env("LLM_API_KEY", "API key of LLM_BASE_URL")] = None
    name: Annotated[str | None, env("LLM_MODEL", "model name; required with LLM_BASE_URL")] = None
    timeout_s: Annotated[
        float, env("LLM_TIMEOUT_S", "seconds that a prompt may take, all tries together", gt=0, le=600)
    ] = 20
    cost_limit: Annotated[
        float, env("ASK_COST_LIMIT", "maximum estimated cost of SQL for a prompt", gt=0)
    ] = 10_000_000


class Live(Struct, frozen=True, kw_only=True):
    heartbeat_s: Annotated[
        float,
        env(
            "LIVE_HEARTBEAT_S",
            "seconds between comments on a quiet event stream; keep it below what proxies close",
            gt=0,
            le=3600,
        ),
    ] = 10
    hot_for_s: Annotated[
        float,
        env(
            "HOT_FOR_S",
            "seconds after its last request in which a result is run again as soon as its tables change, "
            "before anybody asks; 0 for never",
            ge=0,
            le=86_400,
        ),
    ] = 60
    streams: Annotated[
        int,
        env("LIVE_STREAMS", "event streams and live sockets per worker; further ones get 503", ge=0),
    ] = 10_000
    streams_per_caller: Annotated[
        Streams | None,
        env(
            "LIVE_STREAMS_PER_CALLER",
            "event streams and live sockets per caller and worker; further ones get 429",
            shown="1000; those of the worker on a loopback HOST",
        ),
    ] = None


class History(Struct, frozen=True, kw_only=True):
    results: Annotated[
        int,
        env(
            "HISTORY_RESULTS",
            "distinct results that are kept of a metric with one set of parameters, to tell why a number "
            "changed; 0 for none",
            ge=0,
            le=1000,
        ),
    ] = 20
    older_s: Annotated[
        int,
        env(
            "HISTORY_FOR_S",
            "seconds after which a result that another one has replaced is dropped from the history",
            ge=60,
            le=315_360_000,
        ),
    ] = 7_776_000


class Alerts(Struct, frozen=True, kw_only=True):
    interval_s: Annotated[
        float,
        env(
            "ALERT_INTERVAL_S",
            "seconds after which alert rules ask again for a result that depends on the clock or fails; a "
            "change of its tables is evaluated at once, or this much later where runs are slow",
            gt=0,
            le=86_400,
        ),
    ] = 60
    webhook_private: Annotated[
        Literal["on", "off"],
        env(
            "WEBHOOK_PRIVATE",
            "whether webhooks of alerts may go to private addresses",
            shown="off; on with a loopback HOST",
        ),
    ] = "off"
    smtp_url: Annotated[
        str | None,
        env("SMTP_URL", "mail server for alerts, `smtp://user:password@host:port` or `smtps://...`"),
    ] = None
    smtp_from: Annotated[str | None, env("SMTP_FROM", "sender of alert mails; required with SMTP_URL")] = None
