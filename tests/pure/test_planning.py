"""Who may wait for the plan of a new statement, and whose turn it is."""

import asyncio
from uuid import UUID

import pytest

from service.errors import Busy
from service.http.current_caller import current_caller
from service.metrics import planning
from service.metrics.planning import TURNS, Planning

METRIC = UUID(int=1)


class FullReader:
    """A reader that refuses runs while it is `full`, and counts who was refused for want of a turn."""

    def __init__(self):
        self.full = False
        self.refused = 0

    def refuse(self, _metric, *, runs):
        assert not runs
        if self.full:
            raise Busy

    def count_refused(self):
        self.refused += 1


def planner(limit=4, *, held=False):
    reader = FullReader()
    return reader, Planning(reader, limit, lambda _metric: held)


async def named(caller, what):
    current_caller.set(caller)
    return await what


def begin(caller, what):
    return asyncio.create_task(named(caller, what))


async def wait_in(queue, opened):
    with queue.place(METRIC):
        await opened.wait()


async def take_turn(queue, order, name, opened):
    async with queue.turn(METRIC):
        order.append(name)
        await opened.wait()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def outcomes(tasks):
    return [task.exception() if task.done() else None for task in tasks]


async def test_past_the_limit_is_refused_at_once_but_not_who_has_less_than_its_share():
    reader, queue = planner()
    opened = asyncio.Event()
    hogs = [begin("hog", wait_in(queue, opened)) for _ in range(6)]
    await settled()
    assert [isinstance(each, Busy) for each in outcomes(hogs)] == [False] * 4 + [True] * 2
    assert reader.refused == 2
    others = [begin(caller, wait_in(queue, opened)) for caller in ("bob", "eve", "bob", "bob", None, None)]
    await settled()
    assert [isinstance(each, Busy) for each in outcomes(others)] == [False] * 2 + [True] * 2 + [False] * 2
    opened.set()
    await asyncio.gather(*hogs, *others, return_exceptions=True)
    again = begin("hog", wait_in(queue, opened))
    await again


@pytest.mark.parametrize("held", [True, False])
async def test_who_would_be_refused_later_is_refused_before_the_plan_unless_a_result_is_held(held):
    reader, queue = planner(held=held)
    reader.full = True
    opened = asyncio.Event()
    opened.set()
    tasks = [begin("ann", wait_in(queue, opened)), begin("ann", take_turn(queue, [], "ann", opened))]
    await settled()
    assert [isinstance(each, Busy) for each in outcomes(tasks)] == [not held] * 2


async def test_callers_take_turns():
    _, queue = planner()
    order, opened = [], asyncio.Event()
    names = ["hog"] * (TURNS + 3) + ["bob", None]
    tasks = [begin(name, take_turn(queue, order, name, opened)) for name in names]
    await settled()
    assert order == ["hog"] * TURNS
    opened.set()
    await asyncio.gather(*tasks)
    assert order[TURNS:] == ["hog", "bob", None, "hog", "hog"]


async def test_a_turn_is_passed_on_by_whoever_leaves():
    _, queue = planner()
    order, opened = [], asyncio.Event()
    held = [begin("ann", take_turn(queue, order, "held", opened)) for _ in range(TURNS)]
    leaver, stays = (begin(name, take_turn(queue, order, name, opened)) for name in ("leaver", "stays"))
    await settled()
    held[0].cancel()
    await asyncio.sleep(0)  # the turn is the leaver's now, who has not run yet
    leaver.cancel()
    await settled()
    assert order == ["held"] * TURNS + ["stays"]
    waiting = begin("bob", take_turn(queue, order, "bob", opened))
    await settled()
    waiting.cancel()
    opened.set()
    await asyncio.gather(*held, leaver, stays, waiting, return_exceptions=True)
    await take_turn(queue, order, "last", opened)
    assert order[-1] == "last"


async def test_nobody_waits_longer_than_its_patience(monkeypatch):
    monkeypatch.setattr(planning, "QUEUE_WAIT_S", 0.0)
    reader, queue = planner()
    opened = asyncio.Event()
    held = [begin("ann", take_turn(queue, [], "held", opened)) for _ in range(TURNS)]
    late = begin("bob", take_turn(queue, [], "late", opened))
    with pytest.raises(Busy):
        await late
    assert reader.refused == 1
    opened.set()
    await asyncio.gather(*held)


async def test_who_will_not_get_a_turn_in_time_is_told_as_soon_as_turns_are_known_to_be_slow(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(planning, "monotonic", lambda: now[0])
    reader, queue = planner(100)
    gates = [asyncio.Event() for _ in range(30)]
    tasks = [begin("hog", take_turn(queue, [], number, gate)) for number, gate in enumerate(gates)]
    light = begin("bob", take_turn(queue, [], "bob", gates[0]))
    await settled()
    now[0] += 1.0
    gates[0].set()
    gates[1].set()  # two turns took a second each
    await settled()
    assert reader.refused == 30 - TURNS - 1 + 1 - TURNS * planning.QUEUE_WAIT_S
    assert light.done()
    assert light.exception() is None
    for gate in gates:
        gate.set()
    assert sum(isinstance(each, Busy) for each in await asyncio.gather(*tasks, return_exceptions=True))
