"""The service as its user starts it: with each setting of the README, and each command's options twice."""

import json
import signal
import subprocess
import threading
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from service.cli import main
from service.environment import rows
from service.settings import Database as DatabaseSettings
from tests.adversity.conftest import Commanded
from tests.http.test_ask import FakeModel
from tests.processes import free_port, open_folder, readiness, start, tally, until_ready
from tests.waiting import eventually

SECRET_HASH = sha256(b"secret").hexdigest()

# Valid together, unlike the defaults; a port, folders and addresses are filled in by the tests.
EMBEDDED = {
    "DATA_SCHEMAS": "data, public",
    "TIME_ZONE": "Europe/Berlin",
    "STATEMENT_TIMEOUT_MS": "4000",
    "ROW_LIMIT": "5000",
    "RESULT_BYTES_LIMIT": "4000000",
    "READER_POOL_SIZE": "3",
    "READER_QUEUE_LIMIT": "9",
    "RESULT_CACHE_BYTES": "1000000",
    "FRESH_FOR_S": "30",
    "STALE_FOR_S": "5",
    "STALE_IF_ERROR_S": "600",
    "HOST": "localhost",
    "WORKERS": "2",
    "GRACE_S": "9",
    "DRAIN_S": "1",
    "HEADER_TIMEOUT_S": "8",
    "BODY_TIMEOUT_S": "8",
    "CONNECTIONS_PER_ADDRESS": "100",
    "TRUSTED_PROXIES": "10.0.0.0/8, ::1",
    "AUTH": "on",
    "AUTH_CLIENTS": f"grafana:{SECRET_HASH}:metrics:read metrics:write",
    "PUBLIC_URL": "https://tally.example",
    "OIDC_ISSUER": "http://127.0.0.1:9/pool",
    "OIDC_AUDIENCE": "one, two",
    "OIDC_JWKS_URL": "http://127.0.0.1:9/keys",
    "OIDC_CLIENT_ID": "pages",
    "OIDC_CLIENT_SECRET": "a secret",
    "OIDC_SCOPE": "openid api/backend_access",
    "CORS_ORIGINS": "https://a.example, http://b.example:8080",
    "RATE_LIMIT": "1000",
    "METRIC_RATE_LIMIT": "100",
    "LOG_LEVEL": "debug",
    "LOG_FORMAT": "json",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
    "IMPORT_BYTES_LIMIT": "1000000",
    "EXTERNAL_TIMEOUT_S": "2.5",
    "OUTBOUND_COOLDOWN_S": "3",
    "EXTERNAL_API_URL": "http://127.0.0.1:9/api",
    "LLM_API_KEY": "sk-key",
    "LLM_MODEL": "fake-1",
    "LLM_TIMEOUT_S": "15",
    "ASK_COST_LIMIT": "1e6",
    "LIVE_HEARTBEAT_S": "7",
    "LIVE_STREAMS": "50",
    "LIVE_STREAMS_PER_CALLER": "5",
    "ALERT_INTERVAL_S": "30",
    "HISTORY_RESULTS": "5",
    "HISTORY_FOR_S": "3600",
    "WEBHOOK_PRIVATE": "on",
    "SMTP_URL": "smtp://127.0.0.1:2525",
    "SMTP_FROM": "tally@example.org",
    "HOT_FOR_S": "3",
    "REDIS_URL": "redis://:word@127.0.0.1:1/0",
    "SESSION_TTL_S": "600",
    "EMBED_ORIGINS": "https://wall.example",
    "LINK_RATE_LIMIT": "500",
    "SAMPLE": "on",
    "ENV_FILE": "/dev/null",
}
FILLED_IN = {"PORT", "DATA_DIR", "SEEDS_DIR", "LLM_BASE_URL", "LINK_SECRET_FILE"}
OTHER_DATABASE = {
    "DATABASE_URL",
    "READER_DATABASE_URL",
    "READER_POOLER",
    "REPLICA_DATABASE_URLS",
    "LISTEN_DATABASE_URL",
}

