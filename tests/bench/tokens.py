"""What tokens cost a poller of a held result: AUTH=off, one token, and 10,000 in rotation.

Run with DATABASE_URL and READER_DATABASE_URL of a migrated database, or with neither for the embedded one:
`.venv/bin/python tests/bench/tokens.py`. Rounds alternate, and the best of each counts: other work on the
machine only ever slows a round down. The service's processor time per request is the steadier figure.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import uvloop

from service.auth.issuer import Issuer, KeyFile
from service.database.embedded import running
from service.database.migrate import migrate

CONNECTIONS = 32
ROUNDS = 5
SECONDS = 3.0
TOKENS = 10_000
SQL = "SELECT type, count(*) AS customers FROM customers GROUP BY type"


def make_metric(port: int) -> str:
    """A metric whose result is then held; its path."""
    body = json.dumps({"title": "bench", "sql": SQL}).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/metrics", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        return f"/api/v1/metrics/{json.load(answer)['id']}"


def request(port: int, path: str, token: str | None) -> bytes:
    header = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n".encode()


async def rate(port: int, requests: list[bytes], seconds: float) -> float:
    """Requests a second over keep-alive connections that take turns through `requests`."""
    turn, done = cycle(requests), 0
    end = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            writer.write(next(turn))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                sys.exit(head.decode())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            done += 1
        writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(ask())
    return done / (time.perf_counter() - started)


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(memory_mb(int(child)) for child in children)


def processor_s(pid: int) -> float:
    """Processor time of a process and its children so far."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + sum(
        processor_s(int(child)) for child in children
    )


@contextmanager
def service(auth: str, folder: Path, addresses: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A service of its own; its port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    env = (
        os.environ
        | addresses
        | {"AUTH": auth, "PORT": str(port), "DATA_DIR": str(folder), "LOG_LEVEL": "error"}
    )
    with subprocess.Popen(
        [sys.executable, "-m", "service", "serve"], env=env, stdout=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.05)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def database(stack: ExitStack, folder: Path) -> dict[str, str]:
    if "DATABASE_URL" in os.environ:
        return {name: os.environ[name] for name in ("DATABASE_URL", "READER_DATABASE_URL")}
    server = stack.enter_context(running(folder))
    migrate(server.owner_url, server.reader_url, ("data",))
    return {"DATABASE_URL": server.owner_url, "READER_DATABASE_URL": server.reader_url}


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        addresses = database(stack, folder)
        keys = folder / "on"
        off, off_pid = stack.enter_context(service("off", folder / "off", addresses))
        on, on_pid = stack.enter_context(service("on", keys, addresses))
        issuer = Issuer(f"http://127.0.0.1:{on}", KeyFile(keys))
        path = make_metric(off)
        many = [
            request(on, path, issuer.sign(f"poller-{number}", ["metrics:read"])) for number in range(TOKENS)
        ]
        cases = {
            "AUTH=off": (off, off_pid, [request(off, path, None)]),
            "one token": (on, on_pid, many[:1]),
            f"{TOKENS} tokens": (on, on_pid, many),
        }
        before = memory_mb(on_pid)
        rates, costs = dict.fromkeys(cases, 0.0), dict.fromkeys(cases, float("inf"))
        for _ in range(ROUNDS):
            for name, (port, pid, requests) in cases.items():
                used = processor_s(pid)
                found = uvloop.run(rate(port, requests, SECONDS))
                rates[name] = max(rates[name], found)
                costs[name] = min(costs[name], (processor_s(pid) - used) / (found * SECONDS) * 1e6)
        for name, found in rates.items():
            relative = found / rates["AUTH=off"], costs["AUTH=off"] / costs[name]
            print(  # noqa: T201 (a script)
                f"{name:14} {found:8.0f} requests/s ({relative[0]:.2f})"
                f"  {costs[name]:6.1f} us of processor each ({relative[1]:.2f})"
            )
        print(f"memory with AUTH=on: {before:.0f} MB before, {memory_mb(on_pid):.0f} MB after")  # noqa: T201 (a script)


if __name__ == "__main__":
    main()
