"""Requests that a stranger's tool makes up from our OpenAPI document, right ones and wrong ones.

Every answer has a documented status, content type and body; nothing is a 500; what the document forbids is
refused; nothing is let in without a token. The tool prints each failure with the curl command that shows it.
"""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import Struct

from service.database.embedded import running
from tests.processes import free_port, seeded, start, tally, until_ready

TOOL = Path(sys.executable).with_name("schemathesis")
CONFIG = Path(__file__).with_name("schemathesis.toml")
SCOPES = ("api/backend_access", "admin")
POST = {"userId": 1, "id": 1, "title": "a", "body": "b"}
STREAMS = "/(events|live)"  # they do not end: tests/http/test_live_events.py


class Opened(Struct, frozen=True):
    """A service over the seeds that asks for tokens."""

    address: str
    token: str
    log: Path


class _Posts(BaseHTTPRequestHandler):
    """The external API."""

    def do_GET(self) -> None:
        body = msgspec.json.encode([POST] if re.search(r"/posts(\?|$)", self.path) else POST)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _external_api() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Posts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def opened() -> Generator[Opened]:
    port = free_port()
    with (
        seeded() as folder,
        running(folder),
        _external_api() as posts,
        (folder / "log").open("w") as log,
    ):
        token = tally("token", "--scope", *SCOPES, DATA_DIR=folder).stdout.strip()
        service = start(
            log, DATA_DIR=folder, PORT=port, AUTH="on", LOG_LEVEL="warning", EXTERNAL_API_URL=posts
        )
        try:
            until_ready(port)
            yield Opened(f"http://127.0.0.1:{port}", token, folder / "log")
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(timeout=30)


def _fuzz(opened: Opened, folder: Path, config: str, *options: str) -> None:
    """Run the tool with all its checks; fail with its report."""
    (folder / "schemathesis.toml").write_text(config)
    done = subprocess.run(
        [TOOL, "--config-file", folder / "schemathesis.toml", "run", f"{opened.address}/openapi.json",
         "--header", f"Authorization: Bearer {opened.token}", "--checks", "all", "--seed", "1", "--no-color",
         "--exclude-path-regex", STREAMS, "--request-timeout", "30", "--warnings", "off", *options],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) generated, \1 passed", done.stdout)
    assert found, done.stdout
    assert int(found[1]) > 300
    assert "unexpected error" not in opened.log.read_text()


def test_whatever_the_document_allows_or_forbids(opened: Opened, tmp_path: Path):
    config = CONFIG.read_text()
    _fuzz(
        opened,
        tmp_path,
        config,
        "--mode",
        "all",
        "--max-examples",
        "2",
        "--phases",
        "examples,coverage,fuzzing",
    )


def test_what_is_there_answers_as_documented(opened: Opened, tmp_path: Path):
    """With ids that exist, so that most answers are bodies and not refusals."""
    headers = {"Authorization": f"Bearer {opened.token}"}
    with httpx.Client(base_url=f"{opened.address}/api/v1", headers=headers) as client:
        item = client.post("/items", json={"title": "a"}).json()["id"]

        def first(path: str) -> Any:
            return client.get(path).json()["items"][0]["id"]

        known = {
            "metric_id": first("/metrics"),
            "row_id": first("/quarantine"),
            "item_id": item,
            "dashboard_id": "default",
            "name": "customers",
            "customer_id": 1,
        }
    lines = [f'"path.{name}" = "{value}"' for name, value in known.items()]
    config = "\n".join(["[parameters]", *lines, "", CONFIG.read_text()])
    options = (
        "--mode",
        "positive",
        "--max-examples",
        "10",
        "--phases",
        "fuzzing",
        "--exclude-method",
        "DELETE",
    )
    _fuzz(opened, tmp_path, config, *options)


@pytest.mark.parametrize("path", ["/api/v1/metrics", "/api/v1/dashboards/{dashboard_id}", "/api/v1/stats"])
def test_options_names_all_methods_of_a_path(opened: Opened, path: str):
    headers = {"Authorization": f"Bearer {opened.token}"}
    document = httpx.get(f"{opened.address}/openapi.json").json()
    answer = httpx.options(f"{opened.address}{path.format(dashboard_id='default')}", headers=headers)
    assert answer.status_code == 204
    methods = document["paths"][path].keys() & {"get", "post", "put", "patch", "delete"}
    assert set(answer.headers["allow"].split(", ")) == {"OPTIONS", *map(str.upper, methods)}
