"""One service with tokens for all tests here that only ask."""

from contextlib import AsyncExitStack
from hashlib import sha256

import msgspec
import pytest

from service.auth.clients import hash_chosen
from service.auth.issuer import Issuer, KeyFile
from service.database.gateway import open_database
from service.settings import Auth, Settings
from tests.conftest import _cloned, held, serving, store_metric
from tests.waiting import until

SECRET = "x0VJ1lDqTg3wqC3bqZyS9mJYb2r8kP5nE7uW4hF6aQo"
HASH = sha256(SECRET.encode()).hexdigest()
CHOSEN = "correct horse, battery: staple+%"


@pytest.fixture(scope="session")
async def guarded(server, template, tmp_path_factory):
    """Settings with clients and a database of their own, as anywhere but on loopback."""
    backend = hash_chosen(CHOSEN)
    listed = f"poller:{HASH}:metrics:read items:read,backend:{backend}:api/backend_access"
    folder = tmp_path_factory.mktemp("guarded")
    async with held(_cloned(server, template)) as addresses:
        yield Settings(
            database=msgspec.structs.replace(addresses, data_dir=folder), auth=Auth(clients=listed)
        )


@pytest.fixture(scope="session")
async def guarded_client(guarded):
    async with serving(guarded) as opened:
        yield opened


@pytest.fixture
def visitor(guarded_client):
    """Calls without a token."""
    return guarded_client


@pytest.fixture
def token(guarded):
    issuer = Issuer(guarded.public_url, KeyFile(guarded.database.data_dir))

    def sign(*scopes: str, subject: str = "tester", ttl_s: int = 60):
        return {"Authorization": f"Bearer {issuer.sign(subject, scopes, ttl_s)}"}

    return sign


@pytest.fixture
async def opened(guarded):
    """Further services on the same database with other settings, closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_with(**auth):
            changed = msgspec.structs.replace(guarded.auth, **auth)
            return await stack.enter_async_context(serving(msgspec.structs.replace(guarded, auth=changed)))

        yield open_with


@pytest.fixture
async def guarded_database(guarded):
    async with open_database(guarded.database.url or "") as database:
        yield database


@pytest.fixture
async def guarded_metric(guarded_database, visitor, token):
    """A metric that the guarded service knows."""
    metric_id = await store_metric(guarded_database, "SELECT 1 AS n")

    async def known():
        answer = await visitor.get(f"/metrics/{metric_id}/versions", headers=token("metrics:read"))
        return answer.status_code == 200

    await until(known)
    return metric_id