INVALID = {
    "LIVE_HEARTBEAT_S": ["0"],
    "LIVE_STREAMS": ["many"],
    "LIVE_STREAMS_PER_CALLER": ["-1"],
    "ALERT_INTERVAL_S": ["0"],
    "HISTORY_RESULTS": ["-1"],
    "HISTORY_FOR_S": ["1"],
    "WEBHOOK_PRIVATE": ["maybe"],
    "SMTP_URL": ["http://127.0.0.1", "smtp://"],
    "SMTP_FROM": ["nobody"],
    "HOT_FOR_S": ["-1"],
    "DATABASE_URL": ["mysql://h/x", "postgresql://h/x?nonsense=1", "postgresql://h:port/x"],
    "READER_DATABASE_URL": ["localhost", "postgresql://h/x?sslmode=bogus"],
    "REPLICA_DATABASE_URLS": ["standby", "postgresql://h/x,mysql://h/x"],
    "LISTEN_DATABASE_URL": ["mysql://h/x"],
    "DATA_DIR": [__file__, "/proc/nowhere"],
    "DATA_SCHEMAS": [","],
    "TIME_ZONE": ["Europe/Berlim", "UTC+3"],
    "STATEMENT_TIMEOUT_MS": ["0", "soon"],
    "ROW_LIMIT": ["0", "1.5"],
    "RESULT_BYTES_LIMIT": ["10"],
    "READER_POOL_SIZE": ["0", "40"],
    "READER_QUEUE_LIMIT": ["-1"],
    "READER_POOLER": ["session"],
    "RESULT_CACHE_BYTES": ["-1", "1MB"],
    "FRESH_FOR_S": ["-1"],
    "STALE_FOR_S": ["-1"],
    "STALE_IF_ERROR_S": ["always"],
    "HOST": ["no host", "192.0.2.7", "a..b", "256.1.1.1"],
    "PORT": ["0", "65536", "eighty"],
    "WORKERS": ["0", "many"],
    "GRACE_S": ["0"],
    "DRAIN_S": ["-1", "2.5"],
    "HEADER_TIMEOUT_S": ["0"],
    "BODY_TIMEOUT_S": ["0"],
    "CONNECTIONS_PER_ADDRESS": ["0"],
    "TRUSTED_PROXIES": ["nginx", "10.0.0.1/8"],
    "AUTH": ["maybe"],
    "AUTH_CLIENTS": ["nonsense", f"a:{SECRET_HASH}:no:scope"],
    "PUBLIC_URL": ["tally.example", "https://", "https://a b"],
    "OIDC_ISSUER": ["https://issuer.example", "http://issuer.example"],
    "OIDC_AUDIENCE": ["tally"],
    "OIDC_JWKS_URL": ["https://issuer.example/keys"],
    "OIDC_CLIENT_ID": ["pages"],
    "OIDC_CLIENT_SECRET": ["secret"],
    "OIDC_SCOPE": ['open"id', "öffnen"],
    "CORS_ORIGINS": ["*", "https://a.example/path"],
    "RATE_LIMIT": ["-1"],
    "METRIC_RATE_LIMIT": ["none"],
    "LOG_LEVEL": ["loud"],
    "LOG_FORMAT": ["xml"],
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["collector:4318", "http://", "grpc://a.example:4317"],
    "IMPORT_BYTES_LIMIT": ["10"],
    "EXTERNAL_TIMEOUT_S": ["0", "nan"],
    "OUTBOUND_COOLDOWN_S": ["inf"],
    "EXTERNAL_API_URL": ["http://", "ftp://a.example", "https://a.example/?key=1", "http://:80"],
    "LLM_BASE_URL": ["http://", "https://", "model.example/v1", "http://:1/v1", "http://model.example/v1"],
    "LLM_API_KEY": ["schlüssel"],
    "LLM_MODEL": ["fake-1"],
    "LLM_TIMEOUT_S": ["0"],
    "ASK_COST_LIMIT": ["0"],
    "REDIS_URL": ["localhost:6379", "redis://:word@store/main", "redis+sentinel://store"],
    "SESSION_TTL_S": ["1", "long"],
    "EMBED_ORIGINS": ["*", "https://a.example/path"],
    "LINK_SECRET_FILE": ["/proc/nowhere"],
    "LINK_RATE_LIMIT": ["-1"],
    "SEEDS_DIR": ["/proc/nowhere"],
    "SAMPLE": ["maybe"],
    "ENV_FILE": ["/proc"],
}


def test_every_setting_of_the_readme_is_tried():
    settings = {row.env for row in rows()}
    assert settings == EMBEDDED.keys() | FILLED_IN | OTHER_DATABASE
    assert settings == INVALID.keys()


