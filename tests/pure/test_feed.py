"""Subscriptions: no change is missed, and a slow subscriber gets one merged change."""

import asyncio
from functools import partial
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.results.feed import MERGED_TABLES, Change
from service.results.freshness import Generations
from tests.waiting import until

TABLES = st.sampled_from(["data.a", "data.b", 'data."odd name"'])
STEPS = st.one_of(
    st.tuples(st.just("announced"), TABLES),
    st.tuples(st.just("moved"), TABLES),
    st.tuples(st.just("redefined"), st.sampled_from(["metric", "other"])),
    st.tuples(st.sampled_from(["silent", "heard", "renew", "poll_fails", "polled", "subscribe"]), st.none()),
    st.tuples(st.sampled_from(["take", "close"]), st.integers(0, 5)),
)


class Subscriber:
    """A subscription, and what it must have been told by its next change."""

    def __init__(self, generations, tables):
        self.subscription = generations.feed.subscribe(tables, ["metric"])
        self.tables = tables
        self.due, self.renewed, self.told_silence = set(), False, None

    def take(self, generations):
        change = self.subscription.take()
        silent_since = generations.silent_since
        if change is None:
            assert (self.due, self.renewed, self.told_silence) == (set(), False, silent_since)
        else:
            told = change.tables | change.redefined
            assert told == self.due
            assert change.renewed is self.renewed
            assert change.silent_since == silent_since
        self.due, self.renewed, self.told_silence = set(), False, silent_since


@given(
    tables=st.lists(st.one_of(st.none(), st.sets(TABLES)), min_size=1, max_size=3),
    steps=st.lists(STEPS, max_size=40),
    names=st.sampled_from([2, 100]),
)
@settings(max_examples=300)
def test_no_change_is_missed(tables, steps, names):
    """Whatever happens in whatever order, each subscriber is told of all that concerns it, once."""
    generations = Generations(names=names)
    subscribers = [Subscriber(generations, each) for each in tables]
    for now, (step, subject) in enumerate(steps):
        epoch = generations.epoch
        if step == "subscribe":
            subscribers.append(Subscriber(generations, tables[0]))
        elif step in {"take", "close"} and subscribers:
            subscriber = subscribers[subject % len(subscribers)]
            subscriber.take(generations)
            if step == "close":
                subscriber.subscription.close()
                subscribers.remove(subscriber)
        else:
            happen(generations, step, subject, float(now))
        for each in subscribers:
            if step in {"announced", "moved"} and (each.tables is None or subject in each.tables):
                each.due.add(subject)
            if step == "redefined" and subject == "metric":
                each.due.add(subject)
            if generations.epoch != epoch:
                each.renewed = True
        assert len(generations.feed) == len(subscribers)
    for each in subscribers:
        each.take(generations)
        assert each.subscription.take() is None
        each.subscription.close()
    assert generations.feed._by_name == {}


def happen(generations, step, subject, now):
    match step:
        case "announced":
            generations.announced(f"{subject} 7", now)
        case "moved":
            generations.moved(subject, now)
        case "redefined":
            generations.feed.redefined([subject])
        case "silent":
            generations.silent(now)
        case "heard":
            generations.heard(now)
        case "renew":
            generations.renew(now)
        case "poll_fails":
            generations.silent(now, "poll")
        case "polled":
            generations.polled()


@pytest.fixture
def generations():
    found = Generations()
    found.heard(0.0)
    return found


async def test_a_waiting_subscriber_hears_of_a_change_when_no_older_result_is_fresh(generations):
    basis = generations.of(["data.a"])
    with generations.feed.subscribe(["data.a"]) as subscription:
        waiting = asyncio.create_task(anext(subscription))
        await until(partial(waits, waiting))
        with generations.feed.subscribe(["data.b"]) as other:
            generations.announced("data.b 1", 1.0)
            await anext(other)
        assert not waiting.done()
        generations.announced("data.a 2", 1.0)
        assert await waiting == Change(frozenset(["data.a"]))
        assert not generations.stands(basis)


async def test_a_cancelled_wait_loses_no_change(generations):
    with generations.feed.subscribe(["data.a"]) as subscription:
        waiting = asyncio.create_task(anext(subscription))
        await until(partial(waits, waiting))
        generations.announced("data.a 2", 1.0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await anext(subscription)).tables == {"data.a"}


async def test_a_closed_subscription_ends_its_iteration(generations):
    subscription = generations.feed.subscribe(["data.a"])
    heard = []
    collecting = asyncio.create_task(collect(subscription, heard))
    await until(partial(waits, collecting))
    generations.announced("data.a 1", 1.0)
    await until(lambda: heard)
    subscription.close()
    await collecting
    assert [change.tables for change in heard] == [{"data.a"}]


async def collect(subscription, heard):
    async for change in subscription:
        heard.append(change)


def waits(task):
    """Whether a task has begun and waits for something."""
    return task._fut_waiter is not None


def test_a_subscriber_to_all_tables_keeps_a_limited_number_of_names(generations):
    subscription = generations.feed.subscribe(None)
    for number in range(2 * MERGED_TABLES):
        generations.announced(f"data.t{number} 1", 1.0)
    change = subscription.take()
    assert (len(change.tables), change.renewed) == (MERGED_TABLES, True)


def test_a_present_silence_is_told_at_once():
    assert Generations().feed.subscribe([]).take() == Change(silent_since=-inf)
