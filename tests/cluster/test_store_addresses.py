"""Each kind of REDIS_URL against real servers: Valkey, TLS, a primary behind Sentinel, a Cluster."""

import asyncio
import datetime as dt
import ipaddress
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.errors import Stop
from service.observe.events import ConnectionLost
from service.results.store import AT_ONCE, StoreAway, open_store
from service.settings import Nodes, Settings
from service.setup.machine import check_machine
from tests.cluster.conftest import Store, clustered, running_nodes, running_store, stored
from tests.cluster.test_shared_results import ADD, COUNT, heard, shared_again
from tests.processes import free_port
from tests.programs import program
from tests.waiting import eventually, until

SERVICE = "tally"


def told(url: str) -> list[str]:
    """What `tally doctor` finds about the store."""
    settings = msgspec.structs.replace(Settings(), nodes=Nodes(redis_url=url))
    return [finding.message for finding in check_machine(settings, {}) if finding.check == "store"]


async def test_valkey_is_a_store_like_redis(settings, clone, tmp_path):
    with running_store(tmp_path / "valkey", server="valkey-server") as valkey:
        assert valkey.ask("INFO", "server")["server_name"] == "valkey"
        async with running_nodes(clustered(settings, redis_url=valkey.url)) as nodes:
            metric = await stored(nodes, clone, COUNT)
            await heard(nodes, metric, 0)
            for number in range(1, 6):
                before = sum(node.runs for node in nodes)
                await clone.write(ADD, number)
                await heard(nodes, metric, number)
                assert sum(node.runs for node in nodes) == before + 1
            valkey.kill()
            await clone.write(ADD, 6)
            await heard(nodes, metric, 6)
            valkey.start()
            await shared_again(nodes, clone, metric, count(7))


# TLS


def certificates(folder: Path, *, host: str = "127.0.0.1") -> tuple[Path, Path, Path]:
    """An authority's certificate, and the certificate and key that it gives a server."""
    folder.mkdir()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]
    now = dt.datetime.now(dt.UTC)
    paths = [folder / name for name in ("ca.pem", "server.pem", "server.key")]
    for is_server in (False, True):
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
        constraints = x509.BasicConstraints(ca=not is_server, path_length=None)
        builder = (
            x509.CertificateBuilder(names[0], names[is_server], keys[is_server].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(constraints, critical=True)
        )
        if is_server:
            builder = builder.add_extension(alternative, critical=False)
        made = builder.sign(keys[0], hashes.SHA256())
        paths[is_server].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[2].write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths[0], paths[1], paths[2]


@contextmanager
def tls_store(folder: Path, **options: str) -> Generator[Store]:
    ca, certificate, key = certificates(folder / "certificates", **options)
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(ca))
    with running_store(folder / "store", *files, "--tls-auth-clients", "no", ca=ca) as store:
        yield store


async def test_nodes_share_through_tls(settings, clone, tmp_path):
    with tls_store(tmp_path) as store:
        async with running_nodes(clustered(settings, redis_url=store.url)) as nodes:
            metric = await stored(nodes, clone, COUNT)
            await heard(nodes, metric, 0)
            assert sum(node.runs for node in nodes) == 1
            await clone.write(ADD, 1)
            await heard(nodes, metric, 1)
            assert sum(node.runs for node in nodes) == 2
        assert await asyncio.to_thread(told, store.url) == ["fine"]


async def test_a_certificate_that_is_not_trusted_is_refused_and_told(tmp_path):
    other, _, _ = certificates(tmp_path / "others")
    events = []
    with tls_store(tmp_path) as store:
        wrong = f"{store.url.partition('?')[0]}?ssl_ca_certs={other}"
        client = open_store(wrong, events.append)
        await client.connect()
        await client.aclose()
        told_by_doctor = await asyncio.to_thread(told, wrong)
    why = "its certificate is not trusted: "
    assert [type(event) for event in events] == [ConnectionLost]
    assert events[0].why.startswith(why)
    assert told_by_doctor == [f"no answer from 127.0.0.1:{store.port} ({events[0].why}): nothing is shared"]


def test_a_file_that_the_address_names_and_nobody_can_read_is_told_at_the_start(tmp_path):
    path = tmp_path / "absent.pem"
    with pytest.raises(Stop, match=f"REDIS_URL: ssl_ca_certs: cannot read {path}: No such file"):
        open_store(f"rediss://127.0.0.1:1/0?ssl_ca_certs={path}")


# Sentinel


class Watched:
    """A primary, its replica, and a Sentinel that promotes the replica."""

    def __init__(self, primary: Store, replica: Store, sentinel: Store) -> None:
        self.primary = primary
        self.replica = replica
        self.sentinel = sentinel

    @property
    def url(self) -> str:
        return f"redis+sentinel://:word@127.0.0.1:{self.sentinel.port}/{SERVICE}?sentinel_password=word"


