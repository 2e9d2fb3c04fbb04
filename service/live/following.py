"""What a watch follows."""

from service.live.hub import Watch
from service.metrics.catalog import Catalog
from service.metrics.execute import Executor
from service.results.cache import CacheRequest


async def live_request(metrics: Catalog, executor: Executor, watch: Watch) -> CacheRequest:
    """The cache request of a watch. On a stream of many metrics each takes the parameters that it knows."""
    metric, given = metrics.get(watch.metric_id), watch.given
    if watch.connection.many and isinstance(given, list):
        accepted = (await executor.prepare(metric)).template.accepted
        given = [pair for pair in given if pair[0] in accepted]
    return await executor.cache_request(metric, given, claims=watch.connection.claims)
