"""`tally export` and `tally restore` as a user runs them."""

import json
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.database.embedded import running
from tests.adversity.conftest import Commanded
from tests.processes import free_port, open_folder, seeded, start, tally, until_ready

FILE = "all.jsonl"


@pytest.fixture(scope="module")
def company():
    """The folder of an embedded database with the seeds."""
    with seeded() as folder, running(folder):
        yield folder


@pytest.fixture(scope="module")
def empty():
    """The folder of an embedded database that is migrated and stays empty."""
    with open_folder() as folder, running(folder):
        assert tally("migrate", DATA_DIR=folder).returncode == 0
        yield folder


def tiles(data_dir: Path):
    """What the service answers about its dashboards and metrics."""
    port = free_port()
    service = start(DATA_DIR=data_dir, PORT=port)
    try:
        until_ready(port)
        base = f"http://127.0.0.1:{port}/api/v1"
        paths = (
            "/dashboards",
            "/dashboards/default",
            "/metrics?limit=500",
            "/quarantine?limit=500",
            "/imports",
        )
        return [httpx.get(f"{base}{path}").json() for path in paths]
    finally:
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=20)


def test_a_sample_company_moves_to_another_database(command: Commanded, company: Path, tmp_path: Path):
    file = tmp_path / FILE
    done = command("export", str(file), DATA_DIR=company)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {each["table"]: each["rows"] for each in map(json.loads, done.stdout.splitlines())}
    assert rows["catalog.metric"] == 17
    assert rows["quarantine.row"] > 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with open_folder() as other, running(other):
        assert tally("migrate", DATA_DIR=other).returncode == 0
        done = command("restore", str(file), DATA_DIR=other)
        assert (done.returncode, done.stderr) == (0, "")
        restored = {each["table"]: each["restored"] for each in map(json.loads, done.stdout.splitlines())}
        assert restored == rows
        again = command("restore", str(file), DATA_DIR=other)
        assert again.returncode == 2
        assert "the database is not empty" in again.stderr
        assert again.stderr.count("\n") == 1
        assert command("restore", str(file), "--replace", DATA_DIR=other).returncode == 0
        assert tiles(other) == tiles(company)


def test_the_file_passes_through_a_pipe(company: Path, empty: Path):
    exported = tally("export", DATA_DIR=company)
    assert exported.stderr == ""
    first, *_, last = exported.stdout.splitlines()
    assert json.loads(first)["tally_export"] == 1
    assert json.loads(last)["rows"]["catalog.metric"] == 17
    done = tally("restore", "-", stdin=exported.stdout[:-30], DATA_DIR=empty)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tally: standard input is cut off")
    done = tally("restore", "-", stdin=exported.stdout, DATA_DIR=empty)
    assert done.returncode == 0


def test_a_device_is_written_to_and_stays_one(command: Commanded, company: Path, tmp_path: Path):
    done = command("export", "/dev/full", DATA_DIR=company)
    assert (done.returncode, done.stderr) == (
        2,
        "tally: /dev/full cannot be written: No space left on device\n",
    )
    assert Path("/dev/full").is_char_device()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as reading:
        read = reading.submit(pipe.read_bytes)
        assert command("export", str(pipe), DATA_DIR=company).returncode == 0
    assert read.result().startswith(b'{"tally_export":1')
    assert pipe.is_fifo()


def test_a_link_goes_on_leading_to_its_file(command: Commanded, company: Path, tmp_path: Path):
    file, link = tmp_path / FILE, tmp_path / "link"
    link.symlink_to(file)
    assert command("export", str(link), DATA_DIR=company).returncode == 0
    assert link.is_symlink()
    assert file.read_bytes().startswith(b'{"tally_export":1')


def test_an_export_that_fails_leaves_the_file_before_it(command: Commanded, company: Path, tmp_path: Path):
    file = tmp_path / FILE
    file.write_text("the export of yesterday")
    done = command("export", str(file), DATABASE_URL="postgresql://me:secret@127.0.0.1:1/x")
    assert done.returncode == 1
    assert "secret" not in done.stderr
    assert file.read_text() == "the export of yesterday"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("export", "/nowhere/all.jsonl"),
            "tally: /nowhere/all.jsonl cannot be written: No such file or directory\n",
        ),
        (
            ("export", "--csv"),
            "tally: --csv is for the numbers of rows, which are printed with FILE only\n",
        ),
        (
            ("restore", "/nowhere/all.jsonl"),
            "tally: /nowhere/all.jsonl cannot be read: No such file or directory\n",
        ),
        (("restore", "/"), "tally: / cannot be read: Is a directory\n"),
        (("restore", __file__), f"tally: {__file__} is no export of Tally\n"),
        (("restore",), "tally: Missing argument 'FILE' (see tally restore --help)\n"),
        (("migrate", "--back-to", "0099.x"), None),
        (("migrate", "--back-to", "0050.ask", "--status"), None),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_what_cannot_be_done_is_one_sentence(
    command: Commanded, company: Path, arguments: tuple[str, ...], sentence: str | None
):
    done = command(*arguments, DATA_DIR=company)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert sentence is None or done.stderr == sentence


def test_a_migration_is_taken_back_and_applied_again(command: Commanded, tmp_path: Path):
    with open_folder() as folder, running(folder):
        assert command("migrate", DATA_DIR=folder).returncode == 0
        done = command("migrate", "--back-to", "0100.metric_refresh", DATA_DIR=folder)
        assert done.returncode == 0
        assert "0101.client_announced" in done.stdout
        again = command("migrate", "--back-to", "0100.metric_refresh", DATA_DIR=folder)
        assert again.stdout == "nothing was applied after 0100.metric_refresh\n"
        assert "lacks migrations" in command("export", DATA_DIR=folder).stderr
        assert "0101.client_announced" in command("migrate", DATA_DIR=folder).stdout
