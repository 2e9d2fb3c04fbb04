"""Read and check settings from the environment and `.env`. `rows()` lists all of them."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import available_timezones

import msgspec
from dotenv.parser import parse_stream
from msgspec import Meta, Struct

from service import postgres_url, redis_url
from service.errors import Stop
from service.settings import Alerts, Model, Settings, is_loopback_address

T = TypeVar("T", bound=Struct)

# RFC 6749, section 3.3
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")

_INTEGER: Final = re.compile(r"-?[0-9]{1,30}")
_MAILBOX: Final = re.compile(r"[^\s@,;<>]+@[A-Za-z0-9.-]+")


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
    _check_proxies(settings.server.trusted_proxies)
    _check_time_zone(settings.database.time_zone)
    _check_addresses(settings)
    _check_model(settings.model)
    _check_mail(settings.alerts)
    return settings


def with_env_file(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment with the settings of ENV_FILE (`.env`) that it lacks.

    Only settings of Tally are taken from the file. A setting may also have a file of its own: `NAME_FILE` is
    the path of the file that holds NAME. Raises `Stop` (exit status 2) for an unreadable file.
    """
    known = {row.env for row in rows()}
    given = _with_files(read_env_file(Path(environ.get("ENV_FILE", "").strip() or ".env")), known)
    return {name: value for name, value in given.items() if name in known} | _with_files(environ, known)


def variables() -> set[str]:
    """All names that a setting has in the environment: its own, and that of a file that holds it."""
    return {name for row in rows() for name in (row.env, f"{row.env}_FILE")}


def _with_files(environ: Mapping[str, str], known: set[str]) -> dict[str, str]:
    """These variables with the settings that files hold, as container engines mount secrets."""
    found = dict(environ)
    for name in known - environ.keys():
        variable = f"{name}_FILE"
        if variable in known or not (path := environ.get(variable, "").strip()):
            continue
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Stop(f"{variable}={path} cannot be read: {error}", exit_code=2) from None
    return found


