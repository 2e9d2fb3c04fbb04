"""The embedded Postgres through starts, stops, kills and crowds."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from service.database import embedded
from service.database.embedded import binaries, running, serving
from service.errors import Stop
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
HOLD = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup hands on that it is ignored
from pathlib import Path
from service.database.embedded import running
with running(Path(sys.argv[1]), durable="durable" in sys.argv) as server:
    print(server.owner_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data_dir():
    """An open folder of its own: pytest's are closed to the user that the server runs as."""
    above = Path(tempfile.mkdtemp(prefix="tally-test-"))
    above.chmod(0o755)
    yield above / "data"
    if pid := embedded._postmaster((above / "data" / "postgres").resolve()):
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not processes(above))
    shutil.rmtree(above)


def user_of(data_dir, *flags):
    command = [sys.executable, "-c", HOLD, data_dir, *flags]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def holder(data_dir, *flags):
    """Another process that uses the server until its standard input ends."""
    with user_of(data_dir, *flags) as process:
        try:
            process.url = process.stdout.readline().strip()
            assert process.url
            yield process
        finally:
            process.kill()


def processes(folder):
    """Command lines of living processes that name the folder."""
    found = subprocess.run(
        ["ps", "-eww", "-o", "stat=,command="], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in found.splitlines() if str(folder) in line and not line.startswith("Z")]


def ask(url, statement):
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchone()[0]


def do(url, statement):
    with psycopg.connect(url) as connection:
        connection.execute(statement)


@pytest.mark.parametrize("major", [16, 18])
def test_runs_the_major_version_asked_for_and_leaves_no_process(data_dir, major):
    with running(data_dir, major=major, durable=False) as server:
        assert ask(server.owner_url, "SHOW server_version").startswith(f"{major}.")
        assert ask(server.owner_url, "SELECT upper('ä') || current_setting('timezone')") == "ÄUTC"
        assert ask(server.owner_url, "SHOW fsync") == "off"
        assert processes(data_dir)
    assert processes(data_dir) == []


def test_is_durable_and_listens_on_loopback_only_by_default(data_dir):
    with running(data_dir) as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert ask(server.owner_url, f"SHOW {setting}") == "on"
        assert ask(server.owner_url, "SHOW listen_addresses") == "127.0.0.1"
        assert ask(server.owner_url, "SHOW unix_socket_directories") == ""


