"""Make the clients of redis-py, which is an optional dependency.

They never try again by themselves. Their timeouts only end what no caller's deadline ends earlier.
RESP2 is what each server speaks.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from service.redis_url import RedisAddress

SENTINELS: Final = 5
"""So many may be asked in turn while one connects."""


def client_of(address: RedisAddress, *, connect_s: float, connections: int) -> Any:
    """A client for one server, for the primary behind Sentinel or for a Cluster. It connects later.

    It has up to so many connections to each server.
    """
    options: dict[str, Any] = {
        "socket_timeout": connect_s,
        "socket_connect_timeout": connect_s,
        "protocol": 2,
        "username": address.username,
        "password": address.password,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": connections,
    }
    if address.kind == "one":
        return _one(address, options)
    if address.tls:
        options |= {"ssl": True, **address.options}
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
    options["db"] = address.database
    own = {name: value for name, value in options.items() if name.startswith(("protocol", "ssl"))}
    own |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), connect_s / SENTINELS)
    sentinel: Any = Sentinel(list(address.hosts), sentinel_kwargs=own | address.sentinel, **options)
    client = sentinel.master_for(address.service, redis_class=_BehindSentinel)
    client.sentinels = sentinel.sentinels
    return client


def _one(address: RedisAddress, options: dict[str, Any]) -> Redis:
    options |= {"db": address.database, "timeout": options["socket_timeout"], **address.options}
    if address.path:
        options |= {"connection_class": UnixDomainSocketConnection, "path": address.path}
    else:
        host, port = address.hosts[0]
        kind = SSLConnection if address.tls else Connection
        options |= {"connection_class": kind, "host": host, "port": port}
    return Redis.from_pool(BlockingConnectionPool(**options))


class _BehindSentinel(Redis):
    """A client that also closes the connections to Sentinel, which the library leaves open."""

    sentinels: Sequence[Redis] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 (theirs)
        await super().aclose(close_connection_pool)
        for each in self.sentinels:
            await each.aclose()
