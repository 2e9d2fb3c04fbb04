"""A held result reaches only callers who may read it."""

from uuid import uuid4

from service.database.gateway import open_database
from service.database.queries import Command

SUBJECT = "current_setting('request.claims', true)::json ->> 'sub'"


async def test_rows_of_one_caller_are_never_given_to_another(guarded, opened, token):
    """Row-level rights: each caller has an entry of their own, all others share one."""
    table = f"visits_{uuid4().hex[:8]}"
    async with open_database(guarded.database.url) as database:
        for statement in (
            f"CREATE TABLE data.{table} (name text)",
            f"INSERT INTO data.{table} VALUES ('ann'), ('bob')",
            f"ALTER TABLE data.{table} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY own ON data.{table} USING (name = {SUBJECT})",
        ):
            await database.write(Command("set_up", statement))
    service = await opened()
    write = token("metrics:write")
    made = await service.post("/metrics", json={"sql": f"SELECT name FROM {table}"}, headers=write)
    address = f"/metrics/{made.json()['id']}"
    for _ in range(3):
        for name in ("ann", "bob"):
            answer = await service.get(address, headers=token("metrics:read", subject=name))
            assert answer.json()["records"] == [{"name": name}]


async def test_the_shortcut_asks_for_the_same_rights(opened, token, guarded):
    service = await opened()
    made = await service.post("/metrics", json={"sql": "SELECT 1 AS n"}, headers=token("metrics:write"))
    address = f"/metrics/{made.json()['id']}"
    reads = token("metrics:read")
    for _ in range(3):
        assert (await service.get(address, headers=reads)).status_code == 200
    assert (await service.get(address)).status_code == 401
    assert (await service.get(address, headers={"Authorization": "Bearer x"})).status_code == 401
    other = token("items:read")
    for _ in range(3):  # the shortcut knows a token once the endpoint has verified it
        assert (await service.get(address, headers=other)).status_code == 403
    assert (await service.get(address, headers=reads | {"Host": "evil@127.0.0.1"})).status_code == 400
    twice = [*reads.items(), *reads.items()]
    assert (await service.get(address, headers=twice)).status_code == 400
