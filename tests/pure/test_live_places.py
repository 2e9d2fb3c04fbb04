"""What live callers may hold: connections, watches, results and unread messages, each with a limit."""

import asyncio
from types import SimpleNamespace
from uuid import UUID

import pytest

from service.errors import LiveUnavailable, TooManyStreams
from service.live.hub import Hub, Topic, Watch
from service.live.places import Limits, UnreadBytes
from service.live.sockets import LARGE_BYTES, Socket
from service.results.cache import Results
from service.results.freshness import Generations
from service.results.requests import Computed
from service.results.table import ResultTable
from tests.pure.lookup import Lookup
from tests.pure.test_live_hub import Screen
from tests.pure.test_results_model import Loop


class Shown(Screen):
    """A client that notes its problems."""

    def __init__(self, key, subject="ann"):
        super().__init__(key)
        self.credential = SimpleNamespace(principal=SimpleNamespace(subject=subject, claims=""))
        self.problem = None

    def tell(self, watch):
        super().tell(watch)
        self.problem = watch.topic.shown_problem

    def fail(self, watch, problem):
        watch.problem = self.problem = problem


class Crowd:
    """A hub with limits, and clients that come and leave."""

    def __init__(self, **limits):
        self.loop = Loop()
        generations = Generations()
        generations.heard(self.loop.now)
        results = Results(generations, ResultTable(1 << 20), self.loop.time, wait_s=60, stale_if_error_s=60)
        self.limits = Limits(**{"connections": 9, "connections_per_caller": 9, "body_bytes": 99} | limits)
        self.hub = Hub(results, self.request_of, self.limits)

    async def request_of(self, watch):
        async def run():
            return Computed(repr([("size", watch.metric_id)]).encode(), "", 99)

        return Lookup(watch.metric_id, watch.metric_id, ("data.a",), 5.0, compute=run)

    def come(self, key, subject="ann", watches=1):
        screen = Shown(key, subject)
        self.hub.enter(screen, watches)
        self.loop.call_soon(self.hub.follow, screen.watch)
        self.loop.settle()
        return screen

    def go(self, screen):
        self.hub.leave(screen, [screen.watch])
        self.loop.settle()

    def wait(self, seconds):
        self.loop.now += seconds
        for _ in range(3):
            self.loop.settle()


@pytest.fixture
def crowd():
    crowds = []

    def made(**limits):
        crowds.append(Crowd(**limits))
        return crowds[-1]

    yield made
    for each in crowds:
        each.loop.run_until_complete(each.hub.close())
        each.loop.close()


def test_different_results_have_a_number_and_the_same_ones_share_it(crowd):
    full = crowd(topics=2)
    first = [full.come(key) for key in (1, 2, 2)]
    assert [each.shown["size"] for each in first] == [1, 2, 2]
    late = full.come(3)
    assert (late.shown, late.problem.code) == (None, "live-unavailable")
    full.go(first[0])
    full.wait(31)
    assert late.shown == {"size": 3}


def test_all_bodies_together_have_a_size(crowd):
    size = len(repr([("size", 1)]))
    full = crowd(body_bytes=2 * size)
    first = [full.come(key) for key in (1, 2)]
    late = full.come(3)
    assert (late.shown, late.problem.code) == (None, "live-unavailable")
    full.wait(31)
    assert late.shown is None
    full.go(first[0])
    full.wait(31)
    assert (late.shown, late.problem) == ({"size": 3}, None)
    for each in (first[1], late):
        full.go(each)
    assert full.hub._body_bytes == 0


def test_connections_and_watches_of_a_caller_have_a_number(crowd):
    few = crowd(connections=4, connections_per_caller=2)
    assert few.limits.watches_per_caller == 1000
    first = few.come(1, watches=900)
    few.come(1)
    with pytest.raises(TooManyStreams):
        few.come(1)
    few.hub.count(first, 99)
    with pytest.raises(TooManyStreams, match="may watch 1000 results"):
        few.hub.count(first, 1)
    for _ in range(2):
        few.come(1, "bob", watches=500)
    with pytest.raises(LiveUnavailable):
        few.come(1, "cid")
    few.go(first)
    few.come(1, watches=999)
    assert few.hub._places._watches == {"ann": 1000, "bob": 1000}


class Reader:
    """A socket's client that takes a message when it is told to."""

    def __init__(self, unread, subject="ann"):
        self.socket = Socket(SimpleNamespace(principal=SimpleNamespace(subject=subject, claims="")), unread)
        self.sent, self.gates = [], []
        self.socket.open(self.send)

    async def send(self, message):
        self.sent.append(message)
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate

    def tell(self, size, tag):
        watch = Watch(self.socket, UUID(int=size), {})
        watch.topic = Topic(SimpleNamespace(), SimpleNamespace())
        watch.topic.tag, watch.topic.body = tag, b'"%s"' % (b"x" * (size - 2))
        self.socket.tell(watch)
        return watch

    async def take(self):
        self.gates.pop(0).set_result(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_large_frames_wait_until_their_caller_has_read_the_others():
    size = LARGE_BYTES
    unread = UnreadBytes(per_caller=2 * size, in_all=3 * size)
    readers = [Reader(unread) for _ in range(3)]
    for reader in readers:
        reader.tell(size, "a" * 32)
    assert [len(reader.sent) for reader in readers] == [1, 1, 0]
    watch = readers[2].tell(size, "b" * 32)
    watch.topic.tag = "c" * 32  # it changes while it waits
    small = Reader(unread)
    small.tell(10, "d" * 32)
    other, further = Reader(unread, "bob"), Reader(unread, "bob")
    other.tell(size, "e" * 32)
    further.tell(size, "f" * 32)
    assert [len(reader.sent) for reader in (small, other, further)] == [1, 1, 0]
    await readers[0].take()
    assert [len(reader.sent) for reader in (readers[2], further)] == [1, 0]
    await readers[2].take()
    await readers[1].take()
    assert [len(reader.sent) for reader in (readers[2], further)] == [2, 1]
    assert "c" * 32 in readers[2].sent[1]["text"]
    for reader in (readers[2], other, further):
        await reader.take()
    assert (unread._all, unread._callers, unread._waiting) == (0, {}, {})


async def test_a_frame_above_the_limit_goes_alone():
    unread = UnreadBytes(per_caller=10, in_all=10)
    one, other = Reader(unread), Reader(unread, "bob")
    one.tell(LARGE_BYTES, "a" * 32)
    other.tell(LARGE_BYTES, "b" * 32)
    assert [len(reader.sent) for reader in (one, other)] == [1, 0]
    await one.take()
    assert len(other.sent) == 1
    await other.take()
