"""The commands as a user runs them: in processes of their own, from the environment."""

import json
import signal
import socket
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from tests.adversity.conftest import Commanded
from tests.processes import free_port, open_folder, readiness, start, tally, until_gone, until_ready
from tests.waiting import eventually


@pytest.fixture
def data_dir() -> Generator[Path]:
    with open_folder() as folder:
        yield folder


def test_a_bad_setting_is_one_sentence_and_exit_2():
    done = tally("serve", PORT="eighty")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tally: PORT='eighty'")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["migrate", "seed"])
def test_an_unreachable_database_is_one_sentence_and_exit_1(command: Commanded, name: str):
    done = command(name, DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x", SAMPLE="on")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_the_sample_company_stays_out_of_another_database(command: Commanded):
    done = command("seed", DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x")
    assert (done.returncode, done.stdout) == (0, "")
    assert "SAMPLE=auto" in done.stderr


def test_connect_and_doctor_say_what_keeps_them_from_a_database(command: Commanded, tmp_path: Path):
    nobody = "postgresql://me:secret@127.0.0.1:1/x"
    env_file = tmp_path / ".env"
    for arguments, code in ((("connect",), 2), (("connect", "postgress://x"), 2), (("connect", nobody), 1)):
        done = command(*arguments, ENV_FILE=env_file)
        assert done.returncode == code
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr
        assert not env_file.exists()
    done = command("doctor", DATABASE_URL=nobody, READER_DATABASE_URL=nobody, DATA_DIR=tmp_path)
    assert done.returncode == 1
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["check"] for each in findings if each["status"] == "unreachable"] == ["owner", "reader"]


def test_the_embedded_database_is_not_uninstalled(command: Commanded):
    done = command("uninstall", "--yes")
    assert done.returncode == 2
    assert "DATA_DIR" in done.stderr


def test_serving_another_database_needs_the_readers_address(command: Commanded):
    done = command("serve", DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x")
    assert done.returncode == 2
    assert "READER_DATABASE_URL" in done.stderr


def test_help_names_every_command(command: Commanded):
    done = command("--help")
    assert done.returncode == 0
    for name in ("serve", "migrate", "seed", "psql"):
        assert name in done.stdout


def test_the_service_serves_seeds_and_stops_without_a_trace(data_dir: Path):
    port = free_port()
    assert tally("migrate", DATA_DIR=data_dir).returncode == 0
    assert tally("seed", DATA_DIR=data_dir).returncode == 0
    service = start(DATA_DIR=data_dir, PORT=port)
    try:
        until_ready(port)
        base = f"http://127.0.0.1:{port}/api/v1"
        metrics = httpx.get(f"{base}/metrics?limit=500").json()["items"]
        assert len(metrics) == 17  # and the one that alerts of the sample watch
        tiles = httpx.get(f"{base}/dashboards/default/data").json()["results"]
        assert {tile["status"] for tile in tiles} == {200}

        second = tally("serve", DATA_DIR=data_dir, PORT=free_port())
        assert second.returncode == 1
        assert "another Tally" in second.stderr
        taken = tally("psql", DATA_DIR=data_dir)  # shares the running server
        assert taken.returncode == 0
    finally:
        service.send_signal(signal.SIGINT)
        output, _ = service.communicate(timeout=20)
    assert service.returncode == 0
    assert output.count(f"serves on http://127.0.0.1:{port}") == 1
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_a_killed_service_leaves_the_port_and_the_next_one_takes_over(data_dir: Path):
    port = free_port()
    tally("migrate", DATA_DIR=data_dir)
    killed = start(DATA_DIR=data_dir, PORT=port)
    until_ready(port)
    killed.kill()
    killed.communicate()
    until_gone(port)
    following = start(DATA_DIR=data_dir, PORT=port)
    try:
        until_ready(port)
    finally:
        following.send_signal(signal.SIGTERM)
        following.communicate(timeout=20)
    assert following.returncode == 0
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_a_taken_port_is_one_sentence(data_dir: Path):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = tally("serve", DATA_DIR=data_dir, PORT=port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_readiness_waits_for_migrations(data_dir: Path):
    port = free_port()
    service = start(DATA_DIR=data_dir, PORT=port)
    try:
        answer = eventually(lambda: readiness(port))
        assert answer.status_code == 503
        assert answer.json()["checks"]["migrations"].startswith("missing: 0001.schemas")
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 503
        assert tally("migrate", DATA_DIR=data_dir).returncode == 0
        until_ready(port)
    finally:
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=20)
    assert service.returncode == 0


def test_a_malformed_seed_file_is_refused_and_the_others_load(data_dir: Path, tmp_path: Path):
    (tmp_path / "queries.csv").write_text("id,query\nq1,SELECT 1\n")
    (tmp_path / "metrics.json").write_text('{"items": [')
    assert tally("migrate", DATA_DIR=data_dir).returncode == 0
    done = tally("seed", DATA_DIR=data_dir, SEEDS_DIR=tmp_path)
    assert done.returncode == 1
    assert '"dataset":"queries"' in done.stdout
    assert "metrics.json" in done.stderr
    assert "Traceback" not in done.stderr
