"""Stored SQL on hot standbys: real replication, replay that pauses, standbys that die or are promoted."""

import asyncio
from contextlib import asynccontextmanager
from itertools import count

import msgspec
import psycopg
import pytest

from service.database.gateway import open_database
from service.database.migrate import migrate
from service.settings import Auth, Database, Nodes, Settings
from tests.cluster.conftest import Node, running_nodes, stored
from tests.cluster.servers import replicated
from tests.processes import open_folder
from tests.waiting import until

COUNT = "SELECT count(*) AS value FROM customers"
WHERE = "SELECT inet_server_port() AS value FROM customers"
ADD = "INSERT INTO data.customers (customer_id, occupation, type) VALUES (%s, 'x', 'y')"


class Cluster:
    def __init__(self, servers, settings):
        self.primary, *self.standbys = servers
        self.settings = settings

    async def until_run_by(self, node, place, *servers):
        """Change the table until one of these servers has run the statement that tells its port."""
        numbers = count(1_000_000)

        async def ran() -> bool:
            self.write(ADD, next(numbers))
            return await node.value(place) in {server.port for server in servers}

        await until(ran)
        self.write("DELETE FROM data.customers WHERE customer_id >= 1000000")

    def write(self, sql, *values):
        with psycopg.connect(self.primary.url(), autocommit=True) as owner:
            owner.execute(sql, values or None)


@pytest.fixture(params=[1])
def servers(request, tmp_path_factory):
    with open_folder() as folder, replicated(folder / "servers", request.param) as started:
        yield started


