"""Who gets in over HTTP, with which answer otherwise, and what clients and browsers are told."""

from uuid import uuid4

import httpx
import msgspec
import pytest

from service.app import create_app
from service.auth.guards import scope_of, stated_handlers
from service.auth.issuer import KeyFile
from service.auth.tokens import SCOPES
from service.settings import Server, Settings

PUBLIC = {
    "/problems/{code}",
    "/",
    "/alerts",
    "/ask",
    "/data",
    "/d",
    "/d/{dashboard_id}",
    "/static/{version}/{name}",
    "/s/{token}",
    "/sign-in",
    "/sign-in/issuer",
    "/sign-in/callback",
    "/sign-out",
    "/docs",
    "/docs/assets/{name}",
    "/redoc",
    "/openapi.json",
    "/oauth2/token",
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
    *(f"{root}/health{path}" for root in ("", "/api/v1") for path in ("", "/live", "/ready")),
}


ELSEWHERE = {"X-Forwarded-For": "192.0.2.7"}
"""A proxy on this machine forwards the call of another one."""


class Anything(dict[str, object]):
    """A value for any path parameter."""

    def __missing__(self, name: str):
        return uuid4()


def routes(settings: Settings):
    """Each address with each method and the scope it states."""
    for route in create_app(settings).routes:
        for handler in stated_handlers(route):
            path = route.path_format.format_map(Anything(version=1))
            for method in getattr(handler, "http_methods", ()):
                yield str(method), route.path_format, path, handler


def test_every_route_states_its_scope(guarded):
    stated = {(path, scope_of(handler)) for _, path, _, handler in routes(guarded)}
    assert {path for path, scope in stated if scope is None} == PUBLIC
    assert {scope for _, scope in stated} <= {*SCOPES, None}


async def test_every_route_but_the_public_ones_asks_for_a_token_and_then_for_its_scope(
    visitor, guarded, token
):
    checked = 0
    for method, _, path, handler in routes(guarded):
        scope = scope_of(handler)
        if scope is None:
            continue
        checked += 1
        unknown = await visitor.request(method, path, headers=ELSEWHERE)
        assert (unknown.status_code, unknown.headers["WWW-Authenticate"]) == (401, 'Bearer realm="tally"')
        others = [other for other in SCOPES if other != scope]
        refused = await visitor.request(method, path, headers=ELSEWHERE | token(*others), content=b"{")
        assert refused.status_code == 403, (method, path)
        assert refused.json()["detail"] == f"This needs the scope {scope}."
        assert f'scope="{scope}"' in refused.headers["WWW-Authenticate"]
        allowed = await visitor.request(method, path, headers=ELSEWHERE | token(scope))
        assert allowed.status_code not in {401, 403, 500}
    assert checked > 5


async def test_public_routes_need_no_token_and_mind_no_bad_one(visitor):
    for path in ("/", "/health", "/api/v1/health/live", "/openapi.json", "/docs", "/.well-known/jwks.json"):
        assert (await visitor.get(path)).status_code == 200
        assert (await visitor.get(path, headers={"Authorization": "Bearer nonsense"})).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api/v1/nothing",
        "/api/v2/metrics",
        "/api/v1/metrics/not-a-uuid",
        "/api/v1/metrics?unknown=1",
        "/health/nothing",
        "/docs/nothing",
        "/health/../api/v1/metrics",
        "/healthy",
    ],
)
async def test_without_a_token_nobody_learns_what_exists(visitor, path):
    answer = await visitor.get(path)
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
async def test_no_method_gets_past_the_gate(visitor, method):
    assert (await visitor.request(method, "/api/v1/metrics")).status_code == 401


async def test_with_a_token_unknown_addresses_are_404(visitor, token):
    assert (await visitor.get("/api/v1/nothing", headers=token("metrics:read"))).status_code == 404
    assert (await visitor.delete("/api/v1/metrics", headers=token("metrics:read"))).status_code == 405


async def test_a_websocket_is_refused_as_http_is(guarded):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/live", "headers": [], "query_string": b"token=x", "state": {}}
    await create_app(guarded)(scope, None, send)
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert sent[0]["status"] == 401


