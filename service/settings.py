"""What an operator can set: one frozen tree, read once from the environment.

Each field carries its variable, unit, default and help; the README's table is checked against `rows()`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

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
    statement_timeout_ms: Annotated[
        int, env("STATEMENT_TIMEOUT_MS", "milliseconds a stored statement may run", ge=1, le=3_600_000)
    ] = 5000
    row_limit: Annotated[int, env("ROW_LIMIT", "rows a result may hold", ge=1, le=1_000_000)] = 10_000
    result_bytes_limit: Annotated[
        int, env("RESULT_BYTES_LIMIT", "bytes a result may take", ge=1024, le=1 << 30)
    ] = 8_388_608
    reader_pool_size: Annotated[
        int, env("READER_POOL_SIZE", "connections per worker for stored SQL", ge=1, le=40)
    ] = 8
    reader_queue_limit: Annotated[
        int,
        env(
            "READER_QUEUE_LIMIT", "callers that may wait for one of them; the next gets 503", ge=0, le=100_000
        ),
    ] = 128


class Imports(Struct, frozen=True, kw_only=True):
    bytes_limit: Annotated[
        int,
        env("IMPORT_BYTES_LIMIT", "bytes of a file to import, of what an XLSX unzips to as well", ge=1024),
    ] = 104_857_600


class Server(Struct, frozen=True, kw_only=True):
    host: Annotated[str, env("HOST", "address to listen on")] = "127.0.0.1"
    port: Annotated[int, env("PORT", "port to listen on", ge=1, le=65535)] = 8000
    workers: Annotated[int, env("WORKERS", "server processes", ge=1, le=64)] = 1


class Logs(Struct, frozen=True, kw_only=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], env("LOG_LEVEL", "least severe line that is written")
    ] = "info"
    format: Annotated[
        Literal["console", "json"] | None,
        env("LOG_FORMAT", "`console` or `json`", shown="`console` on a terminal, else `json`"),
    ] = None


class Settings(Struct, frozen=True, kw_only=True):
    database: Database = Database()
    server: Server = Server()
    logs: Logs = Logs()
    imports: Imports = Imports()
    seeds_dir: Annotated[Path, env("SEEDS_DIR", "folder that `seed` imports")] = Path("seeds")


class Row(Struct, frozen=True):
    """A line of the settings table."""

    env: str
    default: str
    help: str


def load(environ: Mapping[str, str]) -> Settings:
    """Read all settings; an empty variable counts as not set.

    Raises `Stop` (exit status 2) with one sentence that names the variable.
    """
    return _load(Settings, environ)


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
        _check_database_url(variable, text)
    return converted


def _check_database_url(variable: str, text: str) -> None:
    try:
        parts = urlsplit(text)
        well_formed = parts.scheme in {"postgres", "postgresql"} and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed:  # the text is not repeated: it holds a password
        raise Stop(f"{variable}: expected postgresql://user:password@host:port/database", exit_code=2)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, (str, int, Path)) else ",".join(value)
