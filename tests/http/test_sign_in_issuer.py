"""Signing in at an OpenID Connect issuer: the code flow with PKCE, and each way to cheat it."""

from urllib.parse import parse_qs, urlsplit

import pytest

from service.dashboard.sign_in import FLOW_COOKIE
from tests.http.issuer import CLIENT, SECRET, CodeIssuer
from tests.http.sessions import COOKIE, OWN, PAGE

METRICS = "/api/v1/metrics"


@pytest.fixture
async def issuer(tmp_path):
    started = CodeIssuer(tmp_path)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def client(opened, issuer):
    client = await opened(
        oidc_issuer=issuer.url,
        oidc_audience=(CLIENT,),
        oidc_client_secret=SECRET,
        oidc_scope="openid metrics:read",
    )
    yield client
    client.cookies.clear()


async def begun(client, issuer, following="/d/sales"):
    """The callback's query and the flow's cookie after the issuer has sent the browser back."""
    answer = await client.get("/sign-in/issuer", params={"next": following}, headers=PAGE)
    assert answer.status_code == 303
    query, asked = issuer.authorize(answer.headers["location"])
    cookie = f"{FLOW_COOKIE}={answer.cookies[FLOW_COOKIE]}"
    client.cookies.clear()
    return query, {**PAGE, "Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, asked, answer


async def test_a_person_signs_in_at_the_issuer_and_comes_back(client, issuer):
    form = await client.get("/sign-in", params={"next": "/d/sales"}, headers=PAGE)
    assert 'href="/sign-in/issuer?next=%2Fd%2Fsales"' in form.text
    query, headers, asked, sent = await begun(client, issuer)
    assert (asked["client_id"], asked["scope"]) == (CLIENT, "openid metrics:read")
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["redirect_uri"] == "http://127.0.0.1:8000/sign-in/callback"
    attributes = sent.headers["set-cookie"].lower()
    assert "httponly" in attributes
    assert "samesite=lax" in attributes
    assert "path=/sign-in/callback" in attributes
    back = await client.get("/sign-in/callback", params=query, headers=headers)
    assert back.status_code == 200
    assert 'content="0;url=/d/sales"' in back.text
    session = {"Cookie": f"{COOKIE}={back.cookies[COOKIE]}", "Sec-Fetch-Site": "same-origin"}
    client.cookies.clear()
    page = await client.get("/", headers=PAGE | session)
    assert f"Signed in as {issuer.url}|ann" in page.text
    assert (await client.get(METRICS, headers=session)).status_code == 200
    refused = await client.post(METRICS, json={"sql": "SELECT 1 AS n"}, headers=session | OWN)
    assert refused.status_code == 403


async def test_a_code_works_once(client, issuer):
    query, headers, _, _ = await begun(client, issuer)
    assert (await client.get("/sign-in/callback", params=query, headers=headers)).status_code == 200
    client.cookies.clear()
    again = await client.get("/sign-in/callback", params=query, headers=headers)
    assert (again.status_code, "sign-in-failed" in again.text) == (403, True)
    assert COOKIE not in again.cookies


async def test_another_browsers_answer_signs_nobody_in(client, issuer):
    query, _, _, _ = await begun(client, issuer)
    _, other, _, _ = await begun(client, issuer)
    for cookies in (
        {},
        {"Cookie": other["Cookie"]},
        {"Cookie": f"{FLOW_COOKIE}=x"},
        {"Cookie": f"{FLOW_COOKIE}="},
    ):
        answer = await client.get("/sign-in/callback", params=query, headers=PAGE | cookies)
        assert answer.status_code == 400
        assert COOKIE not in answer.cookies


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"state": "x"}, id="state"),
        pytest.param({"state": None}, id="no state"),
        pytest.param({"code": "code-x"}, id="code"),
        pytest.param({"code": None}, id="no code"),
        pytest.param({"iss": "https://other.example"}, id="issuer"),
        pytest.param({"error": "access_denied"}, id="refusal"),
    ],
)
async def test_a_changed_answer_signs_nobody_in(client, issuer, changed):
    query, headers, _, _ = await begun(client, issuer)
    sent = {name: value for name, value in (query | changed).items() if value is not None}
    answer = await client.get("/sign-in/callback", params=sent, headers=headers)
    assert answer.status_code in {400, 403}
    assert COOKIE not in answer.cookies


async def test_the_flow_goes_to_no_other_site(client, issuer):
    query, headers, _, _ = await begun(client, issuer, "//evil.example")
    back = await client.get("/sign-in/callback", params=query, headers=headers)
    assert 'content="0;url=/"' in back.text


@pytest.mark.parametrize(
    ("answer", "status"),
    [({"access_token": "opaque"}, 401), ({"token": 1}, 403), ([], 403), ({"access_token": ""}, 401)],
)
async def test_an_issuer_that_answers_nonsense_signs_nobody_in(client, issuer, answer, status):
    query, headers, _, _ = await begun(client, issuer)
    issuer.broken = answer
    back = await client.get("/sign-in/callback", params=query, headers=headers)
    assert back.status_code == status
    assert COOKIE not in back.cookies


async def test_the_document_of_another_issuer_sends_nobody_there(client, issuer):
    issuer.named = "https://other.example"
    answer = await client.get("/sign-in/issuer", headers=PAGE)
    assert answer.status_code == 502


async def test_who_has_no_scopes_of_ours_is_told_so(client, issuer):
    issuer.grants["scopes"] = ["openid", "profile"]
    query, headers, _, _ = await begun(client, issuer)
    back = await client.get("/sign-in/callback", params=query, headers=headers)
    session = {"Cookie": f"{COOKIE}={back.cookies[COOKIE]}", "Sec-Fetch-Site": "same-origin"}
    client.cookies.clear()
    page = await client.get("/", headers=PAGE | session)
    assert page.status_code == 403
    assert "metrics:read" in page.text


async def test_without_an_issuer_there_is_no_way_to_one(visitor):
    assert "/sign-in/issuer" not in (await visitor.get("/sign-in", headers=PAGE)).text
    answer = await visitor.get("/sign-in/issuer", headers=PAGE)
    assert answer.status_code == 404


async def test_the_address_of_the_issuer_is_asked_for_with_every_parameter_once(client, issuer):
    answer = await client.get("/sign-in/issuer", headers=PAGE)
    query = parse_qs(urlsplit(answer.headers["location"]).query, strict_parsing=True)
    assert all(len(values) == 1 for values in query.values())
    client.cookies.clear()
