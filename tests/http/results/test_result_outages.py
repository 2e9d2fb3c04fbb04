"""What is held outlives the database, for a time."""

import asyncio
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import msgspec
import pytest

from service.settings import Results
from tests.http.results.asking import COUNT, ask, running, status
from tests.waiting import until


class Proxy:
    """Stands before Postgres, and can go away or hang as a server does."""

    def __init__(self, host, port):
        self._target = host, port
        self._server = None
        self._writers = set()
        self.port = 0
        self._flows = asyncio.Event()
        self._flows.set()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await self._server.wait_closed()

    @contextmanager
    def hanging(self):
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    async def _serve(self, reader, writer):
        other_reader, other_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, other_writer}
        await asyncio.gather(self._pump(reader, other_writer), self._pump(other_reader, writer))

    async def _pump(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
        writer.close()


@pytest.fixture
async def proxy(addresses):
    parts = urlsplit(addresses.url)
    found = Proxy(parts.hostname, parts.port)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def behind_proxy(settings, proxy):
    addresses = settings.database
    port = urlsplit(addresses.url).port
    urls = [url.replace(f":{port}/", f":{proxy.port}/") for url in (addresses.url, addresses.reader_url)]
    moved = msgspec.structs.replace(addresses, url=urls[0], reader_url=urls[1])
    return msgspec.structs.replace(settings, database=moved)


async def test_without_the_database_what_is_held_is_served_and_says_so(behind_proxy, make_metric, proxy):
    metric, unseen = await make_metric(COUNT), await make_metric("SELECT 1 AS n")
    async with running(behind_proxy) as service:
        kept = [await ask(service.fast, metric) for _ in range(2)][-1]
        await proxy.stop()
        await until(lambda: service.app.state.base.results.generations.silent_since is not None)
        for _ in range(3):
            stale = await ask(service.fast, metric)
            assert stale.content == kept.content
            assert status(stale).startswith("tally; hit; ttl=-")
            assert status(stale).endswith("detail=stale")
        missing = await service.fast.get(f"/metrics/{unseen}")
        assert (missing.status_code, missing.json()["code"]) == (503, "database-unavailable")
        assert int(missing.headers["retry-after"]) > 0
        await proxy.start()

        async def recovered():
            return status(await ask(service.fast, metric)) == "tally; hit"

        await until(recovered)


async def test_a_database_that_hangs_counts_as_away(behind_proxy, make_metric, proxy):
    """Its connections stay open; the reader's few are soon all waiting."""
    impatient = msgspec.structs.replace(
        behind_proxy.database, statement_timeout_ms=100, reader_pool_size=1, reader_queue_limit=1
    )
    metrics = [await make_metric(f"SELECT {n} AS n") for n in range(3)]
    async with running(msgspec.structs.replace(behind_proxy, database=impatient)) as service:
        kept = [await ask(service.fast, metric) for metric in metrics]
        with proxy.hanging():
            await until(lambda: service.app.state.base.results.generations.silent_since is not None)
            stale = await asyncio.gather(*(ask(service.fast, metric) for metric in metrics))
            assert [answer.content for answer in stale] == [answer.content for answer in kept]
            assert all(status(answer).endswith("detail=stale") for answer in stale)

        async def recovered():
            return status(await ask(service.fast, metrics[0])) == "tally; hit"

        await until(recovered)


async def test_a_database_that_hangs_keeps_no_service_from_ending(
    behind_proxy, make_metric, proxy, monkeypatch
):
    monkeypatch.setattr("service.database.gateway.CLOSE_WAIT_S", 0.1)
    metric = await make_metric(COUNT)
    with ExitStack() as until_the_end:
        async with asyncio.timeout(20), running(behind_proxy) as service:
            await ask(service.fast, metric)
            until_the_end.enter_context(proxy.hanging())


async def test_stale_if_error_ends(behind_proxy, make_metric, proxy):
    short = msgspec.structs.replace(behind_proxy, results=Results(stale_if_error_s=0))
    metric = await make_metric(COUNT)
    async with running(short) as service:
        await ask(service.fast, metric)
        await proxy.stop()

        async def refused():
            answer = await service.fast.get(f"/metrics/{metric}")
            return answer if answer.status_code != 200 else None

        assert (await until(refused)).json()["code"] == "database-unavailable"
        await proxy.start()