# One value of each wants more than the 512 MiB that a process may have.
BOMBS = {
    "aggregate": "SELECT length(string_agg(repeat('x', 10000000), '')) FROM generate_series(1, 90)",
    "array": "SELECT cardinality(array_agg(md5(i::text))) FROM generate_series(1, 8000000) AS i",
    "doubled": "WITH RECURSIVE t(x, n) AS (SELECT repeat('x', 10000), 1 UNION ALL"
    " SELECT x || x, n + 1 FROM t WHERE n < 17) SELECT max(length(x)) FROM t",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_statement_that_wants_too_much_memory_fails_alone(data_dir, bomb):
    with running(data_dir, durable=False) as server, psycopg.connect(server.owner_url) as other:
        began = other.execute("SELECT pg_postmaster_start_time()").fetchone()
        with pytest.raises(psycopg.errors.OutOfMemory):
            ask(server.owner_url, bomb)
        assert other.execute("SELECT pg_postmaster_start_time()").fetchone() == began
        assert ask(server.owner_url, "SELECT 1") == 1


def test_psql_needs_the_password_which_is_quick_to_check_and_long(data_dir):
    with running(data_dir, durable=False) as server:
        psql = [server.bin_dir / "psql", "-w", "-Atc", "SELECT current_user"]
        assert subprocess.check_output([*psql, server.owner_url], text=True) == "tally_owner\n"
        assert subprocess.check_output([*psql, server.reader_url], text=True) == "tally_reader\n"
        without = f"postgresql://tally_owner@127.0.0.1:{server.port}/tally"
        refused = subprocess.run([*psql, without], capture_output=True, text=True, check=False)
        assert "no password supplied" in refused.stderr
        stored = "SELECT array_agg(rolpassword) FROM pg_authid WHERE rolcanlogin"
        passwords = ask(server.owner_url, stored)
        # one round, and passwords too long to be guessed
        assert [each.split(":")[0] for each in passwords] == ["SCRAM-SHA-256$1"] * 2
        assert all(len(urlsplit(url).password) >= 32 for url in (server.owner_url, server.reader_url))
    assert (data_dir / "postgres.json").stat().st_mode & 0o777 == 0o600


def test_reader_is_no_superuser_and_makes_neither_databases_nor_roles(data_dir):
    with running(data_dir, durable=False) as server:
        rights = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
        assert ask(server.reader_url, rights) is False


def test_second_start_finds_data_port_passwords_and_major_version_again(data_dir):
    with running(data_dir, major=16, durable=False) as first:
        do(first.owner_url, "CREATE TABLE kept AS SELECT 7 AS n")
    with running(data_dir, major=18, durable=False) as second:
        assert second == first
        assert ask(second.owner_url, "SELECT n FROM kept") == 7


def test_server_stays_until_its_last_user_leaves(data_dir):
    with holder(data_dir) as other:
        with running(data_dir, durable=False) as server:
            assert server.owner_url == other.url
            with running(data_dir, durable=False) as again:
                assert again == server
            assert ask(server.owner_url, "SELECT 1") == 1
        assert ask(other.url, "SELECT 1") == 1
        other.stdin.close()
        assert other.wait() == 0
    assert processes(data_dir) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_signal_to_its_user_stops_the_server(data_dir, number):
    with holder(data_dir) as user:
        user.send_signal(number)
        assert user.wait() != 0
    assert processes(data_dir) == []


def test_signals_that_arrive_during_the_stop_wait_until_it_is_done(data_dir, monkeypatch):
    stop = embedded._stop

    def interrupted(cluster):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        stop(cluster)

    monkeypatch.setattr(embedded, "_stop", interrupted)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)), running(data_dir, durable=False):
        pass
    assert processes(data_dir) == []


@pytest.mark.parametrize("ending", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_exception_inside_stops_the_server(data_dir, ending):
    with pytest.raises(ending), running(data_dir, durable=False):
        raise ending
    assert processes(data_dir) == []


def test_server_whose_user_was_killed_is_adopted_and_stopped_at_the_end(data_dir):
    with holder(data_dir) as user:
        postmaster = embedded._postmaster(data_dir / "postgres")
        user.kill()
        user.wait()
    assert processes(data_dir)
    with running(data_dir, durable=False) as server:
        assert server.owner_url == user.url
        assert embedded._postmaster(data_dir / "postgres") == postmaster
    assert processes(data_dir) == []


def test_killed_server_is_recovered_with_what_was_committed(data_dir):
    with holder(data_dir, "durable") as user:
        do(user.url, "CREATE TABLE kept AS SELECT 7 AS n")
        os.kill(embedded._postmaster(data_dir / "postgres"), signal.SIGKILL)
        user.kill()
    with running(data_dir, durable=False) as server:
        assert ask(server.owner_url, "SELECT n FROM kept") == 7
    assert processes(data_dir) == []


def test_recycled_process_id_in_the_pid_file_does_not_prevent_the_start(data_dir):
    with running(data_dir, durable=False) as server:
        pid_file = data_dir / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    # of the server's own user: Postgres sees through any other by itself
    owner = pid_file.parent.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=owner) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        with running(data_dir, durable=False) as again:
            assert again == server
        assert stranger.poll() is None
        stranger.stdin.close()


def test_initdb_that_was_killed_is_begun_anew(data_dir):
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    with running(data_dir, durable=False) as server:
        assert ask(server.owner_url, "SELECT 1") == 1
    assert not (data_dir / "postgres.new").exists()


def test_taken_port_is_left_for_another_which_is_kept(data_dir):
    with running(data_dir, durable=False) as first:
        pass
    with socket.create_server(("127.0.0.1", first.port)), running(data_dir, durable=False) as second:
        assert second.port != first.port
        assert ask(second.owner_url, "SELECT 1") == 1
    with running(data_dir, durable=False) as third:
        assert third.port == second.port