HEADERS = {
    "another scheme": "Basic cG9sbGVyOnNlY3JldA==",
    "no scheme": "{token}",
    "a colon": "Bearer: {token}",
    "two tokens": "Bearer {token} {token}",
    "a comma list": "Bearer {token}, Bearer {token}",
    "quoted": 'Bearer "{token}"',
    "nothing after the scheme": "Bearer ",
    "empty": "",
    "Digest": "Digest {token}",
    "a longer scheme": "BearerX {token}",
    "a tab": "Bearer\t{token}",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
async def test_an_odd_header_does_not_get_in(visitor, token, header):
    bare = token("metrics:read")["Authorization"].removeprefix("Bearer ")
    answer = await visitor.get("/api/v1/metrics", headers={"Authorization": header.format(token=bare)})
    assert answer.status_code == 401
    assert bare not in answer.text + str(answer.headers)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_scheme_is_known_in_any_case(visitor, token, scheme):
    bare = token("metrics:read")["Authorization"].removeprefix("Bearer ")
    answer = await visitor.get("/api/v1/metrics", headers={"Authorization": f"{scheme} {bare}"})
    assert answer.status_code in {200, 503}


@pytest.mark.parametrize("path", ["/api/v1/metrics", "/health", "/nothing"])
async def test_two_authorization_headers_are_no_http(visitor, token, path):
    good = token("metrics:read")["Authorization"]
    answer = await visitor.get(path, headers=[("Authorization", good), ("Authorization", good)])
    assert answer.status_code == 400


async def test_tokens_elsewhere_are_ignored(visitor, token):
    bare = token("metrics:read")["Authorization"].removeprefix("Bearer ")
    for answer in (
        await visitor.get("/api/v1/metrics", params={"access_token": bare}),
        await visitor.get(
            "/api/v1/metrics", headers={"Cookie": f"access_token={bare}; Authorization={bare}"}
        ),
        await visitor.post("/api/v1/metrics", data={"access_token": bare}),
        await visitor.get("/api/v1/metrics", headers={"Proxy-Authorization": f"Bearer {bare}"}),
        await visitor.get("/api/v1/metrics", headers={"X-Forwarded-Authorization": f"Bearer {bare}"}),
    ):
        assert answer.status_code == 401


async def test_why_a_token_is_refused_is_said_in_the_challenge(visitor, token):
    answer = await visitor.get("/api/v1/metrics", headers=token("metrics:read", ttl_s=-60))
    assert answer.json()["code"] == "invalid-token"
    assert (
        answer.headers["WWW-Authenticate"]
        == 'Bearer realm="tally", error="invalid_token", error_description="The token has expired."'
    )


async def test_odd_bytes_in_a_token_stay_out_of_the_answer(visitor):
    answer = await visitor.get("/api/v1/metrics", headers={"Authorization": b'Bearer \xff"\\x'})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].count('"') == 6


async def test_a_rotation_in_the_middle_of_a_run_loses_nobody(visitor, guarded, token):
    old = token("metrics:read")
    assert (await visitor.get("/api/v1/nothing", headers=old)).status_code == 404
    KeyFile(guarded.database.data_dir).rotate(3600)
    assert (await visitor.get("/api/v1/nothing", headers=old)).status_code == 404
    assert (await visitor.get("/api/v1/nothing", headers=token("metrics:read"))).status_code == 404
    assert len((await visitor.get("/.well-known/jwks.json")).json()["keys"]) > 1


async def test_browsers_are_told_what_they_may_run(visitor, token):
    page = await visitor.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert page.text.count("<script") == page.text.count(f'<script nonce="{nonce}"') > 0
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (await visitor.get("/docs")).headers["Content-Security-Policy"] != policy
    for path, headers in (("/health", {}), ("/nothing", {}), ("/nothing", token()), ("/docs", {})):
        answer = await visitor.get(path, headers=headers)
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert page.headers["Referrer-Policy"] == "no-referrer"


ORIGIN = "https://dashboards.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


