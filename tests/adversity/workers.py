"""The service in processes of its own, whose workers tests may kill, stop and count."""

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from service.settings import Database as DatabaseSettings
from tests.processes import ROOT, environment, free_port

# What a test cannot wait for: a worker counts as hung after three seconds here.
QUICK = "from service.server import supervisor; from service.server.supervisor import Supervisor; "
QUICK += "Supervisor.hung_ticks = 3; Supervisor.start_ticks = 60;"
EACH_DEATH_IS_THE_FIRST = "supervisor.STEADY_S = 0"


class Service(Struct):
    """The service in processes of its own, its port and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def said(self, words: str = "") -> int:
        return self.log.read_text().count(words)

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.process.pid).children()}


@contextmanager
def serving(
    addresses: DatabaseSettings, data_dir: Path, *, before: str = "", **more: Any
) -> Generator[Service]:
    """Run the service; what `before` says is done first in each process."""
    port = free_port()
    script = f"{QUICK} {before}\nfrom service.cli import main\nif __name__ == '__main__': main(['serve'])"
    with (data_dir / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=environment(
                DATABASE_URL=addresses.url,
                READER_DATABASE_URL=addresses.reader_url,
                DATA_DIR=data_dir,
                PORT=port,
                **more,
            ),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Service(process, port, data_dir / "log")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
