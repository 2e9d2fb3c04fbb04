"""PgBouncer in transaction mode, in front of one server."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.adversity.test_reader import listens
from tests.processes import free_port
from tests.programs import program
from tests.waiting import until


class Pooler:
    """It maps any address of its server to its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def through(self, url: str) -> str:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{self.port}"))


@asynccontextmanager
async def pooling(
    folder: Path, *urls: str, server: str = "pgbouncer", settings: str = ""
) -> AsyncGenerator[Pooler]:
    """Let in the roles of these addresses of one server. Few connections: what leaks is seen."""
    target, port = urlsplit(urls[0]), free_port()
    roles = {(parts.username, parts.password) for parts in map(urlsplit, urls)}
    users, config = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text("".join(f'"{name}" "{password}"\n' for name, password in roles))
    config.write_text(
        f"[databases]\n* = host={target.hostname} port={target.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = scram-sha-256\nauth_file = {users}\n"
        "pool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200\nunix_socket_dir =\n"
        + settings
    )
    for path in (folder.parent, folder, users, config):
        path.chmod(0o755)
    command = [program(server), *(["-u", "nobody"] if os.geteuid() == 0 else []), str(config)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: listens(port))
        yield Pooler(port)
    finally:
        process.kill()
        await process.wait()
