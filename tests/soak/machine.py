"""A whole Tally with its Postgres, what can be broken in it, and what it holds: memory, files, tasks."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import asyncpg
import psutil
from msgspec import Struct

from service.database import embedded
from service.database.embedded import Server
from service.database.gateway import LOST_CONNECTION
from tests.processes import ROOT, environment, free_port, until_ready
from tests.soak.relay import Relay, through
from tests.waiting import until

WORKERS = 2
HOOKS = Path(__file__).with_name("hooks")
PAUSED_S = 3.0


class Held(Struct, frozen=True):
    """What a worker holds: connections to Postgres, other open files, unfinished asyncio tasks."""

    database: int
    files: int
    tasks: list[str]


class Machine:
    """The service in processes of its own behind a relay, over an embedded Postgres in `folder`."""

    def __init__(self, folder: Path, server: Server, relay: Relay, relay_port: int, log: IO[str]) -> None:
        self.folder = folder
        self.server = server
        self.relay = relay
        self.port = free_port()
        self._relay_port = relay_port
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            cwd=ROOT,
            env=environment(
                DATABASE_URL=through(server.owner_url, relay_port),
                READER_DATABASE_URL=through(server.reader_url, relay_port),
                DATA_DIR=folder,
                PORT=self.port,
                WORKERS=WORKERS,
                LOG_FORMAT="json",
                LOG_LEVEL="warning",
                EXTERNAL_API_URL="http://127.0.0.1:9",
                PYTHONPATH=f"{HOOKS}:{ROOT}",
                SOAK_FOLDER=folder,
            ),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[psutil.Process]:
        """The processes that answer: those that hold the port open beside the first one."""
        found: list[psutil.Process] = []
        with suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                with suppress(psutil.Error):
                    if "resource_tracker" not in " ".join(child.cmdline()):
                        found.append(child)
        return found

    def memory(self) -> list[int]:
        """Private bytes of each worker with what runs below it."""
        sizes: list[int] = []
        for worker in self.workers():
            with suppress(psutil.Error):
                family = [worker, *worker.children(recursive=True)]
                infos = [each.memory_info() for each in family]
                sizes.append(sum(info.rss - info.shared for info in infos))
        return sizes

    async def held(self) -> list[Held]:
        return [await self._held_by(worker) for worker in self.workers()]

    async def _held_by(self, worker: psutil.Process) -> Held:
        told = self.folder / f"{worker.pid}.json"
        told.unlink(missing_ok=True)
        worker.send_signal(signal.SIGUSR2)
        await until(told.exists)
        to_database = [
            each
            for each in worker.net_connections(kind="tcp")
            if each.raddr and each.raddr.port == self._relay_port
        ]
        others = worker.num_fds() - len(to_database)
        return Held(len(to_database), others, json.loads(told.read_text()))

    def callers(self) -> int:
        """Open connections of callers."""
        return sum(
            1
            for worker in self.workers()
            for each in worker.net_connections(kind="tcp")
            if each.laddr.port == self.port and each.status == psutil.CONN_ESTABLISHED
        )

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, 60)


@asynccontextmanager
async def started(machine: Machine) -> AsyncGenerator[Machine]:
    try:
        await asyncio.to_thread(until_ready, machine.port)
        await until(lambda: len(machine.workers()) == WORKERS)
        yield machine
    finally:
        if machine.process.poll() is None:
            machine.process.kill()


async def _kill_backends(machine: Machine) -> None:
    connection = await asyncpg.connect(machine.server.owner_url)
    await connection.execute("""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'soak'
    """)
    await connection.close()


async def _kill_worker(machine: Machine) -> None:
    """And wait for its replacement to run: it answers when it is ready."""
    before = {each.pid for each in machine.workers()}
    os.kill(min(before), signal.SIGKILL)

    def replaced() -> bool:
        now = {each.pid for each in machine.workers()}
        return len(now) == len(before) and now != before

    await until(replaced)


async def _restart_workers(machine: Machine) -> None:
    """SIGHUP: each worker is replaced."""
    before = {each.pid for each in machine.workers()}
    machine.process.send_signal(signal.SIGHUP)

    def replaced() -> bool:
        now = {each.pid for each in machine.workers()}
        return len(now) == len(before) and not now & before

    await until(replaced, 60)


async def _hang_postgres(machine: Machine) -> None:
    processes = _postgres(machine)
    for each in processes:
        with suppress(psutil.Error):
            each.suspend()
    await asyncio.sleep(PAUSED_S)
    for each in processes:
        with suppress(psutil.Error):
            each.resume()


async def _crash_postgres(machine: Machine) -> None:
    """Kill a backend: the postmaster then restarts all of the server."""
    connection = await asyncpg.connect(machine.server.owner_url)
    pid = connection.get_server_pid()
    os.kill(pid, signal.SIGKILL)
    connection.terminate()
    await _until_postgres(machine)


async def _restart_postgres(machine: Machine) -> None:
    cluster = (machine.folder / "postgres").resolve()
    user = embedded._server_user(cluster)
    command = (machine.server.bin_dir / "pg_ctl", "-D", cluster, "-m", "fast", "-w", "restart")
    command += ("-l", cluster / "server.log")
    succeeded, output = await asyncio.to_thread(user.run, *command)
    assert succeeded, output
    await _until_postgres(machine)


async def _cut_connections(machine: Machine) -> None:
    machine.relay.refuses = True
    machine.relay.cut()
    await asyncio.sleep(PAUSED_S)
    machine.relay.refuses = False


async def _silence_network(machine: Machine) -> None:
    machine.relay.silence()
    await asyncio.sleep(PAUSED_S)
    machine.relay.speak()


async def _hang_worker(machine: Machine) -> None:
    """A worker that does not run for a moment, as on an overloaded machine."""
    worker = machine.workers()[0]
    worker.suspend()
    await asyncio.sleep(PAUSED_S)
    with suppress(psutil.Error):
        worker.resume()


def _postgres(machine: Machine) -> list[psutil.Process]:
    pid_file = (machine.folder / "postgres").resolve() / "postmaster.pid"
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    return [postmaster, *postmaster.children(recursive=True)]


async def _until_postgres(machine: Machine) -> None:
    async def answers() -> bool:
        with suppress(*LOST_CONNECTION, asyncpg.PostgresError):
            connection = await asyncpg.connect(machine.server.owner_url, timeout=5)
            await connection.close()
            return True
        return False

    await until(answers, 60)


Fault = Callable[[Machine], Awaitable[Any]]
FAULTS: dict[str, Fault] = {
    "all backends killed": _kill_backends,
    "a worker killed (SIGKILL)": _kill_worker,
    "workers restarted (SIGHUP)": _restart_workers,
    "Postgres hangs for 3 s (SIGSTOP)": _hang_postgres,
    "Postgres restarted": _restart_postgres,
    "connections cut and refused for 3 s": _cut_connections,
    "the network silent for 3 s": _silence_network,
    "a worker hangs for 3 s (SIGSTOP)": _hang_worker,
    "Postgres crashed": _crash_postgres,
}
"""Each returns when its cause is gone."""
