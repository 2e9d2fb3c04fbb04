"""The breaker: one probe while a server is away, an answer at once for all others, no herd when it is back.

Time is that of a clock that jumps to the next timer, so an outage takes no time.
"""

import asyncio
import time

import asyncpg
import pytest

from service.database import breaker as module
from service.database.breaker import (
    AT_ONCE,
    PATIENT_PROBE,
    PAUSE_S,
    PROBE_S,
    Breaker,
    StandbyError,
    same_server,
)
from service.database.connect import CONNECT_TIMEOUT_S
from service.errors import DatabaseUnavailable
from service.observe.events import BreakerClosed, BreakerOpened
from tests.adversity.fake_clock import later, on_fake_clock
from tests.waiting import until

URL = "postgresql://tally@192.0.2.1/tally"


class Connection:
    def __init__(self, server):
        self.server = server

    async def fetchval(self, _sql):
        return self.server.is_standby

    def terminate(self):
        self.server.probed += 1


class Server:
    """Counts the attempts to connect. It answers after `takes_s`, or fails with `error`."""

    def __init__(self):
        self.attempts = []
        self.open_now = self.most_at_once = self.probed = 0
        self.takes_s = 0.01
        self.error = None
        self.is_standby = False

    async def connect(self, *_args, **_arguments):
        loop = asyncio.get_running_loop()
        self.attempts.append(loop.time())
        self.open_now += 1
        self.most_at_once = max(self.most_at_once, self.open_now)
        try:
            await later(self.takes_s)
        finally:
            self.open_now -= 1
        if self.error is not None:
            raise self.error
        return Connection(self)

    def goes(self, error):
        self.error, self.attempts, self.most_at_once = error, [], 0

    def hangs(self):
        self.takes_s, self.attempts, self.most_at_once = 1e9, [], 0

    def is_back(self):
        self.error, self.takes_s, self.attempts, self.most_at_once = None, 0.01, [], 0


class Scene:
    def __init__(self, **options):
        self.server = Server()
        self.events = []
        self.loop = asyncio.get_running_loop()
        self.breaker = Breaker(
            "primary", URL, self.events.append, connect=self.server.connect, clock=self.loop.time, **options
        )

    async def crowd(self, number=300):
        """So many callers who all want a connection; how each fared."""
        asked = (self.breaker.connect() for _ in range(number))
        return await asyncio.gather(*asked, return_exceptions=True)


def scene(play, **options):
    """Run `play` with the breaker's probes in the background."""

    async def main():
        found = Scene(**options)
        keeper = asyncio.create_task(found.breaker.keep())
        try:
            return await play(found)
        finally:
            keeper.cancel()

    return on_fake_clock(main())


