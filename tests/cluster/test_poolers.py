"""Owner and reader behind PgBouncer in transaction mode, with a direct address for LISTEN."""

import asyncio

import msgspec
import pytest

from service.settings import Settings
from service.setup.doctor import examine
from tests.cluster.conftest import Node, clustered, running_nodes, stored
from tests.cluster.poolers import pooling
from tests.waiting import until

CUSTOMERS = "customer_id,occupation,type\n1,Nurse,HCP\n2,Clerk,HCO\n"


POOLERS = {
    "1.18": {},
    "1.21+": {"server": "pgbouncer-next", "settings": "max_prepared_statements = 100\n"},
    "1.21+ without prepared statements": {
        "server": "pgbouncer-next",
        "settings": "max_prepared_statements = 0\n",
    },
}
"""Without and with statements of the protocol that it renames, which 1.21 brought."""


@pytest.fixture(params=list(POOLERS))
async def pooled(request: pytest.FixtureRequest, settings: Settings, store, tmp_path):
    """Two nodes whose every connection but those of LISTEN and the polls passes PgBouncer."""
    config = settings.database
    async with pooling(tmp_path, config.url, config.reader_url, **POOLERS[request.param]) as pooler:
        database = msgspec.structs.replace(
            config,
            url=pooler.through(config.url),
            listen_url=config.url,
            reader_url=pooler.through(config.reader_url),
            reader_pooler="transaction",
        )
        changed = clustered(msgspec.structs.replace(settings, database=database), redis_url=store.url)
        async with running_nodes(changed) as nodes:
            yield nodes


async def test_a_service_behind_a_pooler_reads_writes_imports_and_hears_of_changes(pooled, clone):
    one, other = pooled
    metric = await stored(pooled, clone, "SELECT count(*) AS value FROM customers WHERE customer_id > 0")
    assert await one.value(metric) == 0
    imported = await one.client.post(
        "/imports/customers", content=CUSTOMERS, headers={"Content-Type": "text/csv"}
    )
    assert imported.json()["inserted"] == 2, imported.text

    async def both() -> bool:
        return [await node.value(metric) for node in pooled] == [2, 2]

    await until(both)
    made = await other.client.post(
        "/metrics", json={"sql": "SELECT max(customer_id) AS value FROM customers"}
    )
    assert made.status_code == 201, made.text
    found = made.json()["id"]

    async def known() -> bool:
        answer = await one.client.get(f"/metrics/{found}")
        return answer.status_code == 200 and answer.json()["records"] == [{"value": 2}]

    await until(known)
    changed = await one.client.patch(f"/metrics/{found}", json={"title": "Highest number"})
    assert changed.status_code == 200, changed.text


async def test_many_callers_share_few_connections_without_mixing_their_sessions(pooled, clone):
    """Each statement has its own time zone, search path and limits, whoever had the connection before."""
    metrics = [
        await stored(pooled, clone, f"SELECT {n} AS value, current_setting('timezone') AS zone", trusted=True)
        for n in range(12)
    ]
    turns = asyncio.Semaphore(6)

    async def ask(node: Node, metric: str) -> dict:
        async with turns:
            answer = await node.result(metric, headers={"Cache-Control": "no-cache"})
        return answer.json()["records"][0]

    found = await asyncio.gather(
        *(ask(node, metric) for node in pooled for metric in metrics for _ in range(3))
    )
    assert found == [{"value": n, "zone": "UTC"} for _ in pooled for n in range(12) for _ in range(3)]


@pytest.mark.parametrize("version", list(POOLERS))
async def test_doctor_recognises_a_pooler_that_the_settings_do_not_name(
    settings: Settings, tmp_path, version
):
    """Prepared statements are refused by some and renamed by others: the settings are mended alike."""
    config = settings.database
    async with pooling(tmp_path, config.url, config.reader_url, **POOLERS[version]) as pooler:
        through = msgspec.structs.replace(
            config, url=pooler.through(config.url), reader_url=pooler.through(config.reader_url)
        )
        found = await asyncio.to_thread(examine, msgspec.structs.replace(settings, database=through), {})
        named = msgspec.structs.replace(through, listen_url=config.url, reader_pooler="transaction")
        right = await asyncio.to_thread(examine, msgspec.structs.replace(settings, database=named), {})
    assert [finding.mend for finding in found if finding.check == "poolers"] == [
        "set LISTEN_DATABASE_URL to Postgres's own address",
        "READER_POOLER=transaction",
    ]
    assert [finding.status for finding in right if finding.check == "poolers"] == ["ok"]
