"""What a watch follows."""

from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from service.errors import FieldError, InvalidInput, NotFound, Problem
from service.live.hub import Watch
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.results.requests import CacheRequest
from service.sql.parameters import label

MOST_ERRORS: Final = 20


async def live_request(metrics: Catalog, executor: Executor, watch: Watch) -> CacheRequest:
    """The cache request of a watch. On a stream of many metrics each takes the parameters that it knows."""
    metric, given = metrics.get(watch.metric_id), watch.given
    if watch.connection.many and isinstance(given, list):
        accepted = (await executor.prepare(metric)).template.accepted
        given = [pair for pair in given if pair[0] in accepted]
    return await executor.cache_request(metric, given, claims=watch.connection.claims)


async def check_names(
    metrics: Catalog, executor: Executor, ids: Sequence[UUID], names: Sequence[str]
) -> None:
    """Refuse names that are given twice, and those that no metric of the list takes."""
    twice = [name for name, times in Counter(names).items() if times > 1]
    _refuse(twice, "given twice")
    unknown = dict.fromkeys(names)
    for each in ids:
        if not unknown:
            return
        try:
            accepted = (await executor.prepare(metrics.get(each))).template.accepted
        except NotFound:  # deleted: its watch tells so
            continue
        except Problem:  # what it takes shows when it can be planned
            return
        for name in accepted:
            unknown.pop(name, None)
    _refuse([*unknown], "no metric of the list takes it")


def _refuse(names: Sequence[str], why: str) -> None:
    if names:
        raise InvalidInput(errors=tuple([FieldError(label(name), why) for name in names[:MOST_ERRORS]]))