def read_env_file(path: Path) -> dict[str, str]:
    """All variables of a `.env` file; none if it does not exist. `$` has no meaning in it."""
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(parse_stream(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"ENV_FILE={path} cannot be read: {error}", exit_code=2) from None
    for line in lines:
        if line.error:
            raise Stop(f"{path}, line {line.original.line}: expected NAME=value", exit_code=2)
    return {line.key: line.value for line in lines if line.key is not None and line.value is not None}


def rows(tree: type[Struct] = Settings) -> list[Row]:
    """All settings in the order of the tree, which is also the order of the reference."""
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
    is_list = getattr(get_args(kind)[0], "__origin__", None) is tuple
    value: Any = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    no_integer = _is_integer(kind) and not _INTEGER.fullmatch(text)  # msgspec would take `1e3` for 1000
    try:
        converted = msgspec.convert(value, kind, strict=no_integer, dec_hook=lambda to, raw: to(raw))
    except msgspec.ValidationError as error:
        raise Stop(f"{variable}={text!r}: {error} ({meta.description})", exit_code=2) from None
    if variable.endswith(("DATABASE_URL", "DATABASE_URLS")):
        for url in value if is_list else [text]:
            postgres_url.check(variable, url)
    if variable == "REDIS_URL":
        redis_url.parse(text)
    return converted


def _is_integer(kind: Any) -> bool:
    """Whether the type is an integer, or one that may be missing."""
    return kind is int or any(_is_integer(each) for each in get_args(kind) if not isinstance(each, Meta))


def _check_time_zone(name: str) -> None:
    """Require a zone that Python and Postgres read alike. For Postgres `UTC+3` is west of Greenwich."""
    if name == "UTC":
        return
    known = available_timezones() - {"localtime", "posixrules"}
    if name in known:
        return
    if not known:
        raise Stop(f"TIME_ZONE={name!r}: this machine has no time zone database; install tzdata", exit_code=2)
    by_lower_case = {each.lower(): each for each in known}
    matches = get_close_matches(name.lower(), by_lower_case, n=1)
    suggestion = f"; did you mean {by_lower_case[matches[0]]}?" if matches else ""
    raise Stop(
        f"TIME_ZONE={name[:80]!r}: expected an IANA name such as Europe/Berlin{suggestion}", exit_code=2
    )


def _check_proxies(networks: tuple[str, ...]) -> None:
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise Stop(
                f"TRUSTED_PROXIES: {network[:80]!r} is no network such as 10.0.0.0/8 ({error})", exit_code=2
            ) from None


def _check_auth(settings: Settings) -> None:
    auth, host = settings.auth, settings.server.host
    if auth.mode == "off" and not settings.server.on_loopback:
        raise Stop(
            f"AUTH=off lets everyone in and is allowed only on a loopback address, but HOST is {host}:"
            " set AUTH=on or HOST=127.0.0.1",
            exit_code=2,
        )
    if auth.oidc_issuer is not None and not auth.oidc_audience:
        raise Stop("OIDC_ISSUER needs OIDC_AUDIENCE: the audience that its tokens must name", exit_code=2)
    if auth.oidc_issuer is None and (auth.oidc_audience or auth.oidc_jwks_url):
        raise Stop("OIDC_AUDIENCE and OIDC_JWKS_URL need OIDC_ISSUER", exit_code=2)
    if not _SCOPE.fullmatch(auth.oidc_scope):
        raise Stop(
            f"OIDC_SCOPE={auth.oidc_scope!r}: expected names separated by single spaces, in ASCII",
            exit_code=2,
        )
    if auth.oidc_issuer is None and (auth.oidc_client_id or auth.oidc_client_secret):
        raise Stop("OIDC_CLIENT_ID and OIDC_CLIENT_SECRET need OIDC_ISSUER", exit_code=2)
    named = {"CORS_ORIGINS": auth.cors_origins, "EMBED_ORIGINS": settings.pages.embed_origins}
    for variable, origins in named.items():
        for origin in origins:
            if not _is_url(origin, allow_http=True) or urlsplit(origin).path or ";" in origin:
                raise Stop(f"{variable}: {origin!r} is no origin such as https://example.org", exit_code=2)


def _check_addresses(settings: Settings) -> None:
    auth = settings.auth
    addresses = {
        "OIDC_ISSUER": (auth.oidc_issuer, False),
        "OIDC_JWKS_URL": (auth.oidc_jwks_url, False),
        "PUBLIC_URL": (auth.public_url, True),
        "EXTERNAL_API_URL": (settings.outbound.external_api_url, True),
        "LLM_BASE_URL": (settings.model.base_url, True),
        "OTEL_EXPORTER_OTLP_ENDPOINT": (settings.traces.endpoint, True),
    }
    for variable, (address, allow_http) in addresses.items():
        if address is not None and not _is_url(address, allow_http=allow_http):
            secure = "http or https" if allow_http else "https (http on loopback only)"
            raise Stop(f"{variable}={address!r}: expected an absolute {secure} address", exit_code=2)


def _check_model(model: Model) -> None:
    if model.base_url is not None and model.name is None:
        raise Stop("LLM_BASE_URL needs LLM_MODEL: the name of a model that it serves", exit_code=2)
    if model.base_url is None and model.name is not None:
        raise Stop("LLM_MODEL needs LLM_BASE_URL: the endpoint that serves it", exit_code=2)
    if model.api_key is not None and not (model.api_key.isascii() and model.api_key.isprintable()):
        raise Stop("LLM_API_KEY: expected printable ASCII", exit_code=2)


def _check_mail(alerts: Alerts) -> None:
    if alerts.smtp_url is None:
        if alerts.smtp_from is not None:
            raise Stop("SMTP_FROM needs SMTP_URL: the server that sends the mails", exit_code=2)
        return
    try:
        parts = urlsplit(alerts.smtp_url)
        is_server = parts.scheme in {"smtp", "smtps"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_server = False
    if not is_server:  # it may hold a password, so it is not repeated
        raise Stop("SMTP_URL: expected smtp://host:port or smtps://user:password@host", exit_code=2)
    if alerts.smtp_from is None or not _MAILBOX.fullmatch(alerts.smtp_from):
        raise Stop("SMTP_URL needs SMTP_FROM: the sender's address, such as tally@example.org", exit_code=2)


def _is_url(text: str, *, allow_http: bool) -> bool:
    """Whether this is an absolute URL without user, query and fragment.

    It must be https. Loopback may use http, and with `allow_http` every host may.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (allow_http and parts.scheme == "http") or is_loopback_address(text)
    plain_text = text.isprintable() and not set(text) & {" ", "?", "#", "\\"} and "@" not in parts.netloc
    return bool(secure and host and plain_text)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, (str, int, Path)) else ",".join(value)
