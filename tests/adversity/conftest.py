"""Every attack on a running service goes under the watcher."""

import io
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator

import httpx
import pytest
from msgspec import Struct

from service.cli import main
from service.database.embedded import running
from service.environment import rows
from tests.adversity.watcher import Watcher, watching
from tests.conftest import Server, _cloned, held
from tests.processes import free_port, seeded, start, until_ready

PATIENCE_S = 90

Commanded = Callable[..., subprocess.CompletedProcess[str]]


class Attacked(Struct):
    """A service in processes of its own, with its Postgres, and who watches both."""

    port: int
    service: int
    watcher: Watcher
    client: httpx.Client

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="package")
def attacked() -> Generator[Attacked]:
    """The whole service over the seeds and an embedded Postgres, as `make run` has it."""
    port = free_port()
    with seeded() as folder, running(folder), (folder / "log").open("w") as log:
        (pid_file,) = folder.glob("postgres/**/postmaster.pid")
        process = start(log, DATA_DIR=folder, PORT=port, LOG_LEVEL="warning")
        try:
            until_ready(port)
            postmaster = int(pid_file.read_text().split()[0])
            with (
                watching(port, process.pid, postmaster) as watcher,
                httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=PATIENCE_S) as client,
            ):
                yield Attacked(port, process.pid, watcher, client)
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
async def port(
    server: Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[int]:
    """Where a service listens, AUTH=off, for raw sockets of a module. It ends well and logs no failure."""
    listening = free_port()
    async with held(_cloned(server, template)) as addresses:
        service = start(
            DATABASE_URL=addresses.url,
            READER_DATABASE_URL=addresses.reader_url,
            DATA_DIR=tmp_path_factory.mktemp("raw"),
            PORT=listening,
            LOG_LEVEL="warning",
            EXTERNAL_API_URL="http://127.0.0.1:9",
        )
        try:
            until_ready(listening)
            yield listening
        finally:
            service.terminate()
            printed, _ = service.communicate(timeout=30)
    assert service.returncode == 0
    assert "unexpected error" not in printed


@pytest.fixture(autouse=True)
def everybody_else(request: pytest.FixtureRequest) -> Generator[None]:
    """During an attack health answers in time and memory stays bounded, in the service and in Postgres."""
    if "attacked" not in request.fixturenames:
        yield
        return
    service: Attacked = request.getfixturevalue("attacked")
    with service.watcher.watched() as reports:
        yield
    reports[0].assert_unharmed(postgres_bytes=2 << 30)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commanded:
    """Run a command in this process, as `processes.tally` does in one of its own, which takes a second."""

    def run(*arguments: str, stdin: str = "", **variables: object) -> subprocess.CompletedProcess[str]:
        for row in rows():
            monkeypatch.delenv(row.env, raising=False)
        for name, value in ({"AUTH": "off", "ENV_FILE": "/dev/null"} | variables).items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)  # type: ignore[arg-type]

    return run
