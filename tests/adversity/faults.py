"""A Postgres of one's own to stop, hang and fail over, and a wire before it that can swallow everything."""

import asyncio
import os
from contextlib import contextmanager, suppress
from uuid import uuid4

import psutil
import psycopg

from service.database import embedded
from service.database.embedded import running
from service.database.migrate import migrate
from tests.processes import open_folder


class Postgres:
    """A server with the migrated database."""

    def __init__(self, folder, server):
        self.folder, self.server = folder, server
        self.cluster = (folder / "postgres").resolve()

    @property
    def port(self):
        return self.server.port

    def execute(self, *statements):
        with psycopg.connect(self.server.owner_url, autocommit=True) as connection:
            found = [connection.execute(statement) for statement in statements]
            return found[-1].fetchall() if found[-1].description else None

    def crash(self):
        """Stop at once, as after a crash: nobody is told.

        The server of the tests is not durable, so what it keeps is written before.
        """
        self.execute("CHECKPOINT")
        bin_dir = self.server.bin_dir
        user = embedded._server_user(self.cluster)
        stopped, said = user.run(bin_dir / "pg_ctl", "-D", self.cluster, "-m", "immediate", "-w", "stop")
        assert stopped, said

    def start(self):
        self.server = embedded._start(self.folder, 18, durable=False)

    @contextmanager
    def stopped(self):
        """All processes of the server hang (SIGSTOP)."""
        postmaster = psutil.Process(embedded._postmaster(self.cluster))
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def standby(self):
        """A hot standby of this server."""
        folder = self.folder / f"standby-{uuid4().hex}"
        user = embedded._server_user(self.cluster)
        copied, said = user.run(
            *(self.server.bin_dir / "pg_basebackup", "-d", self.server.owner_url, "-D", folder),
            *("-R", "-X", "stream", "--checkpoint=fast", "--no-sync"),
        )
        assert copied, said
        port = embedded._launch(folder, user, self.server.bin_dir, 0, embedded.THROWAWAY)
        url = self.server.owner_url.replace(f":{self.port}/", f":{port}/")
        try:
            yield Standby(url, port)
        finally:
            embedded._stop(folder)


class Standby:
    def __init__(self, url, port):
        self.url, self.port = url, port

    def promote(self):
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")

    def read(self, statement):
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement).fetchall()


@contextmanager
def postgres():
    with open_folder() as folder, running(folder, durable=False) as server:
        user = embedded._server_user((folder / "postgres").resolve())
        if user.uid is not None:  # it makes the folder of the standby there
            os.chown(folder, user.uid, user.gid)
        migrate(server.owner_url, server.reader_url, ("data",))
        yield Postgres(folder, server)


class Wire:
    """What stands between the service and the server. It counts the connections that the service makes."""

    def __init__(self, port):
        self.target = port
        self.accepted = 0
        self.open = set()
        self._server = None
        self._swallows_all = False
        self._tasks = set()
        self._swallowed = set()
        self._before = set()
        self.port = 0

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def address(self, url):
        return url.replace(f":{self.target}/", f":{self.port}/")

    def swallow(self, *, new=True):
        """Pass nothing on any more and say nothing; with `new` false, only on the connections of now."""
        self._swallowed, self._before = set(self.open), set(self.open)
        self._swallows_all = new

    @property
    def tried(self):
        """Open connections that were made since it swallows."""
        return self.open - self._before

    def pass_all(self):
        """New connections work again. The swallowed ones never do."""
        self._swallows_all = False

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self.accepted += 1
        self.open.add(writer)
        if self._swallows_all:
            self._swallowed.add(writer)
        other_writer = None
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(
                self._pump(reader, other_writer, writer), self._pump(other_reader, writer, writer)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in filter(None, (writer, other_writer)):
                each.transport.abort()
            self.open.discard(writer)
            self._tasks.discard(task)

    async def _pump(self, reader, writer, name):
        with suppress(OSError):
            while data := await reader.read(65536):
                if name not in self._swallowed:
                    writer.write(data)
        self.open.discard(name)
        writer.close()
