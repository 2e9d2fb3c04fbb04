"""A caller who demands a new run gets no cached result as if it were one."""

from itertools import count

import pytest

from service.errors import Busy, DatabaseUnavailable, Problem
from service.http.fields import ANY, Directives
from service.results.cache import Results
from service.results.freshness import Generations
from service.results.requests import Computed
from service.results.table import ResultTable
from tests.pure.lookup import Lookup
from tests.pure.test_results_model import ROOM, WAIT_S


async def test_a_forced_run_that_fails_marks_the_cached_result_as_stale():
    generations = Generations()
    generations.heard(0.0)
    ticks = count(1000)
    results = Results(
        generations, ResultTable(ROOM), lambda: float(next(ticks)), wait_s=WAIT_S, stale_if_error_s=10_000
    )
    outcomes = iter([Computed(b"1", "", 1), DatabaseUnavailable(), Busy()])

    async def run():
        outcome = next(outcomes)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    await results.get(Lookup("key", "owner", ("data.a",), 10_000, compute=run), ANY)
    with pytest.raises(DatabaseUnavailable):
        await results.get(Lookup("other", "owner", ("data.a",), 10_000, compute=run), ANY)
    forced = await results.get(
        Lookup("key", "owner", ("data.a",), 10_000, compute=run), Directives(no_cache=True)
    )
    assert forced.stale_s >= 1
    await results.close()
