"""What the listener knows of announcements that have arrived, before they are read."""

import asyncio

import asyncpg
import pytest

from service.database.listen import Listener
from service.settings import Database


@pytest.fixture
async def heard(addresses: Database):
    """A listener on one channel, and what it hears."""
    payloads: asyncio.Queue[str] = asyncio.Queue()
    listener = Listener(
        str(addresses.url), {"news": payloads.put_nowait}, on_gap=lambda: None, on_silence=lambda: None
    )
    running = asyncio.create_task(listener.run())
    await listener.connected.wait()
    yield listener, payloads
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_was_read_is_unread_no_more(heard, addresses):
    listener, payloads = heard
    sender = await asyncpg.connect(addresses.url)
    await sender.execute("SELECT pg_notify('news', 'first')")
    async with asyncio.timeout(30):
        assert await payloads.get() == "first"
    assert not listener.unread()
    await sender.close()


async def test_one_look_does_for_a_turn_of_the_loop_and_no_longer(heard, monkeypatch):
    listener, _ = heard
    looks = []

    class Arrivals:
        def poll(self, _timeout):
            looks.append(True)
            return arrived

    monkeypatch.setattr(listener, "_arrivals", Arrivals())
    arrived: list[object] = []
    await asyncio.sleep(0)
    assert [listener.unread() for _ in range(3)] == [False] * 3
    assert len(looks) == 1
    arrived.append(object())
    await asyncio.sleep(0)
    assert [listener.unread() for _ in range(2)] == [True, True]
    assert len(looks) == 3
