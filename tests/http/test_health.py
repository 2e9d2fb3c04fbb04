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
            "checks": {"database": "ok", "migrations": "ok", "reader": "ok"},
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
        assert answer.json()["checks"] == {"database": "ok", "migrations": "ok", "reader": "refused"}
