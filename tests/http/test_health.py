"""Health, the root and the documents."""

import httpx
import msgspec

from service.settings import Settings
from tests.conftest import serving


async def test_a_migrated_service_is_ready_at_both_addresses(client: httpx.AsyncClient):
    for path in ("/health", "/health/ready", "/api/v1/health", "/api/v1/health/ready"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.json() == {
            "status": "ok",
            "checks": {"database": "ok", "migrations": "ok", "reader": "ok", "listening": "ok"},
        }


async def test_a_service_whose_reader_may_read_nothing_is_not_ready(settings: Settings):
    nothing = msgspec.structs.replace(settings.database, data_schemas=("nowhere",))
    async with serving(msgspec.structs.replace(settings, database=nothing)) as client:
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"]["reader"].startswith("may use no schema")


async def test_a_service_whose_reader_is_refused_is_not_ready(settings: Settings):
    url = (settings.database.reader_url or "").replace(":reader@", ":wrong@")
    refused = msgspec.structs.replace(settings.database, reader_url=url)
    async with serving(msgspec.structs.replace(settings, database=refused)) as client:
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        checks = answer.json()["checks"]
        assert checks == {"database": "ok", "migrations": "ok", "reader": "refused", "listening": "ok"}


async def test_details_are_for_the_scope_admin_alone(guarded: Settings, token):
    url = (guarded.database.reader_url or "").replace(":reader@", ":wrong@")
    refused = msgspec.structs.replace(guarded.database, reader_url=url)
    async with serving(msgspec.structs.replace(guarded, database=refused)) as client:
        for headers, told in (({}, "failed"), (token("metrics:read"), "failed"), (token("admin"), "refused")):
            answer = await client.get("/health/ready", headers=headers)
            assert (answer.status_code, answer.json()["checks"]["reader"]) == (503, told)


async def test_without_announcements_it_stays_ready_and_says_so(settings: Settings):
    async with serving(settings) as client:
        client.service.state.base.listener.connected.clear()  # type: ignore[attr-defined]
        answer = await client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["checks"]["listening"].startswith("no announcements")
