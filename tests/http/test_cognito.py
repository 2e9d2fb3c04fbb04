"""Cognito's tokens, from moto's server as a stand-in: an issuer whose keys live at another address."""

import asyncio
import json
import urllib.request
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from service.auth.keys import oidc_trust
from service.auth.tokens import Tokens
from service.errors import InvalidToken

PASSWORD = "Correct-Horse-1"


class Pool:
    """A user pool with one user and as many clients as asked for."""

    def __init__(self, url):
        self._api = boto3.client(
            "cognito-idp",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self.id = self._api.create_user_pool(PoolName="pool")["UserPool"]["Id"]
        self.user = f"user-{uuid4().hex}"
        self._api.admin_create_user(UserPoolId=self.id, Username=self.user)
        self._api.admin_set_user_password(
            UserPoolId=self.id, Username=self.user, Password=PASSWORD, Permanent=True
        )
        self.client = self.new_client()
        self.issuer = f"https://cognito-idp.us-east-1.amazonaws.com/{self.id}"
        self.jwks_url = f"{url}/{self.id}/.well-known/jwks.json"

    def new_client(self):
        made = self._api.create_user_pool_client(
            UserPoolId=self.id, ClientName="client", ExplicitAuthFlows=["ALLOW_ADMIN_USER_PASSWORD_AUTH"]
        )
        return made["UserPoolClient"]["ClientId"]

    def sign_in(self, client):
        answer = self._api.admin_initiate_auth(
            UserPoolId=self.id,
            ClientId=client,
            AuthFlow="ADMIN_USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": self.user, "PASSWORD": PASSWORD},
        )["AuthenticationResult"]
        return answer["AccessToken"].encode(), answer["IdToken"].encode()


@pytest.fixture(scope="module")
def cognito():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def pool(cognito):
    return Pool(cognito)


async def fetch_json(url):
    def get():
        with urllib.request.urlopen(url) as answer:
            return json.load(answer)

    return await asyncio.to_thread(get)


@pytest.fixture
def tokens(pool):
    return Tokens([oidc_trust(pool.issuer, [pool.client], pool.jwks_url, fetch_json)])


async def test_an_access_token_gets_in(pool, tokens):
    access, _ = pool.sign_in(pool.client)
    principal = await tokens.verify(access)
    assert json.loads(principal.claims)["username"] == pool.user
    assert principal.subject == json.loads(principal.claims)["sub"]
    assert tokens.lookup(access) is principal


async def test_an_identity_token_does_not(pool, tokens):
    _, identity = pool.sign_in(pool.client)
    with pytest.raises(InvalidToken, match="access"):
        await tokens.verify(identity)


async def test_an_access_token_of_another_client_of_the_pool_does_not(pool, tokens):
    access, _ = pool.sign_in(pool.new_client())
    with pytest.raises(InvalidToken, match="audience"):
        await tokens.verify(access)


async def test_a_token_of_another_pool_does_not(cognito, tokens):
    other = Pool(cognito)
    access, _ = other.sign_in(other.client)
    with pytest.raises(InvalidToken, match="issuer"):
        await tokens.verify(access)


async def test_the_service_takes_its_tokens_beside_our_own(pool, opened, token):
    client = await opened(oidc_issuer=pool.issuer, oidc_audience=(pool.client,), oidc_jwks_url=pool.jwks_url)
    access, identity = pool.sign_in(pool.client)
    for good in ({"Authorization": f"Bearer {access.decode()}"}, token("metrics:read")):
        assert (await client.get("/api/v1/nothing", headers=good)).status_code == 404
    refused = await client.get("/api/v1/nothing", headers={"Authorization": f"Bearer {identity.decode()}"})
    assert refused.status_code == 401
    without_scope = {"Authorization": f"Bearer {access.decode()}"}
    assert (await client.get("/api/v1/metrics", headers=without_scope)).status_code == 403


async def test_an_issuer_that_cannot_be_reached_is_no_fault_of_ours(pool, opened, token):
    client = await opened(
        oidc_issuer=pool.issuer, oidc_audience=(pool.client,), oidc_jwks_url="http://127.0.0.1:1/keys"
    )
    access, _ = pool.sign_in(pool.client)
    answer = await client.get("/api/v1/metrics", headers={"Authorization": f"Bearer {access.decode()}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "issuer-unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await client.get("/api/v1/nothing", headers=token("metrics:read"))).status_code == 404