async def test_pages_of_other_sites_are_not_let_in_by_default(visitor):
    assert (await visitor.options("/api/v1/metrics", headers=PREFLIGHT)).status_code == 401
    answer = await visitor.get("/health", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_pages_of_allowed_sites_are(opened, token):
    client = await opened(cors_origins=(ORIGIN,))
    preflight = await client.options("/api/v1/metrics", headers=PREFLIGHT)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert preflight.headers["Access-Control-Allow-Headers"] == "authorization"
    for headers in ({}, token("metrics:read")):
        answer = await client.get("/api/v1/nothing", headers={"Origin": ORIGIN, **headers})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "RateLimit" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
    foreign = await client.get("/health", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in foreign.headers
    assert "Access-Control-Allow-Credentials" not in preflight.headers
    stranger = PREFLIGHT | {"Origin": "https://evil.example"}
    assert (await client.options("/api/v1/metrics", headers=stranger)).status_code == 401


async def test_callers_are_limited_each_for_themselves(opened, token):
    client = await opened(rate_limit=3)
    tired, fresh = token("metrics:read", subject="tired"), token("metrics:read", subject="fresh")
    answers = [await client.get("/api/v1/nothing", headers=tired) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"caller";q=3;w=60'
    assert [answer.headers["RateLimit"] for answer in answers] == [
        '"caller";r=2;t=20',
        '"caller";r=1;t=40',
        '"caller";r=0;t=60',
        '"caller";r=0;t=60',
    ]
    assert answers[3].headers["Retry-After"] == "20"
    assert answers[3].json()["code"] == "too-many-requests"
    assert (await client.get("/api/v1/nothing", headers=fresh)).status_code == 404
    assert (await client.get("/health")).status_code == 200


async def test_a_metric_is_limited_for_itself(opened, token):
    client = await opened(metric_rate_limit=1)
    headers, first, second = token("metrics:read"), uuid4(), uuid4()
    assert (await client.get(f"/api/v1/metrics/{first}", headers=headers)).status_code != 429
    limited = await client.get(f"/metrics/{first}/definition", headers=headers)
    assert limited.status_code == 429
    assert limited.headers["RateLimit"] == '"metric";r=0;t=60'
    assert (await client.get(f"/api/v1/metrics/{second}", headers=headers)).status_code != 429
    assert (await client.get("/api/v1/metrics", headers=headers)).status_code != 429


async def test_rates_are_not_limited_on_loopback(visitor, token):
    assert "RateLimit" not in (await visitor.get("/api/v1/nothing", headers=token())).headers


async def test_without_auth_everyone_may_do_everything(opened):
    client = await opened(mode="off")
    assert (await client.get("/api/v1/audit")).status_code == 200
    assert (await client.get("/api/v1/nothing")).status_code == 404
    assert (await client.get("/api/v1/audit", headers={"Authorization": "Bearer x"})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000"])
async def test_without_auth_a_name_that_was_bent_to_this_machine_is_refused(opened, host):
    client = await opened(mode="off")
    assert (await client.get("/api/v1/audit", headers={"Host": host})).status_code == 403


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1", "[::1]:8000", "127.0.0.2:80"])
async def test_without_auth_names_of_this_machine_are_fine(opened, host):
    client = await opened(mode="off")
    assert (await client.get("/api/v1/audit", headers={"Host": host})).status_code == 200


async def test_without_auth_pages_of_other_sites_change_nothing(opened):
    client = await opened(mode="off", cors_origins=(ORIGIN,))
    for origin, status in (
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:8000", 405),
        (ORIGIN, 405),
    ):
        assert (await client.post("/api/v1/audit", headers={"Origin": origin})).status_code == status


async def test_the_document_says_what_each_operation_needs(visitor):
    document = (await visitor.get("/openapi.json")).json()
    flows = document["components"]["securitySchemes"]["oauth2"]["flows"]
    assert set(flows["clientCredentials"]["scopes"]) == set(SCOPES)
    metrics = document["paths"]["/api/v1/metrics"]["get"]
    assert metrics["security"] == [{"oauth2": ["metrics:read"]}, {"bearer": ["metrics:read"]}]
    assert {"401", "403", "429"} <= set(metrics["responses"])
    assert document["paths"]["/api/v1/audit"]["get"]["security"] == [
        {"oauth2": ["admin"]},
        {"bearer": ["admin"]},
    ]
    assert document["paths"]["/api/v1/health"]["get"]["security"] == []
    token = document["paths"]["/oauth2/token"]["post"]
    assert "application/x-www-form-urlencoded" in token["requestBody"]["content"]
    assert {"200", "400", "401", "413", "429"} <= set(token["responses"])


def test_a_service_that_listens_elsewhere_is_limited(guarded):
    anywhere = msgspec.structs.replace(guarded, server=Server(host="192.0.2.1"))
    assert anywhere.rate_limits == (60_000, 60_000)


def test_httpx_sends_what_these_tests_say():
    """Else two headers might reach the service as one."""
    request = httpx.Request("GET", "http://a", headers=[("Authorization", "x"), ("Authorization", "x")])
    assert request.headers.get_list("authorization") == ["x", "x"]