def test_many_first_starts_at_once_share_one_server(data_dir):
    users = [user_of(data_dir) for _ in range(4)]
    assert len({user.stdout.readline() for user in users}) == 1
    for user in users:
        user.stdin.close()
        user.stdout.close()
    assert [user.wait() for user in users] == [0] * 4
    assert processes(data_dir) == []


def test_second_service_on_one_folder_is_told_who_has_it(data_dir):
    with serving(data_dir):
        with pytest.raises(Stop) as refused, serving(data_dir):
            pass
        assert str(refused.value) == (
            f"another Tally (process {os.getpid()}) serves {data_dir}: stop it or set DATA_DIR"
        )
    with serving(data_dir):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes user for the server")
def test_root_may_start_below_a_closed_folder_and_is_told_where_the_data_are(data_dir, monkeypatch, capfd):
    """Both the package and DATA_DIR lie where the server's user cannot go."""
    closed = data_dir.parent / "closed"
    closed.mkdir(mode=0o700)
    package = binaries(18).parent.parent
    shutil.copytree(package, closed / package.name, ignore=shutil.ignore_patterns("pginstall", "*.pyc"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    monkeypatch.setattr(embedded, "OPEN_FOLDER", data_dir.parent / "open")
    monkeypatch.setattr(embedded, "binaries", lambda _: closed / package.name / "pginstall18" / "bin")
    with running(closed / "data", durable=False) as server:
        do(server.owner_url, "CREATE TABLE kept AS SELECT 7 AS n")
        assert server.bin_dir.is_relative_to(embedded.OPEN_FOLDER)
        kept = (closed / "data" / "postgres").resolve()
        assert f"kept in {kept}" in capfd.readouterr().err
    with running(closed / "data", durable=False) as again:
        assert again == server
        assert ask(again.owner_url, "SELECT n FROM kept") == 7
    assert processes(embedded.OPEN_FOLDER) == []
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("major", [16, 18])
def test_pinned_package_carries_the_binaries(major):
    tools = ("postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pg_restore", "pg_basebackup")
    assert all(os.access(binaries(major) / tool, os.X_OK) for tool in tools)


def test_missing_package_is_one_sentence(monkeypatch, data_dir):
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(Stop, match="set DATABASE_URL or install the `embedded` extra"), running(data_dir):
        pass


def test_data_dir_that_is_a_file_is_one_sentence(data_dir):
    data_dir.touch()
    with pytest.raises(Stop, match=r"DATA_DIR=.* cannot be written: Not a directory"), running(data_dir):
        pass


def test_foreign_major_version_is_refused(data_dir):
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres.json").write_text('{"owner": "a", "reader": "b", "port": 1}')
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(Stop, match="belongs to Postgres 15"), running(data_dir):
        pass


def test_lost_passwords_are_one_sentence(data_dir):
    (data_dir / "postgres").mkdir(parents=True)
    with pytest.raises(Stop, match=r"postgres\.json with the passwords .* is gone"), running(data_dir):
        pass


def test_failed_start_shows_the_end_of_the_servers_log(data_dir):
    with running(data_dir, durable=False):
        pass
    with (data_dir / "postgres" / "postgresql.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    with (
        pytest.raises(Stop, match='unrecognized configuration parameter "no_such_setting"'),
        running(data_dir),
    ):
        pass


def test_statement_of_a_client_that_fails_leaves_no_line_in_the_log(data_dir):
    with running(data_dir, durable=False) as server:
        with pytest.raises(psycopg.errors.UndefinedTable):
            do(server.owner_url, "SELECT * FROM nowhere")
        assert "nowhere" not in (data_dir / "postgres" / "server.log").read_text()


def test_the_service_has_its_turn_before_statements(data_dir):
    with running(data_dir, durable=False):
        postmaster = embedded._postmaster(data_dir / "postgres")
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, postmaster) == min(own + embedded.NICENESS, 19)
