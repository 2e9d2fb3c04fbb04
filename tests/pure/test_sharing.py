"""Two nodes and a store that is honest, slow, lost, full of nonsense or hostile."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from fakeredis import FakeAsyncRedis

from service.database.snapshots import Position, Seen, Snapshot
from service.errors import QueryFailed
from service.http.fields import ANY, Directives
from service.observe.events import ConnectionLost, ConnectionRestored
from service.results import sharing as sharing_module
from service.results import store as store_module
from service.results.cache import Results
from service.results.freshness import Generations
from service.results.requests import Computed, Share
from service.results.sharing import Sharing
from service.results.store import OPEN, SharedStore, StoreAway
from service.results.stored import (
    FORMAT,
    Proof,
    SharedResult,
    lease_ends_at,
    lease_of,
    name_of,
    open_sealed,
    seal,
)
from service.results.table import ResultTable
from tests.pure.lookup import Lookup
from tests.waiting import until

LIFE = b"l" * 32
SERVER = "16384 1700000000.5"


class Database:
    """One counter that each run reads, and the number of runs."""

    def __init__(self):
        self.value = 0
        self.transaction = 100
        self.runs = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def commit(self, *nodes, announce=True):
        self.value += 1
        for node in nodes if announce else ():
            node.generations.announced(f"data.a {self.transaction}", time.monotonic())
        self.transaction += 1

    @property
    def snapshot(self):
        return Snapshot(self.transaction, self.transaction)


class Node:
    def __init__(self, client, database, events=None):
        self.database = database
        self.generations = Generations()
        self.store = SharedStore(client, "store:6379", ignore if events is None else events.append)
        self.sharing = Sharing(self.store, self.generations, time.monotonic)
        self.results = Results(
            self.generations,
            ResultTable(1 << 24),
            time.monotonic,
            wait_s=20,
            stale_if_error_s=60,
            sharing=self.sharing,
        )
        self.digest = b"definitions"
        self.fresh_for_s = 1e9
        self.fails = False
        self.own_runs = 0
        self.generations.heard(time.monotonic())
        self.generations.polled()
        self.look()

    def look(self, clock_ahead_s=0.0):
        asked = self.results.asking()
        clock = time.time() + clock_ahead_s
        self.generations.proofs.seen(asked, Position(SERVER, self.database.snapshot, clock), LIFE)

    async def run(self):
        seen = Seen(SERVER, self.database.snapshot)
        self.database.runs += 1
        self.own_runs += 1
        await self.database.gate.wait()
        if self.fails:
            raise QueryFailed("no such column")
        body = b'{"value":%d}' % self.database.value
        return Computed(body, "application/json", len(body), seen=seen, fresh_for_s=self.fresh_for_s)

    async def ask(self, directives=ANY, key="key", *, shared=True):
        share = Share(key.encode(), lambda: self.digest) if shared else None
        request = Lookup(key, "metric", ("data.a",), 0.0, compute=self.run, shared=shared, share=share)
        return await self.results.get(request, directives)

    async def value(self, *args, **options):
        outcome = await self.ask(*args, **options)
        assert outcome.stale_s == 0
        return msgspec.json.decode(outcome.entry.body)["value"]


def ignore(_event):
    pass


@pytest.fixture
async def redis():
    client = FakeAsyncRedis()
    yield client
    await client.aclose()


@pytest.fixture
async def nodes(redis):
    async with opened(redis) as found:
        yield found


@asynccontextmanager
async def opened(*clients, events=None):
    database = Database()
    both = [Node(clients[0], database, events), Node(clients[-1], database, events)]
    yield (*both, database)
    for node in both:
        await node.results.close()
        await asyncio.gather(*node.sharing._tasks, return_exceptions=True)


async def published(*nodes):
    """Wait until nothing more is being written to the store."""
    await until(lambda: not any(node.sharing._tasks for node in nodes))


async def test_a_result_is_run_once_for_both_and_again_after_a_change(nodes):
    first, second, database = nodes
    assert await first.value() == 0
    await published(first)
    outcome = await second.ask()
    assert (database.runs, outcome.collapsed, outcome.forward) == (1, True, "miss")
    database.commit(first, second)
    assert await second.value() == 1
    await published(second)
    assert await first.value() == 1
    assert database.runs == 2


async def test_both_nodes_ask_at_once_and_one_of_them_runs(nodes):
    first, second, database = nodes
    database.gate.clear()
    asked = [asyncio.create_task(node.value()) for node in (first, second) for _ in range(5)]
    await until(lambda: database.runs)
    await asyncio.sleep(0)
    database.gate.set()
    assert await asyncio.gather(*asked) == [0] * 10
    assert database.runs == 1


async def test_a_result_that_lacks_an_announced_change_is_not_taken(nodes):
    """The first node has not heard of the change: its own result is fresh for it, but not for the second."""
    first, second, database = nodes
    await first.value()
    await published(first)
    database.commit(second)
    assert await second.value() == 1
    assert database.runs == 2


async def test_a_late_announcement_of_a_change_that_is_shown_costs_no_run(nodes):
    first, second, database = nodes
    database.commit(announce=False)
    assert await first.value() == 1
    await published(first)
    for node in (first, second):
        node.generations.announced("data.a 100", time.monotonic())
    held = first.results.table.get("key").representations
    assert (await first.value(), await second.value(), database.runs) == (1, 1, 1)
    assert first.results.table.get("key").representations == held
    assert first.results.table.weight == second.results.table.weight


@pytest.mark.parametrize("gap", ["reconnect", "other definitions", "silence", "poll"])
async def test_what_a_node_may_have_missed_makes_it_run_itself(nodes, gap):
    first, second, database = nodes
    await first.value()
    await published(first)
    if gap == "reconnect":
        second.results.silent()
        database.commit(announce=False)
        second.results.heard()
        second.look()
    elif gap == "silence":
        database.commit(announce=False)
        second.results.silent()
    elif gap == "poll":
        database.commit(announce=False)
        second.generations.moved("data.a", time.monotonic())
        second.look()
    else:
        database.commit(announce=False)
        second.digest = b"new definitions"
    assert await second.value() == 1
    assert database.runs == 2


async def test_a_reconnect_without_a_missed_change_keeps_what_is_shared(nodes):
    first, second, database = nodes
    await first.value()
    await published(first)
    second.results.silent()
    second.results.heard()
    second.look()
    assert (await second.value(), database.runs) == (0, 1)


async def test_a_result_of_one_caller_never_leaves_its_node(nodes, redis):
    first, second, database = nodes
    await first.value(shared=False)
    await second.value(shared=False)
    await published(first, second)
    assert (database.runs, await redis.keys()) == (2, [])


async def test_no_cache_runs_here_and_is_shared_afterwards(nodes):
    first, second, database = nodes
    await first.value()
    await first.value(Directives(no_cache=True))
    assert database.runs == 2
    await published(first)
    assert (await second.value(), database.runs) == (0, 2)


async def test_time_bounds_a_shared_result_by_the_clock_of_the_server(nodes):
    first, second, database = nodes
    first.fresh_for_s = second.fresh_for_s = 60.0
    await first.value()
    await published(first)
    second.look(clock_ahead_s=59.0)
    entry = (await second.ask()).entry
    assert database.runs == 1
    assert 0 < entry.policy.fresh_until - time.monotonic() < 2
    assert time.monotonic() - entry.policy.made_at > 55
    second.look(clock_ahead_s=61.0)
    second.results.table.drop("metric")
    await second.value()
    assert database.runs == 2


async def test_a_dead_leader_is_followed_by_one_of_those_who_wait(nodes, redis, monkeypatch):
    monkeypatch.setattr(store_module, "LEASE_MS", 150)
    first, second, database = nodes
    name = name_of(LIFE, b"key")
    lease = lease_of(name, first.sharing.server_time() + 0.15, b"dead", LIFE)
    assert (await first.store.begin(name, lease))[1] == lease
    assert await asyncio.gather(first.value(), second.value()) == [0, 0]
    assert database.runs == 1


async def test_a_leader_holds_its_lease_while_a_long_run_goes_on(nodes, monkeypatch):
    monkeypatch.setattr(store_module, "LEASE_MS", 200)
    monkeypatch.setattr(sharing_module, "LEASE_MS", 200)
    monkeypatch.setattr(sharing_module, "BEAT_S", 0.04)
    beats = []
    first, second, database = nodes
    extend = first.store.extend

    async def counted(*args):
        await extend(*args)
        beats.append(args)

    first.store.extend = counted
    database.gate.clear()
    leading = asyncio.create_task(first.value())
    await until(lambda: database.runs)
    waiting = asyncio.create_task(second.value())
    await until(lambda: len(beats) >= 10)  # twice as long as a lease
    assert database.runs == 1
    database.gate.set()
    assert await asyncio.gather(leading, waiting) == [0, 0]
    assert database.runs == 1


async def test_a_leader_whose_callers_leave_or_whose_run_fails_is_followed_at_once(nodes, redis):
    first, second, database = nodes
    database.gate.clear()
    leading = asyncio.create_task(first.value())
    await until(lambda: database.runs)
    waiting = asyncio.create_task(second.value())
    leading.cancel()
    await until(lambda: second.own_runs)
    database.gate.set()
    assert await waiting == 0
    database.commit(first, second)
    await published(first, second)
    first.fails = True
    with pytest.raises(QueryFailed):
        await first.value()
    await published(first)
    assert await redis.get(name_of(LIFE, b"key") + b":lease") is None
    assert await second.value() == 1


async def test_nobody_waits_for_results_that_cannot_be_shared(nodes, redis):
    first, second, database = nodes
    first.fresh_for_s = second.fresh_for_s = 0.0
    await first.ask()
    await published(first)
    name = name_of(LIFE, b"key")
    assert (await redis.get(name), await redis.get(name + b":lease")) == (None, OPEN)
    await second.ask()
    assert database.runs == 2


def damage(sealed):
    yield b""
    yield b"\0"
    yield sealed[:-1]
    yield sealed[:40]
    yield sealed + b"x"
    yield sealed[:50] + bytes([sealed[50] ^ 1]) + sealed[51:]
    yield b"x" * len(sealed)
    yield seal(_result(), b"another secret")
    yield seal(msgspec.structs.replace(_result(), key=b"other"), LIFE)


def _result():
    snapshot = Snapshot(10**6, 10**6)
    proof = Proof(SERVER, snapshot, b"definitions")
    return SharedResult(b"key", proof, 0.0, None, 0, "application/json", 11, "", "", False, b'{"value":99}')


async def test_a_value_that_is_damaged_strange_or_of_another_key_counts_as_none(nodes, redis):
    first, second, database = nodes
    await first.value()
    await published(first)
    name = name_of(LIFE, b"key")
    sealed = await redis.get(name)
    assert open_sealed(sealed, b"key", LIFE) is not None
    for runs, bad in enumerate(damage(sealed), 2):
        second.results.table.drop("metric")
        await redis.set(name, bad)
        assert (await second.value(), database.runs) == (0, runs)
        await published(second)


def test_the_secret_is_not_in_the_value_and_the_layout_is_signed():
    sealed = seal(_result(), LIFE)
    assert LIFE not in sealed
    assert FORMAT
    assert open_sealed(sealed, b"key", LIFE).proof.incarnation == LIFE
    assert open_sealed(seal(_result(), LIFE), b"key", b"x" * 32) is None


class Broken:
    """A client whose server fails in some way, until it is mended."""

    def __init__(self, client, failure):
        self.client = client
        self.failure = failure
        self.calls = 0

    def pipeline(self, **options):
        inner = self.client.pipeline(**options)
        if self.failure is None:
            return inner
        self.calls += 1
        return Failing(inner, self.failure)


class Failing:
    def __init__(self, inner, failure):
        self.inner = inner
        self.failure = failure

    def execute_command(self, *command):
        self.inner.execute_command(*command)

    async def execute(self):
        if self.failure == "slow":
            await asyncio.Event().wait()
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure


@pytest.mark.parametrize(
    "failure",
    [ConnectionRefusedError(), ValueError("protocol"), "slow", [], [1, 2, 3, 4], None],
    ids=["away", "nonsense", "slow", "no answers", "too many answers", "well"],
)
async def test_a_store_that_fails_is_as_if_there_were_none(redis, failure):
    events = []
    broken = Broken(redis, failure)
    async with opened(broken, events=events) as (first, second, database):
        for node in (first, second):
            for _ in range(3):
                database.commit(first, second)
                assert await node.value() == database.value
        await published(first, second)
        lost = [event for event in events if isinstance(event, ConnectionLost)]
        assert len(lost) == (0 if failure is None else 2)
        state = first.sharing.state
        assert state == "ok" if failure is None else state.startswith("no answer from store:6379 (")
        broken.failure = None

        async def is_back():
            with suppress(StoreAway):
                await first.store.begin(b"name", b"token")
            return first.sharing.state == "ok"

        await until(is_back)
        if lost:
            assert events[-1] == ConnectionRestored("store")


@pytest.mark.parametrize(
    "answers",
    [
        [7, None, "leader"],
        [b"", None, b"leader"],
        [b"", None, lease_of(b"another name", 1e18, b"n", LIFE)],
        [b"", None, lease_of(name_of(LIFE, b"key"), 1e18, b"n", LIFE)],
        [b"", None, lease_of(name_of(LIFE, b"key"), 1.0, b"n", LIFE)],
        [b"", None, lease_of(name_of(LIFE, b"key"), time.time() + 1, b"n", b"x" * 32)],
        [b"", None, None],
    ],
)
async def test_a_store_that_invents_a_leader_holds_nobody_up(redis, answers):
    broken = Broken(redis, answers)
    async with opened(broken) as (first, _, database):
        assert await first.value() == 0
        assert (database.runs, broken.calls <= 2) == (1, True)


def test_a_lease_tells_its_end_to_those_who_know_the_secret():
    lease = lease_of(b"name", 12.5, b"nonce", LIFE)
    assert lease_ends_at(lease, b"name", LIFE) == 12.5
    assert lease_ends_at(lease, b"name", b"x" * 32) == 0
    assert lease_ends_at(lease, b"other", LIFE) == 0
    assert [lease_ends_at(lease[:n], b"name", LIFE) for n in (0, 7, 40)] == [0, 0, 0]


async def test_after_a_failure_only_one_caller_tries_again(redis):
    broken = Broken(redis, ConnectionRefusedError())
    async with opened(broken) as (first, _, _):
        for _ in range(50):
            with suppress(StoreAway):
                await first.store.begin(b"name", b"token")
        assert broken.calls <= 2


async def test_without_a_known_position_nothing_is_asked_of_the_store(redis):
    broken = Broken(redis, None)
    async with opened(broken) as (first, _, _):
        first.generations.proofs.incarnation = None
        assert await first.value() == 0
        assert await redis.keys() == []
        assert first.sharing.state.startswith("Postgres has not told")
