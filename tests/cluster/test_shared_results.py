"""Two nodes, one database and a real Redis: one execution for each change, whatever happens to the store."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from msgspec import Struct
from redis.asyncio import Redis

from service.database.queries import Command, Statement
from tests.cluster.conftest import Node, Store, is_stale, shares, stored
from tests.waiting import until


class Value(Struct):
    value: int


COUNT = "SELECT count(*) AS value FROM customers"
ADD = Command("add", "INSERT INTO data.customers (customer_id, occupation, type) VALUES ($1, 'x', 'y')")
READ = Statement("read", "SELECT count(*) AS value FROM data.customers", Value)


async def heard(nodes: list[Node], metric: str, value: int) -> None:
    """Ask all nodes until they show the value, as dashboards do."""

    async def shown(node: Node) -> bool:
        return await node.value(metric) == value

    await asyncio.gather(*(until(lambda node=node: shown(node)) for node in nodes))


async def shared_again(nodes: list[Node], clone, metric: str, customers: Iterator[int]) -> None:
    """Change the table until a change costs all nodes together one run. `customers` are ids for new rows."""

    async def once() -> bool:
        before = sum(node.runs for node in nodes)
        await clone.write(ADD, next(customers))
        await heard(nodes, metric, (await clone.read(READ))[0].value)
        return sum(node.runs for node in nodes) == before + 1

    await until(once)


async def test_each_change_costs_one_execution_for_all_nodes(nodes, clone):
    metric = await stored(nodes, clone, COUNT)
    await heard(nodes, metric, 0)
    assert sum(node.runs for node in nodes) == 1
    for number in range(1, 21):
        await clone.write(ADD, number)
        await heard(nodes, metric, number)
        assert sum(node.runs for node in nodes) == 1 + number
    answers = [await node.result(metric) for node in nodes]
    assert len({answer.headers["ETag"] for answer in answers}) == 1


async def test_a_file_has_one_name_on_all_nodes(nodes, clone):
    metric = await stored(nodes, clone, COUNT)

    async def one_run() -> set[str] | None:
        before = sum(node.runs for node in nodes)
        answers = [await node.client.get(f"/api/v1/metrics/{metric}?format=csv") for node in nodes]
        names = {answer.headers["content-disposition"] for answer in answers}
        if sum(node.runs for node in nodes) == before + 1:
            return names
        await clone.write(Command("change", "UPDATE data.customers SET occupation = occupation || 'x'"))
        return None

    await clone.write(ADD, 1)
    (name,) = await until(one_run)
    assert "metric_as-of-" in name


async def test_nodes_never_show_less_than_they_were_told(nodes, clone, redis: Redis):
    """Writers and pollers side by side, while the store loses its values and returns damaged ones."""
    metric = await stored(nodes, clone, COUNT)
    committed = 0
    ended = asyncio.Event()

    async def write() -> None:
        nonlocal committed
        for number in range(1, 150):
            await clone.write(ADD, number)
            committed = number
        ended.set()

    async def poll(node: Node) -> None:
        seen = 0
        while not ended.is_set():
            answer = await node.result(metric)
            value = answer.json()["records"][0]["value"]
            assert value <= committed + 1
            if not is_stale(answer):
                assert value >= seen, "an older result was marked fresh"
                seen = value
            await asyncio.sleep(0)

    async def harm() -> None:
        while not ended.is_set():
            for key in await redis.keys("tally:*"):
                await redis.set(key, b"x" * 100, keepttl=True)
            await redis.flushdb()

    async with asyncio.TaskGroup() as group:
        for task in (write(), harm(), *(poll(node) for node in nodes for _ in range(3))):
            group.create_task(task)
    await heard(nodes, metric, 149)


@pytest.mark.parametrize("failure", ["kill", "halt"])
async def test_a_store_that_goes_away_changes_no_answer_and_is_used_again_when_it_is_back(
    nodes, clone, store: Store, failure
):
    metric = await stored(nodes, clone, COUNT)
    await heard(nodes, metric, 0)
    getattr(store, failure)()
    try:
        for number in range(1, 6):
            await clone.write(ADD, number)
            await heard(nodes, metric, number)
        assert all(node.runs >= 5 for node in nodes)
        assert "nothing is shared" in await nodes[0].sharing()
        ready = (await nodes[0].client.get("/health/ready")).status_code
        assert ready == 200
    finally:
        store.start() if failure == "kill" else store.resume()

    await shared_again(nodes, clone, metric, count(6))
    await until(lambda: shares(nodes[0]))


async def test_a_value_of_another_metric_is_no_answer(nodes, clone, redis: Redis):
    first = await stored(nodes, clone, COUNT)
    second = await stored(nodes, clone, "SELECT count(*) + 1000 AS value FROM customers")
    one, other = nodes
    await one.value(first)
    await until(redis.dbsize)
    (name,) = await redis.keys("tally:*}")
    await one.value(second)

    async def both() -> list[bytes]:
        return [key for key in await redis.keys("tally:*}") if key != name]

    (name_of_second,) = await until(both)
    await redis.set(name_of_second, await redis.get(name))
    assert await other.value(second) == 1000


async def test_a_definition_changes_on_all_nodes(nodes, clone):
    """By announcement and not by the poll, which `bench/nodes.py` times."""
    metric = await stored(nodes, clone, COUNT)
    await heard(nodes, metric, 0)
    for number in range(1, 6):
        for one, other in (nodes, reversed(nodes)):
            sql = f"SELECT {number} AS value"
            changed = await one.client.patch(f"/metrics/{metric}", json={"sql": sql})
            assert changed.status_code == 200, changed.text
            assert await one.value(metric) == number

            async def shown(other: Node = other, number: int = number) -> bool:
                return await other.value(metric) == number

            await until(shown)
            number = -number  # noqa: PLW2901 (the other node's turn)
    deleted = await nodes[0].client.delete(f"/metrics/{metric}")
    assert deleted.status_code == 204, deleted.text

    async def gone() -> bool:
        return (await nodes[1].client.get(f"/metrics/{metric}")).status_code == 404

    await until(gone)


async def test_claims_stay_on_their_node(nodes, clone, redis: Redis):
    metric = await stored(nodes, clone, "SELECT current_setting('request.claims', true) AS value")
    for node in nodes:
        await node.result(metric)
    assert (sum(node.runs for node in nodes), await redis.keys()) == (2, [])
