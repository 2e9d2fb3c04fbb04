"""A primary and its standbys from the carried binaries, in streaming replication on loopback."""

import os
import pwd
import secrets
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from service.database.embedded import binaries
from tests.conftest import MAJOR
from tests.processes import free_port
from tests.waiting import eventually

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "max_connections": "100",
    "wal_level": "replica",
    "hot_standby_feedback": "off",
    "max_standby_streaming_delay": "100ms",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
    "timezone": "UTC",
}
ADMIN = "admin"


class Postgres:
    """One server. Postgres refuses to run as root, so root hands it to `nobody`."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.password = password
        self.port = free_port()
        self.bin = binaries(MAJOR)
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

    def url(self, user: str = ADMIN, password: str | None = None, database: str = "tally") -> str:
        word = self.password if password is None else password
        return f"postgresql://{user}:{quote(word)}@127.0.0.1:{self.port}/{database}"

    def run(self, name: str, *arguments: str, **variables: str) -> None:
        done = subprocess.run(
            [str(self.bin / name), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            env={"LC_ALL": "C", "PATH": os.environ["PATH"], **variables},
            start_new_session=True,
            **self._identity(),
        )
        assert done.returncode == 0, done.stdout

    def _identity(self) -> dict:
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def initialise(self) -> None:
        self.folder.mkdir(mode=0o700)
        words = self.folder.parent / f"{self.folder.name}.words"
        words.write_text(self.password)
        words.chmod(0o644)
        if self.user is not None:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        self.run(
            "initdb",
            *("-D", str(self.folder), "-U", ADMIN, f"--pwfile={words}", "-A", "scram-sha-256"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        )
        with (self.folder / "pg_hba.conf").open("a") as rules:
            rules.write("host replication all 127.0.0.1/32 scram-sha-256\n")

    def start(self) -> None:
        options = " ".join(f"-c {name}='{value}'" for name, value in SETTINGS.items())
        log = self.folder / "server.log"
        self.run(
            *("pg_ctl", "-D", str(self.folder), "-l", str(log), "-w", "-t", "60"),
            *("-o", f"{options} -p {self.port}", "start"),
        )

    def stop(self, mode: str = "fast") -> None:
        if (self.folder / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", str(self.folder), "-m", mode, "-w", "-t", "60", "stop")

    def promote(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-t", "60", "promote")

    def ask(self, sql: str, database: str = "postgres") -> tuple | None:
        """Run one statement as the administrator; its first row."""
        with psycopg.connect(self.url(database=database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchone() if cursor.description else None

    def standby(self, name: str) -> "Postgres":
        """A new standby that streams from this server, not yet started."""
        made = Postgres(self.folder.parent / name, self.password)
        made.run(
            "pg_basebackup",
            *("-D", str(made.folder), "-R", "-c", "fast", "--no-sync", "-d", self.url(database="postgres")),
        )
        return made

    def pause(self) -> None:
        self.ask("SELECT pg_wal_replay_pause()")
        eventually(lambda: self.ask("SELECT pg_get_wal_replay_pause_state()") == ("paused",))

    def resume(self) -> None:
        self.ask("SELECT pg_wal_replay_resume()")

    def caught_up(self, primary: "Postgres") -> None:
        """Wait until it has replayed all that the primary has written by now."""
        position = primary.ask("SELECT pg_current_wal_insert_lsn()::text")
        assert position
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{position[0]}'::pg_lsn"
        eventually(lambda: self.ask(reached) == (True,))


@contextmanager
def replicated(folder: Path, standbys: int = 1) -> Generator[list[Postgres]]:
    """A primary and its standbys, all running; those that a test stopped may stay stopped."""
    folder.mkdir(mode=0o755)
    servers = [Postgres(folder / "primary", secrets.token_urlsafe(12))]
    if servers[0].user is not None:
        os.chown(folder, servers[0].user.pw_uid, servers[0].user.pw_gid)
    servers[0].initialise()
    try:
        servers[0].start()
        for number in range(standbys):
            servers.append(servers[0].standby(f"standby{number}"))
            servers[-1].start()
        yield servers
    finally:
        for server in reversed(servers):
            server.stop("immediate")
