"""The audit over HTTP: for administrators, in pages, without what was refused."""

import pytest

from service.auth import clients


async def test_the_audit_is_read_in_pages_by_administrators(visitor, guarded_database, token):
    for number in range(5):
        await clients.add(guarded_database, f"client-{number}", ("admin",), chosen=None, actor="pager")
    admin = token("admin")
    first = (await visitor.get("/api/v1/audit", params={"limit": 3, "actor": "pager"}, headers=admin)).json()
    rest = (
        await visitor.get(
            "/api/v1/audit",
            params={"limit": 3, "actor": "pager", "cursor": first["next_cursor"]},
            headers=admin,
        )
    ).json()
    found = first["items"] + rest["items"]
    assert [row["target"] for row in found] == [f"client-{number}" for number in (4, 3, 2, 1, 0)]
    assert rest["next_cursor"] is None
    assert set(found[0]) == {"id", "actor", "action", "target", "at", "request_id"}
    assert found[0]["at"].endswith("Z")
    one = await visitor.get("/api/v1/audit", params={"target": "client-2"}, headers=admin)
    assert [row["target"] for row in one.json()["items"]] == ["client-2"]


@pytest.mark.parametrize(
    "params",
    [{"cursor": "x"}, {"cursor": "99999999999999999999"}, {"limit": 0}, {"limit": 501}, {"actor": "a\x00"}],
    ids=str,
)
async def test_an_odd_page_of_the_audit_is_422(visitor, token, params):
    answer = await visitor.get("/api/v1/audit", params=params, headers=token("admin"))
    assert answer.status_code == 422


async def test_refused_requests_leave_no_trace_in_the_audit(visitor, token):
    async def newest():
        found = await visitor.get("/api/v1/audit", params={"limit": 1}, headers=token("admin"))
        return found.json()["items"]

    before = await newest()
    await visitor.post("/api/v1/metrics", json={}, headers=token("metrics:read"))
    await visitor.post("/oauth2/token", data={}, auth=("poller", "wrong"))
    assert await newest() == before
