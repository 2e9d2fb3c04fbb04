"""Make the clients of redis-py, which is an optional dependency.

They never try again by themselves: whoever asks the store has a deadline. RESP2 is what each server speaks.
"""

from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from service.redis_url import RedisAddress

CONNECTIONS: Final = 16


def client_of(address: RedisAddress, *, deadline_s: float) -> Any:
    """A client for one server, for the primary behind Sentinel or for a Cluster. It connects later."""
    options: dict[str, Any] = {
        "socket_timeout": deadline_s,
        "socket_connect_timeout": deadline_s,
        "protocol": 2,
        "username": address.username,
        "password": address.password,
        "retry": Retry(NoBackoff(), 0),
        "max_connections": CONNECTIONS,
    }
    if address.kind == "one":
        return _one(address, options)
    if address.tls:
        options |= {"ssl": True, **address.options}
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
    options["db"] = address.database
    own = {name: value for name, value in options.items() if name.startswith(("socket", "protocol", "ssl"))}
    sentinel: Any = Sentinel(list(address.hosts), sentinel_kwargs=own | address.sentinel, **options)
    return sentinel.master_for(address.service)


def _one(address: RedisAddress, options: dict[str, Any]) -> Redis:
    options |= {"db": address.database, "timeout": options["socket_timeout"], **address.options}
    if address.path:
        options |= {"connection_class": UnixDomainSocketConnection, "path": address.path}
    else:
        host, port = address.hosts[0]
        kind = SSLConnection if address.tls else Connection
        options |= {"connection_class": kind, "host": host, "port": port}
    return Redis.from_pool(BlockingConnectionPool(**options))
