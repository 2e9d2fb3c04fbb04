"""What `doctor` can check without a database: settings, files, disk."""

import asyncio
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from service.auth.clients import parse_clients
from service.environment import read_env_file, variables
from service.errors import Stop
from service.observe.trace import check_installed
from service.postgres_url import hosts, parameters
from service.results.store import StoreAway, open_store
from service.settings import Settings, is_loopback
from service.setup.findings import Finding

LOW_DISK_BYTES: Final = 1 << 30
_CLOSED_SCHEMAS: Final = {"app", "catalog", "imports", "quarantine", "pg_catalog", "information_schema"}
_ENCRYPTED: Final = {"require", "verify-ca", "verify-full"}
_OF_COMPOSE: Final = {"OWNER_PASSWORD", "READER_PASSWORD"}
_LIKENESS: Final = 0.85


def check_machine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """All findings about settings, files and disk; one `ok` for each kind without any."""
    kinds = {
        "settings": [*_unknown_settings(settings, environ), *_contradictions(settings), *_insecure(settings)],
        "files": list(_open_files(settings)),
        "disk": list(_disk(settings)),
    }
    if settings.nodes.redis_url is not None:
        kinds["store"] = list(_store(settings.nodes.redis_url))
    return [finding for kind, found in kinds.items() for finding in found or [Finding(kind, "ok", "fine")]]


def _store(url: str) -> Iterator[Finding]:
    """Write and read a lease, as a node does for each miss."""

    async def tried() -> str:
        store = open_store(url)
        try:
            await store.connect()
            if store.state == "ok":
                with suppress(StoreAway):
                    await store.begin(b"tally:{doctor}", b"doctor")
                    await store.release(b"tally:{doctor}")
            return store.state
        finally:
            await store.aclose()

    if (state := asyncio.run(tried())) != "ok":
        mend = "start the store, mend REDIS_URL, or allow GETRANGE, GET, SET and DEL on tally:*"
        yield Finding("store", "act", state, mend)


def _unknown_settings(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    known = variables()
    for name in read_env_file(settings.env_file).keys() - known - _OF_COMPOSE:
        yield _unknown(name, str(settings.env_file), known)
    for name in environ.keys() - known:
        if "_" in name and get_close_matches(name, known, n=1, cutoff=_LIKENESS):
            yield _unknown(name, "the environment", known)


def _unknown(name: str, place: str, known: Iterable[str]) -> Finding:
    near = get_close_matches(name, known, n=1, cutoff=_LIKENESS)
    mend = f"name it {near[0]}" if near else ""
    return Finding("settings", "act" if near else "note", f"{name} in {place} is no setting of Tally", mend)


def _contradictions(settings: Settings) -> Iterator[Finding]:
    config = settings.database
    if config.url is not None and config.reader_url is None:
        yield Finding(
            "settings",
            "act",
            "DATABASE_URL is set and READER_DATABASE_URL is not: nothing may run stored SQL",
            "tally connect",
        )
    if settings.sample == "on" and config.url is not None:
        yield Finding("settings", "note", "SAMPLE=on: `seed` brings the sample company into DATABASE_URL")
    try:
        check_installed(settings.traces)
    except Stop as stop:
        yield Finding("settings", "act", str(stop), "pip install 'tally-metrics[otel]'")
    try:
        parse_clients(settings.auth.clients)
    except Stop as stop:
        yield Finding("settings", "act", str(stop), "tally client add ID --scope metrics:read")


def _insecure(settings: Settings) -> Iterator[Finding]:
    config = settings.database
    if closed := _CLOSED_SCHEMAS & set(config.data_schemas):
        yield Finding(
            "settings",
            "act",
            f"DATA_SCHEMAS opens Tally's own records to stored SQL: {', '.join(sorted(closed))}",
            "take these out of DATA_SCHEMAS",
        )
    if settings.auth.mode == "off":
        yield Finding("settings", "note", "AUTH=off: every program of this machine may ask for every metric")
    for variable, url in (("DATABASE_URL", config.url), ("READER_DATABASE_URL", config.reader_url)):
        given = parameters(url or "")
        names = [host for host, _ in hosts(given) if host and not host.startswith("/")]
        away = [host for host in names if not is_loopback(host)]
        if away and given.get("sslmode") not in _ENCRYPTED:
            yield Finding(
                "settings",
                "note",
                f"{variable}: rows and passwords may travel to {away[0]} without encryption",
                f"add ?sslmode=require to {variable}, or verify-full with sslrootcert",
            )


def _open_files(settings: Settings) -> Iterator[Finding]:
    data_dir = settings.database.data_dir
    secret = [settings.env_file, data_dir / "signing-keys.json", data_dir / "postgres.json"]
    for path in (path for path in secret if path.is_file()):
        if path.stat().st_mode & 0o077:
            yield Finding("files", "act", f"{path} can be read by others", f"chmod 600 {path}")
        if path.stat().st_uid not in {os.geteuid(), 0}:
            yield Finding("files", "note", f"{path} belongs to user {path.stat().st_uid}, who can change it")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = next(path for path in _parents(settings.database.data_dir.absolute()) if path.exists())
    if (free := shutil.disk_usage(folder).free) < LOW_DISK_BYTES:
        yield Finding(
            "disk", "act", f"DATA_DIR={folder} has {free >> 20} MB left", "make room or set DATA_DIR"
        )


def _parents(path: Path) -> Iterator[Path]:
    yield path
    yield from path.parents