@contextmanager
def watched(folder: Path) -> Generator[Watched]:
    with ExitStack() as stack:
        primary = stack.enter_context(running_store(folder / "primary"))
        follows = ("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
        replica = stack.enter_context(running_store(folder / "replica", *follows))
        eventually(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up")
        sentinel = Store(folder / "sentinel")
        sentinel.folder.mkdir()
        config = sentinel.folder / "sentinel.conf"
        config.write_text(
            f"port {sentinel.port}\nbind 127.0.0.1\nrequirepass word\ndir {sentinel.folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1\n"
            f"sentinel auth-pass {SERVICE} word\n"
            f"sentinel down-after-milliseconds {SERVICE} 300\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        sentinel.process = subprocess.Popen(
            [program("redis-server"), str(config), "--sentinel"],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.callback(sentinel.kill)

        def knows_replica() -> bool:
            try:
                return len(sentinel.ask("SENTINEL", "REPLICAS", SERVICE)) == 1
            except redis.RedisError:
                return False

        eventually(knows_replica)
        yield Watched(primary, replica, sentinel)


async def test_the_primary_that_sentinel_promotes_is_used_and_until_then_nobody_shares(
    settings, clone, tmp_path
):
    with watched(tmp_path) as stores:
        async with running_nodes(clustered(settings, redis_url=stores.url)) as nodes:
            metric = await stored(nodes, clone, COUNT)
            await heard(nodes, metric, 0)
            await clone.write(ADD, 1)
            await heard(nodes, metric, 1)
            assert sum(node.runs for node in nodes) == 2
            stores.sentinel.halt()  # so that nobody is promoted meanwhile
            stores.primary.kill()
            for number in range(2, 5):
                await clone.write(ADD, number)
                await heard(nodes, metric, number)
            assert "nothing is shared" in await nodes[0].sharing()
            stores.sentinel.resume()
            await until(lambda: is_primary(stores.replica))
            await shared_again(nodes, clone, metric, count(5))
            assert stores.replica.ask("DBSIZE") > 0
            assert await asyncio.to_thread(told, stores.url) == ["fine"]


def is_primary(store: Store) -> bool:
    return store.ask("INFO", "replication")["role"] == "master"


# Cluster


@contextmanager
def cluster(folder: Path, number: int = 3) -> Generator[list[Store]]:
    """Servers that share the slots, without replicas."""
    with ExitStack() as stack:
        stores = []
        for each in range(number):
            further = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
            further += ("--cluster-require-full-coverage", "no", "--cluster-port", str(free_port()))
            stores.append(stack.enter_context(running_store(folder / f"store{each}", *further)))
        subprocess.run(
            [
                *(program("redis-cli"), "-a", "word", "--cluster", "create"),
                *(f"127.0.0.1:{store.port}" for store in stores),
                "--cluster-yes",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        for store in stores:
            eventually(lambda store=store: "cluster_state:ok" in str(store.ask("CLUSTER", "INFO")))
        yield stores


def address_of(stores: list[Store]) -> str:
    return "redis+cluster://:word@" + ",".join(f"127.0.0.1:{store.port}" for store in stores)


async def test_nodes_share_through_a_cluster_whose_servers_come_and_go(settings, clone, tmp_path):
    with cluster(tmp_path) as stores:
        url = address_of(stores)
        async with running_nodes(clustered(settings, redis_url=url)) as nodes:
            metrics = []
            while len(metrics) < 12 or not all(store.ask("DBSIZE") for store in stores):
                metrics.append(await stored(nodes, clone, f"{COUNT} WHERE customer_id > -{len(metrics)}"))
                await heard(nodes, metrics[-1], 0)
                await until(lambda: sum(store.ask("DBSIZE") for store in stores) == len(metrics))
            assert sum(node.runs for node in nodes) == len(metrics)
            stores[1].kill()
            for number in range(1, 4):
                await clone.write(ADD, number)
                for metric in metrics:
                    await heard(nodes, metric, number)
            stores[1].start()
            customers = count(4)
            for metric in metrics:
                await shared_again(nodes, clone, metric, customers)
        assert await asyncio.to_thread(told, url) == ["fine"]


@pytest.mark.parametrize("kind", ["one", "sentinel", "cluster"])
async def test_more_misses_at_once_than_connections_are_no_failure_of_the_store(tmp_path, kind):
    """The clients for Sentinel and Cluster raise when all of their connections are in use."""
    events = []
    with ExitStack() as stack:
        if kind == "one":
            url = stack.enter_context(running_store(tmp_path / "store")).url
        elif kind == "sentinel":
            url = stack.enter_context(watched(tmp_path)).url
        else:
            url = address_of(stack.enter_context(cluster(tmp_path)))
        client = open_store(url, events.append)
        await client.connect()
        names = [b"tally:{%d}" % number for number in range(AT_ONCE * 4)]
        await until(lambda: all_begin(client, names, events))
        await client.aclose()


async def all_begin(client, names: list[bytes], events: list) -> bool:
    """Whether all lease at once; a busy machine may need more than the deadline, but no error may come."""
    with suppress(StoreAway):
        await asyncio.gather(*(client.begin(name, b"lease") for name in names))
        return True
    assert {event.why for event in events if isinstance(event, ConnectionLost)} <= {"no answer in time"}
    return False
