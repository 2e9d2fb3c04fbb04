"""One execution per key, shared by callers that wait, leave or get its error."""

import asyncio
from time import monotonic

import pytest

from service.errors import DatabaseUnavailable, QueryFailed
from service.results.single_flight import REMEMBER_ERROR_S, SingleFlight


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Query:
    """Runs until `done` is set. Counts its runs, running executions and cancellations."""

    def __init__(self):
        self.runs = 0
        self.running = 0
        self.cancelled = 0
        self.done = asyncio.Event()
        self.error = None

    async def __call__(self):
        self.runs += 1
        self.running += 1
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.error:
            raise self.error
        return f"answer {self.runs}"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def flights(clock):
    found = SingleFlight(clock)
    yield found
    await found.close()


@pytest.fixture
def query():
    return Query()


def anything(_started_at):
    return True


def nothing(_started_at):
    return False


async def start_callers(flights, query, *, count=1, accepts=anything, afresh=False):
    """Start callers that wait for the query's result."""
    callers = [asyncio.create_task(flights.take("k", query, accepts, afresh=afresh)) for _ in range(count)]
    await turns()
    return callers


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_thousand_callers_cost_one_execution(flights, query):
    callers = await start_callers(flights, query, count=1000)
    query.done.set()
    answers = await asyncio.gather(*callers)
    assert query.runs == 1
    assert {answer for answer, _ in answers} == {"answer 1"}
    assert [joined for _, joined in answers].count(False) == 1


async def test_the_first_caller_may_leave(flights, query):
    first, *others = await start_callers(flights, query, count=3)
    first.cancel()
    await turns()
    query.done.set()
    assert {answer for answer, _ in await asyncio.gather(*others)} == {"answer 1"}
    assert query.cancelled == 0


async def test_the_last_caller_to_leave_cancels_the_flight(flights, query):
    callers = await start_callers(flights, query, count=3)
    for caller in callers:
        assert query.cancelled == 0
        caller.cancel()
        await turns()
    assert query.cancelled == 1
    assert len(flights) == 0


async def test_a_caller_during_a_cancellation_starts_a_new_run(flights, query):
    (leaving,) = await start_callers(flights, query)
    leaving.cancel()
    (coming,) = await start_callers(flights, query)
    query.done.set()
    assert (await coming)[0] == "answer 2"


async def test_an_error_reaches_all_waiters_and_is_remembered_for_a_moment(flights, query, clock):
    callers = await start_callers(flights, query, count=5)
    query.error = QueryFailed("no such table")
    query.done.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert outcomes == [query.error] * 5
    with pytest.raises(QueryFailed):
        await flights.take("k", query, anything, afresh=False)
    assert query.runs == 1
    query.error = None
    assert await flights.take("k", query, anything, afresh=True) == ("answer 2", False)
    query.error = QueryFailed("again")
    with pytest.raises(QueryFailed):
        await flights.take("k", query, anything, afresh=False)
    query.error = None
    clock.now += REMEMBER_ERROR_S
    assert await flights.take("k", query, anything, afresh=False) == ("answer 4", False)


async def test_a_remembered_error_reaches_only_callers_that_accept_its_flight(flights, query):
    query.error = QueryFailed("division by zero")
    query.done.set()
    with pytest.raises(QueryFailed):
        await flights.take("k", query, anything, afresh=False)
    query.error = None
    assert await flights.take("k", query, nothing, afresh=False) == ("answer 2", False)


async def test_a_remembered_loss_of_the_database_reaches_every_caller(flights, query):
    query.error = DatabaseUnavailable()
    query.done.set()
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await flights.take("k", query, nothing, afresh=False)
        flights.refresh("k", query, nothing)
        await turns()
    assert query.runs == 1


async def test_callers_that_reject_a_flight_share_the_next(flights, query):
    outdated = await start_callers(flights, query)
    started = []

    def late(at):
        started.append(at)
        return len(started) > 3

    callers = await start_callers(flights, query, count=3, accepts=late)
    query.done.set()
    answers = await asyncio.gather(*callers)
    assert (await outdated[0])[0] == "answer 1"
    assert {answer for answer, _ in answers} == {"answer 2"}
    assert query.runs == 2


async def test_a_caller_waits_for_at_most_two_flights(flights, query):
    """`accepts` is not called for a flight that the caller starts."""
    await start_callers(flights, query)
    (caller,) = await start_callers(flights, query, accepts=nothing)
    query.done.set()
    assert await caller == ("answer 2", False)


async def test_a_refresh_runs_on_without_callers(flights, query):
    flights.refresh("k", query, anything)
    (caller,) = await start_callers(flights, query)
    caller.cancel()
    await turns()
    assert (query.runs, query.cancelled) == (1, 0)


async def test_a_refresh_keeps_a_flight_that_its_callers_leave(flights, query):
    (caller,) = await start_callers(flights, query)
    flights.refresh("k", query, anything)
    caller.cancel()
    await turns()
    assert query.cancelled == 0


async def test_many_refreshes_during_a_run_become_one_after_it(flights, query):
    flights.refresh("k", query, anything)
    await turns()
    for _ in range(100):
        flights.refresh("k", query, nothing)
    assert query.runs == 1
    query.done.set()
    await turns()
    assert query.runs == 2
    assert len(flights) == 0


async def test_no_refresh_follows_a_failure_at_once(flights, query):
    query.error = QueryFailed("broken")
    query.done.set()
    flights.refresh("k", query, anything)
    await turns()
    flights.refresh("k", query, anything)
    await turns()
    assert query.runs == 1


async def take_at_its_end(flights, query, accepts):
    """Take when the execution has ended but its flight has not finished."""
    await query.done.wait()
    query.done.clear()
    assert [flight.task.done() for flight in flights._running.values()] == [True]
    return await flights.take("k", query, accepts, afresh=False)


@pytest.mark.parametrize("accepts", [anything, nothing])
async def test_a_caller_at_the_end_of_a_flight_joins_the_next_run(flights, query, accepts):
    flights.refresh("k", query, anything)
    await turns()
    flights.refresh("k", query, nothing)
    caller = asyncio.create_task(take_at_its_end(flights, query, accepts))
    await turns()
    query.done.set()
    await turns()
    assert (query.runs, query.running) == (2, 1)
    query.done.set()
    await caller
    await turns()
    assert len(flights) == 0


async def test_a_caller_at_the_end_of_a_failed_flight_gets_its_error(flights, query):
    query.error = QueryFailed("broken")
    flights.refresh("k", query, anything)
    await turns()
    caller = asyncio.create_task(take_at_its_end(flights, query, anything))
    await turns()
    query.done.set()
    await turns()
    assert query.runs == 1
    with pytest.raises(QueryFailed):
        await caller


async def test_closing_cancels_flights_and_their_waiters_get_503(query):
    flights = SingleFlight(monotonic)
    (caller,) = await start_callers(flights, query)
    flights.refresh("k", query, nothing)
    await flights.close()
    outcome = (await asyncio.gather(caller, return_exceptions=True))[0]
    assert outcome.status == 503
    assert (query.runs, query.cancelled, len(flights)) == (1, 1, 0)


async def test_keys_do_not_wait_for_each_other(flights, query):
    await start_callers(flights, query)
    other = Query()
    other.done.set()
    assert await flights.take("other", other, anything, afresh=False) == ("answer 1", False)
