"""What the listener knows of announcements that have arrived, before they are read."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import psycopg
import pytest
import uvloop

from service.database.listen import Handlers, Listener
from service.settings import Database


@asynccontextmanager
async def hearing(url: str):
    """A listener on one channel, and what it hears."""
    payloads: asyncio.Queue[str] = asyncio.Queue()
    listener = Listener(url)
    handlers = Handlers(payloads.put_nowait, silent=lambda: None, heard=lambda: None)
    running = asyncio.create_task(listener.run(["news"], handlers))
    await listener.connected.wait()
    yield listener, payloads
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.fixture
async def heard(addresses: Database):
    async with hearing(str(addresses.url)) as listener_and_payloads:
        yield listener_and_payloads


async def test_what_was_read_is_unread_no_more(heard, addresses):
    listener, payloads = heard
    sender = await asyncpg.connect(addresses.url)
    await sender.execute("SELECT pg_notify('news', 'first')")
    async with asyncio.timeout(30):
        assert await payloads.get() == "first"
    assert not listener.unread()
    await sender.close()


def test_a_queued_callback_sees_notifications_read_before_its_turn(addresses: Database):
    """On the server's event loop, which reads the socket between two rounds of its queue."""
    assert uvloop.run(arriving_before(str(addresses.url)))


async def arriving_before(url: str) -> bool:
    """Whether an announcement is known of to one who came into the queue when it had just arrived."""
    loop = asyncio.get_running_loop()
    known: asyncio.Future[bool] = loop.create_future()
    async with asyncio.timeout(30), hearing(url) as (listener, payloads):

        def arrive() -> None:
            with psycopg.connect(url, autocommit=True) as sender:
                sender.execute("SELECT pg_notify('news', 'first')")
            assert listener._poll.poll(30_000)
            loop.call_soon(lambda: known.set_result(listener.unread() or not payloads.empty()))

        loop.call_soon(arrive)
        return await known


async def test_one_check_is_valid_for_one_turn_of_the_loop(heard, monkeypatch):
    listener, _ = heard
    looks = []

    class Arrivals:
        def poll(self, _timeout):
            looks.append(True)
            return arrived

    monkeypatch.setattr(listener, "_poll", Arrivals())
    arrived: list[object] = []
    await asyncio.sleep(0)
    assert [listener.unread() for _ in range(3)] == [False] * 3
    assert len(looks) == 1
    arrived.append(object())
    await asyncio.sleep(0)
    assert [listener.unread() for _ in range(2)] == [True, True]
    assert len(looks) == 3