GONE = [
    ConnectionRefusedError(111, "no"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.AdminShutdownError("terminating connection"),
    TimeoutError(),
]


@pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
def test_while_the_server_is_away_one_probe_asks_and_all_others_get_the_error_at_once(error):
    async def play(found):
        found.server.goes(error)
        fared = await found.crowd()
        assert all(isinstance(each, OSError | asyncpg.PostgresError) for each in fared)
        assert len(found.server.attempts) <= AT_ONCE
        found.server.goes(error)
        began = found.loop.time()
        for _ in range(20):
            before = found.loop.time()
            fared = await found.crowd(30)
            assert found.loop.time() == before, "nobody waits"
            assert {type(each) for each in fared} == {type(error)}
            await later(0.6)
        assert found.server.most_at_once == 1
        assert len(found.server.attempts) <= (found.loop.time() - began) / PAUSE_S[1] + 5

    scene(play)


def test_when_the_server_is_back_callers_connect_within_the_longest_pause_and_not_all_at_once():
    async def play(found):
        assert not isinstance((await found.crowd(1))[0], Exception)
        found.server.goes(ConnectionRefusedError(111, "no"))
        await found.crowd()
        await later(60)
        found.server.is_back()
        began = found.loop.time()
        await found.breaker.closed()
        assert found.loop.time() - began <= PAUSE_S[1] + 0.1
        assert len(found.server.attempts) == 1
        assert all(isinstance(each, Connection) for each in await found.crowd(10))
        assert found.server.most_at_once == AT_ONCE
        opened, closed = found.events
        assert isinstance(opened, BreakerOpened)
        assert isinstance(closed, BreakerClosed)
        assert closed.duration == pytest.approx(60, abs=1)

    scene(play)


def test_a_hanging_server_gives_up_all_who_wait_for_a_connection():
    async def play(found):
        assert not isinstance((await found.crowd(1))[0], Exception)
        thrown_away = []
        found.breaker.watch(lambda: thrown_away.append(1))
        found.server.hangs()
        crowd = asyncio.create_task(found.crowd())
        await until(lambda: found.server.open_now == AT_ONCE)
        before = found.loop.time()
        found.breaker.check()
        found.breaker.open(TimeoutError(), silent=True)
        assert all(isinstance(each, TimeoutError) for each in await crowd)
        assert found.loop.time() == before
        assert thrown_away == [1]
        with pytest.raises(DatabaseUnavailable) as refused:
            found.breaker.check()
        assert refused.value.headers == {"Retry-After": "2"}
        found.server.is_back()
        began = found.loop.time()
        await found.breaker.closed()
        assert found.loop.time() - began <= PROBE_S + PAUSE_S[1] + 0.1
        found.breaker.check()

    scene(play)


def test_an_attempt_that_is_given_up_after_long_counts_as_failed():
    async def play(found):
        found.server.hangs()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await found.breaker.connect()
        assert isinstance(found.breaker.error, TimeoutError)
        found.breaker.check()  # its other connections may well be answered

    scene(play)


def test_a_caller_who_leaves_says_nothing_about_the_server():
    async def play(found):
        task = asyncio.create_task(found.breaker.connect())
        await until(lambda: found.server.open_now)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert found.breaker.error is None

    scene(play)


def test_without_a_heartbeat_an_attempt_that_times_out_says_that_the_server_hangs():
    async def play(found):
        found.server.goes(TimeoutError())
        await found.crowd(1)
        with pytest.raises(DatabaseUnavailable):
            found.breaker.check()

    scene(play, is_primary=False)


@pytest.mark.parametrize(
    "error",
    [asyncpg.TooManyConnectionsError("no"), asyncpg.InvalidPasswordError("no")],
    ids=lambda error: type(error).__name__,
)
def test_a_server_that_answers_no_is_not_away(error):
    async def play(found):
        found.server.goes(error)
        with pytest.raises(type(error)):
            await found.breaker.connect()
        assert found.breaker.error is None
        found.breaker.open(ConnectionResetError())
        await found.breaker.closed()
        assert len(found.server.attempts) == 2

    scene(play)


def test_a_standby_is_no_primary_until_it_is_promoted():
    async def play(found):
        found.server.is_standby = True
        found.breaker.open(ConnectionResetError())
        await until(lambda: isinstance(found.breaker.error, StandbyError))
        found.server.is_standby = False
        await found.breaker.closed()

    scene(play)


def test_the_server_of_the_reader_may_be_a_standby():
    async def play(found):
        found.server.is_standby = True
        found.breaker.open(ConnectionResetError())
        await found.breaker.closed()

    scene(play, is_primary=False)


def test_a_way_that_has_become_slow_is_found_by_a_patient_probe():
    async def play(found):
        await found.crowd(1)
        found.server.takes_s = (PROBE_S + CONNECT_TIMEOUT_S) / 2
        found.breaker.open(ConnectionResetError())
        await found.breaker.closed()
        assert len(found.server.attempts) - 1 == PATIENT_PROBE

    scene(play)


def test_connections_are_thrown_away_once_and_not_for_every_refused_write():
    async def play(found):
        thrown_away = []
        found.breaker.watch(lambda: thrown_away.append(1))
        for _ in range(100):
            found.breaker.fail_over()
            await found.breaker.closed()
        assert len(thrown_away) == 1
        await later(module.FAIL_OVER_PAUSE_S)
        found.breaker.fail_over()
        assert len(thrown_away) == 2
        await found.breaker.closed()

    scene(play)


def test_a_wall_clock_that_jumps_changes_nothing(monkeypatch):
    """Only the monotonic clock is asked."""

    async def play(found):
        found.server.goes(ConnectionRefusedError())
        await found.crowd(1)
        for jump in (1e9, -1e9, 0.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
            await later(1)
        found.server.is_back()
        await found.breaker.closed()
        assert found.events[-1].duration < 10

    scene(play)


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("postgresql://reader:x@192.0.2.1/other", True),
        ("postgresql://reader@192.0.2.1:5432/tally?application_name=x", True),
        ("postgresql://reader@192.0.2.1:6432/tally", False),
        ("postgresql://reader@192.0.2.2/tally", False),
    ],
)
def test_one_breaker_is_for_one_server(other, is_same):
    assert same_server(URL, other) is is_same
