"""Tokens for clients, as RFC 6749 says, and the keys and discovery that lead to them."""

import base64
import json

import jwt
import pytest

from service.auth import clients
from tests.http.conftest import CHOSEN, SECRET


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


GRANT = {"grant_type": "client_credentials"}


async def test_a_client_gets_a_token_and_gets_in_with_it(visitor):
    answer = await visitor.post("/oauth2/token", data=GRANT, auth=("poller", SECRET))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert (body["token_type"], body["expires_in"], body["scope"]) == (
        "Bearer",
        3600,
        "metrics:read items:read",
    )
    bearer = {"Authorization": f"Bearer {body['access_token']}"}
    assert (await visitor.get("/api/v1/nothing", headers=bearer)).status_code == 404
    assert (await visitor.get("/api/v1/audit", headers=bearer)).status_code == 403


async def test_credentials_may_stand_in_the_form(visitor):
    form = GRANT | {"client_id": "backend", "client_secret": CHOSEN, "scope": "items:write"}
    answer = await visitor.post("/oauth2/token", data=form)
    assert answer.json()["scope"] == "items:write"


@pytest.mark.parametrize(
    "secret",
    [CHOSEN, "correct+horse%2C+battery%3A+staple%2B%25", "correct%20horse,%20battery:%20staple%2B%25"],
    ids=["as it is", "form-encoded", "percent-encoded"],
)
async def test_a_secret_counts_in_the_spellings_that_clients_use(visitor, secret):
    assert (
        await visitor.post("/oauth2/token", data=GRANT, headers=basic("backend", secret))
    ).status_code == 200


BAD_REQUESTS = {
    "no grant type": ({}, "poller", "invalid_request", 400),
    "another grant": ({"grant_type": "password"}, "poller", "unsupported_grant_type", 400),
    "more than it has": (GRANT | {"scope": "metrics:read admin"}, "poller", "invalid_scope", 400),
    "everything": (GRANT | {"scope": "api/backend_access"}, "poller", "invalid_scope", 400),
    "an unknown scope": (GRANT | {"scope": "*"}, "poller", "invalid_scope", 400),
    "an empty scope": (GRANT | {"scope": ""}, "poller", "invalid_scope", 400),
    "both ways": (GRANT | {"client_id": "poller", "client_secret": SECRET}, "poller", "invalid_request", 400),
    "two names": (GRANT | {"client_id": "backend"}, "poller", "invalid_request", 400),
    "a scope given twice": (GRANT | {"scope": ["metrics:read", "admin"]}, "poller", "invalid_request", 400),
    "an unknown client": (GRANT, "stranger", "invalid_client", 401),
    "a client with NUL": (GRANT, "pol\x00ler", "invalid_client", 401),
}


@pytest.mark.parametrize(("form", "user", "error", "status"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_a_bad_token_request_is_answered_as_rfc_6749_says(visitor, form, user, error, status):
    answer = await visitor.post("/oauth2/token", data=form, headers=basic(user, SECRET))
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "authorization",
    ["Basic", "Basic !!!", "Basic cG9sbGVy", "Basic /w==", "Bearer x", "Basic " + "A" * 4000],
)
async def test_broken_basic_credentials_are_a_401(visitor, authorization):
    answer = await visitor.post("/oauth2/token", data=GRANT, headers={"Authorization": authorization})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (json.dumps(GRANT).encode(), "application/json", 400),
        (b"grant_type=client_credentials", "", 400),
        (b"\xff=\xff", "application/x-www-form-urlencoded", 400),
        (b"a&" * 200, "application/x-www-form-urlencoded", 400),
        (b"grant_type=client_credentials&x=" + b"a" * 70_000, "application/x-www-form-urlencoded", 413),
    ],
    ids=["JSON", "no media type", "no UTF-8", "very many fields", "too long"],
)
async def test_a_token_request_that_is_no_form_is_refused(visitor, content, media, status):
    answer = await visitor.post(
        "/oauth2/token", content=content, headers={**basic("poller", SECRET), "Content-Type": media}
    )
    assert answer.status_code == status


async def test_an_unknown_client_and_a_wrong_secret_cannot_be_told_apart(visitor):
    unknown = await visitor.post("/oauth2/token", data=GRANT, auth=("stranger", SECRET))
    wrong = await visitor.post("/oauth2/token", data=GRANT, auth=("poller", "wrong"))
    assert unknown.status_code == wrong.status_code == 401
    assert unknown.content == wrong.content
    assert set(unknown.headers) == set(wrong.headers)


async def test_failures_are_slowed(opened, monkeypatch):
    monkeypatch.setattr("service.auth.clients._verify", lambda *_: False)
    client = await opened()
    answers = [await client.post("/oauth2/token", data=GRANT, auth=("poller", "x")) for _ in range(121)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert (await client.post("/oauth2/token", data=GRANT, auth=("poller", SECRET))).status_code == 200


async def test_discovery_leads_a_client_to_keys_that_verify_its_token(visitor, guarded):
    found = (await visitor.get("/.well-known/openid-configuration")).json()
    assert found["issuer"] == guarded.public_url
    issued = await visitor.post(found["token_endpoint"], data=GRANT, auth=("poller", SECRET))
    keys = jwt.PyJWKSet.from_dict((await visitor.get(found["jwks_uri"])).json())
    token = issued.json()["access_token"]
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, ["RS256"], audience="tally", issuer=found["issuer"])
    assert claims["sub"] == "poller"


async def test_a_client_of_the_database_gets_tokens_until_it_is_revoked(visitor, guarded_database):
    secret = await clients.add(guarded_database, "stored", ("alerts:read",), chosen=None, actor="tester")
    answer = await visitor.post("/oauth2/token", data=GRANT, auth=("stored", secret))
    assert answer.json()["scope"] == "alerts:read"
    await clients.revoke(guarded_database, "stored", actor="tester")
    assert (await visitor.post("/oauth2/token", data=GRANT, auth=("stored", secret))).status_code == 401