@pytest.mark.parametrize(
    ("variable", "value"), [(name, value) for name, values in INVALID.items() for value in values]
)
def test_an_invalid_setting_is_one_sentence_that_names_it(
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    for row in rows():
        monkeypatch.delenv(row.env, raising=False)
    if variable != "DATA_DIR":  # which is the embedded database's
        monkeypatch.setenv("DATA_DIR", str(tmp_path))
        monkeypatch.setenv("DATABASE_URL", "postgresql://me:me@127.0.0.1:1/x")
        monkeypatch.setenv("READER_DATABASE_URL", "postgresql://you:you@127.0.0.1:1/x")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        main(["seed" if variable == "SEEDS_DIR" else "serve"])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert said.startswith("tally: ")
    assert variable in said
    assert said.count("\n") == 1


@pytest.fixture(autouse=True)
def logs_as_before() -> Generator[None]:
    """A command logs to the stream of its test, which is closed afterwards."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def model() -> Generator[FakeModel]:
    fake = FakeModel()
    fake.says = [json.dumps({"sql": "SELECT count(*) AS n FROM metrics", "title": "How many"})]
    thread = threading.Thread(target=fake.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.server.shutdown()
    thread.join()
    fake.server.server_close()


def _stopped(service: subprocess.Popen[str]) -> str:
    service.send_signal(signal.SIGTERM)
    output, _ = service.communicate(timeout=60)
    assert service.returncode == 0, output
    return output


def test_the_service_becomes_ready_with_every_setting_of_the_embedded_database(
    model: FakeModel, tmp_path: Path
):
    (tmp_path / "queries.csv").write_text("id,query\nq1,SELECT 1\n")
    port = free_port()
    with open_folder() as folder:
        own = {
            "PORT": port,
            "DATA_DIR": folder,
            "SEEDS_DIR": tmp_path,
            "LLM_BASE_URL": model.url,
            "LINK_SECRET_FILE": folder / "own.key",
        }
        variables: dict[str, Any] = EMBEDDED | own
        assert own.keys() == FILLED_IN
        assert tally("migrate", **variables).returncode == 0
        seeded = tally("seed", **variables)
        assert seeded.returncode == 0
        assert '"dataset":"queries"' in seeded.stdout
        service = start(**variables)
        try:
            until_ready(port)
            token = tally("token", "--scope", "metrics:read", "--scope", "metrics:write", **variables)
            made = httpx.post(
                f"http://127.0.0.1:{port}/metrics",
                json={"prompt": "how many records are there"},
                headers={"Authorization": f"Bearer {token.stdout.strip()}"},
                timeout=30,
            )
            assert made.status_code == 201, made.text
            assert made.json()["generator"] == "model:fake-1"
            assert model.asked
        finally:
            _stopped(service)


async def test_the_service_becomes_ready_on_another_database_behind_a_pooler(
    addresses: DatabaseSettings, tmp_path: Path
):
    port = free_port()
    service = start(
        DATABASE_URL=f"{addresses.url}?channel_binding=prefer&connect_timeout=9",
        READER_DATABASE_URL=f"{addresses.reader_url}?keepalives=1",
        READER_POOLER="transaction",
        DATA_DIR=tmp_path,
        PORT=port,
        LOG_FORMAT="console",
        TERM="dumb",
    )
    try:
        until_ready(port)
    finally:
        output = _stopped(service)
    assert "DATABASE_URL: channel_binding left out" in output
    assert "READER_DATABASE_URL: keepalives left out" in output


def test_a_start_that_cannot_be_is_told(command: Commanded, addresses: DatabaseSettings, tmp_path: Path):
    owner, reader = addresses.url or "", addresses.reader_url or ""
    base = owner.rpartition("/")[0]
    common: dict[str, Any] = {"DATA_DIR": tmp_path, "PORT": free_port()}
    starts = {
        "password": (owner, reader.replace(":reader@", ":wrong@"), 1),
        "there_is_none": (f"{base}/there_is_none", reader, 1),
        "nobody_at_all": (owner, reader.replace("//tally_reader", "//nobody_at_all"), 1),
        "role of its own": (owner, owner.replace("127.0.0.1", "localhost"), 2),
    }
    for word, (owner_url, reader_url, status) in starts.items():
        done = command("serve", DATABASE_URL=owner_url, READER_DATABASE_URL=reader_url, **common)
        assert (done.returncode, done.stdout) == (status, "")
        assert word in done.stderr
        assert done.stderr.startswith("tally: ")
        assert done.stderr.count("\n") == 1


def test_without_its_database_the_service_says_why_it_is_not_ready(tmp_path: Path):
    port = free_port()
    gone = "postgresql://me:secret@127.0.0.1:1/x"
    service = start(
        DATABASE_URL=gone, READER_DATABASE_URL=gone.replace("me", "you"), DATA_DIR=tmp_path, PORT=port
    )
    try:
        answer = eventually(lambda: readiness(port))
        assert answer.status_code == 503
    finally:
        output = _stopped(service)
    assert "cannot log in to the database at 127.0.0.1:1" in output
    assert "secret" not in output


# options


@pytest.mark.parametrize(
    "scopes",
    [
        ["--scope", "metrics:read", "--scope", "items:read"],
        ["--scope", "metrics:read", "items:read"],
        ["--scope", "metrics:read items:read", "--scope", "metrics:read"],
    ],
    ids=" ".join,
)
def test_all_scopes_that_are_given_count(
    scopes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import jwt

    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["token", *scopes])
    assert ended.value.code == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), options={"verify_signature": False})
    assert set(claims["scope"].split()) == {"metrics:read", "items:read"}


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        (["token"], "--ttl", ("60", "90")),
        (["token"], "--subject", ("a", "b")),
        (["key", "rotate"], "--overlap", ("1", "2")),
        (["query", "trust", "q1"], "--file", ("a.sql", "b.sql")),
    ],
    ids=str,
)
def test_an_option_of_one_value_is_refused_twice(  # noqa: PLR0917 (fixtures)
    command: list[str],
    option: str,
    values: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main([*command, option, values[0], option, values[1]])
    assert ended.value.code == 2
    assert f"{option} is given twice" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