@pytest.fixture
async def cluster(servers, tmp_path):
    primary, *standbys = servers
    primary.ask("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    primary.ask("CREATE DATABASE tally")
    reader = [server.url("reader", "reader") for server in servers]
    await asyncio.to_thread(migrate, primary.url(), reader[0], ("data",))
    for standby in standbys:
        await asyncio.to_thread(standby.caught_up, primary)
    database = Database(
        url=primary.url(),
        reader_url=reader[0],
        replica_urls=tuple(reader[1:]),
        data_dir=tmp_path,
        statement_timeout_ms=60_000,
    )
    return Cluster(servers, Settings(database=database, auth=Auth(mode="off")))


@asynccontextmanager
async def one_node(cluster, **nodes):
    settings = msgspec.structs.replace(cluster.settings, nodes=Nodes(**nodes))
    async with running_nodes(settings, 1) as (node,):
        await until(lambda: standbys_are(node, "ok"))
        yield node


async def standbys_are(node: Node, state: str) -> bool:
    checks = (await node.client.get("/health")).json()["checks"]
    return state in checks["standbys"]


async def made(cluster, node: Node, sql: str) -> str:
    async with open_database(cluster.primary.url()) as owner:
        return await stored([node], owner, sql, trusted=True)


async def shows(node: Node, metric: str, value) -> bool:
    return await node.value(metric) == value


async def test_stored_sql_runs_on_the_standby_and_shows_each_change(cluster):
    (standby,) = cluster.standbys
    async with one_node(cluster) as node:
        metric, place = await made(cluster, node, COUNT), await made(cluster, node, WHERE)
        cluster.write(ADD, 1)
        await cluster.until_run_by(node, place, standby)
        for number in range(2, 20):
            cluster.write(ADD, number)
            await until(lambda number=number: shows(node, metric, number))
        fresh = await node.value(place, headers={"Cache-Control": "no-cache"})
        assert fresh == cluster.primary.port


async def test_a_standby_that_lags_gives_no_answer_and_is_used_again_when_it_has_caught_up(cluster):
    (standby,) = cluster.standbys
    async with one_node(cluster) as node:
        metric, place = await made(cluster, node, COUNT), await made(cluster, node, WHERE)
        cluster.write(ADD, 1)
        await cluster.until_run_by(node, place, standby)
        await asyncio.to_thread(standby.pause)
        for number in range(2, 6):
            cluster.write(ADD, number)
            await until(lambda number=number: shows(node, metric, number))
            await cluster.until_run_by(node, place, cluster.primary)
        assert await standbys_are(node, "it lags")
        standby.resume()
        await until(lambda: standbys_are(node, "ok"))
        cluster.write(ADD, 6)
        await cluster.until_run_by(node, place, standby)


async def test_a_long_transaction_on_the_primary_does_not_keep_the_standby_from_answering(cluster):
    (standby,) = cluster.standbys
    with psycopg.connect(cluster.primary.url()) as long:
        long.execute("CREATE TEMP TABLE own AS SELECT pg_current_xact_id()")
        async with one_node(cluster) as node:
            metric, place = await made(cluster, node, COUNT), await made(cluster, node, WHERE)
            for number in range(1, 10):
                cluster.write(ADD, number)
                await until(lambda number=number: shows(node, metric, number))
                await cluster.until_run_by(node, place, standby)
        long.rollback()


async def test_a_transaction_that_the_standby_has_not_finished_does_not_count_as_seen(cluster):
    """A standby's snapshot does not list who is running, so numbers below its `xmax` must be asked for."""
    (standby,) = cluster.standbys
    async with one_node(cluster) as node:
        metric = await made(cluster, node, COUNT)
        await until(lambda: shows(node, metric, 0))
        with psycopg.connect(cluster.primary.url()) as writer:
            writer.execute(ADD, (1,))
            cluster.write("INSERT INTO data.products_of_discussion VALUES ('2025-01-01', 'x')")
            await asyncio.to_thread(standby.caught_up, cluster.primary)
            await asyncio.to_thread(standby.pause)
            writer.commit()
        await until(lambda: shows(node, metric, 1))
        standby.resume()


async def test_a_promoted_standby_is_not_asked_any_more(cluster):
    (standby,) = cluster.standbys
    async with one_node(cluster) as node:
        metric, place = await made(cluster, node, COUNT), await made(cluster, node, WHERE)
        cluster.write(ADD, 1)
        await cluster.until_run_by(node, place, standby)
        await asyncio.to_thread(standby.promote)
        with psycopg.connect(standby.url(), autocommit=True) as fork:
            for number in range(100, 120):  # the same numbers of transactions, with other rows
                fork.execute(ADD, (number,))
        for number in range(2, 12):
            cluster.write(ADD, number)
            await until(lambda number=number: shows(node, metric, number))
            assert await node.value(place) == cluster.primary.port
        assert await standbys_are(node, "it is no standby any more")


@pytest.mark.parametrize("servers", [2], indirect=True)
async def test_a_standby_that_dies_is_left_and_the_other_one_goes_on(cluster):
    first, second = cluster.standbys
    async with one_node(cluster) as node:
        metric, place = await made(cluster, node, COUNT), await made(cluster, node, WHERE)
        cluster.write(ADD, 1)
        await until(lambda: shows(node, metric, 1))
        used = set()
        for number in range(2, 30):
            cluster.write(ADD, number)
            await until(lambda number=number: shows(node, metric, number))
            used.add(await node.value(place))
        assert {first.port, second.port} <= used
        await asyncio.to_thread(first.stop, "immediate")
        for number in range(30, 40):
            cluster.write(ADD, number)
            await until(lambda number=number: shows(node, metric, number))
            assert await node.value(place) in {second.port, cluster.primary.port, None}
        await until(lambda: standbys_are(node, f":{first.port}: "))
        await asyncio.to_thread(first.start)
        await until(lambda: standbys_are(node, "ok"))
        assert not await standbys_are(node, ":")


async def test_a_conflict_with_recovery_is_asked_again_elsewhere(cluster):
    """Rows are removed on the primary that a long statement on the standby still reads."""
    (standby,) = cluster.standbys
    async with one_node(cluster) as node:
        cluster.write(
            "INSERT INTO data.customers (customer_id, occupation, type) "
            "SELECT n, 'x', 'y' FROM generate_series(1, 3000) AS n"
        )
        heavy = (
            "SELECT count(*) AS value FROM customers AS a JOIN customers AS b"
            " ON a.customer_id * 7 + b.customer_id * 13 <> -1"
        )
        metric = await made(cluster, node, heavy)
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%* 13%' AND state = 'active'"
        conflicts = "SELECT sum(confl_lock + confl_snapshot)::integer FROM pg_stat_database_conflicts"
        for number in count(3001):  # until replay has met the statement, which depends on the machine
            cluster.write(ADD, number)
            answer = asyncio.create_task(node.value(metric))
            await until(lambda answer=answer: standby.ask(running)[0] > 1 or answer.done())
            cluster.write(f"ALTER TABLE data.customers ADD COLUMN extra_{number} integer")
            assert await answer in {number**2, (number - 1) ** 2, None}
            await until(lambda number=number: shows(node, metric, number**2))
            if standby.ask(conflicts, "tally")[0]:
                break


async def test_another_cluster_is_no_standby(cluster, tmp_path):
    with open_folder() as folder, replicated(folder / "others", 1) as (other, follower):
        other.ask("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        other.ask("CREATE DATABASE tally")
        await asyncio.to_thread(migrate, other.url(), other.url("reader", "reader"), ("data",))
        await asyncio.to_thread(follower.caught_up, other)
        strange = msgspec.structs.replace(
            cluster.settings.database, replica_urls=(follower.url("reader", "reader"),)
        )
        settings = msgspec.structs.replace(cluster.settings, database=strange)
        async with running_nodes(settings, 1) as (node,):
            await until(lambda: standbys_are(node, "it belongs to another cluster"))
            place = await made(cluster, node, WHERE)
            cluster.write(ADD, 1)
            await cluster.until_run_by(node, place, cluster.primary)
