"""Health, the root and the documents."""

import httpx


async def test_a_migrated_service_is_ready_at_both_addresses(client: httpx.AsyncClient):
    for path in ("/health", "/health/ready", "/api/v1/health", "/api/v1/health/ready"):
        answer = await client.get(path)
        assert answer.status_code == 200
        assert answer.json() == {"status": "ok", "checks": {"database": "ok", "migrations": "ok"}}
