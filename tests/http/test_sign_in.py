"""Signing in on the pages: a cookie that only our own pages can use, and that ends when it should."""

import msgspec
import pytest

from service.auth import clients
from service.database.gateway import open_database
from service.database.queries import Command, Statement
from service.settings import Pages
from tests.conftest import serving
from tests.http.conftest import CHOSEN, SECRET
from tests.http.sessions import COOKIE, OWN, PAGE, signed_in
from tests.live import conversing, watching
from tests.waiting import until

METRICS, ITEMS = "/api/v1/metrics", "/api/v1/items"
NEW = {"sql": "SELECT 1 AS n"}
FORM = {"client_id": "poller", "client_secret": SECRET}


class Row(msgspec.Struct, frozen=True):
    action: str
    target: str


async def test_a_page_sends_who_is_not_signed_in_to_the_form_and_back(visitor):
    for path in ("/", "/d/sales?start_date=2025-06-01&kiosk"):
        answer = await visitor.get(path, headers=PAGE)
        assert answer.status_code == 303
        form = await visitor.get(answer.headers["location"], headers=PAGE)
        assert form.status_code == 200
        assert f'name="next" value="{path.replace("&", "&amp;")}"' in form.text
    assert (await visitor.get("/")).json()["docs"] == "/docs"


async def test_id_and_secret_give_a_cookie_for_our_own_pages_alone(visitor):
    answer = await visitor.post("/sign-in", data=FORM | {"next": "/d/sales"}, headers=PAGE | OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/d/sales")
    cookie = answer.headers["set-cookie"]
    attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= attributes
    assert "secure" not in attributes
    assert SECRET not in cookie
    visitor.cookies.clear()


async def test_the_cookie_opens_pages_api_and_streams(visitor, token, guarded_metric):
    browser = await signed_in(visitor)
    page = await visitor.get("/", headers=PAGE | browser)
    assert page.status_code == 200
    assert "Sign out" in page.text
    for _ in range(2):  # computed, then held
        assert (await visitor.get(f"{METRICS}/{guarded_metric}", headers=browser)).status_code == 200
    async with watching(visitor, f"/api/v1/metrics/{guarded_metric}/events", **browser) as stream:
        assert (await stream.event()).name == "result"
    async with conversing(visitor, **browser, Origin="http://127.0.0.1:8000") as socket:
        await socket.say(type="subscribe", id=guarded_metric)
        assert (await socket.hear())["type"] == "result"
    ticket = await visitor.post("/live/tickets", headers=browser | OWN)
    assert ticket.status_code == 201
    async with watching(
        visitor, f"/api/v1/events?ids={guarded_metric}&ticket={ticket.json()['ticket']}"
    ) as stream:
        assert (await stream.event()).name == "result"


async def test_the_scopes_of_the_client_decide(visitor):
    poller, backend = await signed_in(visitor), await signed_in(visitor, "backend", CHOSEN)
    refused = await visitor.post(METRICS, json=NEW, headers=poller | OWN)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert (await visitor.get("/api/v1/audit", headers=backend)).status_code == 403
    allowed = await visitor.post(METRICS, json=NEW, headers=backend | OWN)
    assert allowed.status_code == 201


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({"client_secret": "wrong"}, id="wrong secret"),
        pytest.param({"client_id": "nobody"}, id="unknown client"),
        pytest.param({"client_id": "<script>alert(1)</script>"}, id="markup"),
        pytest.param({"client_id": "", "client_secret": ""}, id="nothing"),
    ],
)
async def test_a_wrong_secret_gives_the_form_again_without_a_word_on_what_is_wrong(visitor, sent):
    answer = await visitor.post("/sign-in", data=FORM | sent, headers=PAGE | OWN)
    assert answer.status_code == 401
    assert "Client id or secret is wrong." in answer.text
    assert "set-cookie" not in answer.headers
    assert SECRET not in answer.text
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/a\nb", "", "x"],
)
async def test_nobody_is_sent_to_another_site(visitor, target):
    answer = await visitor.post("/sign-in", data=FORM | {"next": target}, headers=PAGE | OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    visitor.cookies.clear()
    page = await visitor.get("/sign-in", params={"next": target}, headers=PAGE)
    assert 'name="next" value="/"' in page.text


FOREIGN = {
    "no word of where it comes from": {},
    "another site": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    "another port": {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
    "a sandboxed frame": {"Origin": "null"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_no_other_site_signs_anybody_in_or_out(visitor, headers):
    browser = await signed_in(visitor)
    for path, form in (("/sign-in", FORM), ("/sign-out", {})):
        answer = await visitor.post(path, data=form, headers={"Cookie": browser["Cookie"], **headers})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    assert (await visitor.get(METRICS, headers=browser)).status_code == 200


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_no_other_site_changes_anything_with_the_cookie(visitor, headers):
    cookie = {"Cookie": (await signed_in(visitor, "backend", CHOSEN))["Cookie"]}
    before = (await visitor.get(ITEMS, headers=cookie)).json()
    answer = await visitor.post(ITEMS, json={"title": "forged"}, headers=cookie | headers)
    assert answer.status_code in {401, 403}
    assert (await visitor.get(ITEMS, headers=cookie)).json() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Referer": "https://evil.example/page"},
    ],
)
async def test_no_other_site_reads_with_the_cookie(visitor, guarded_metric, headers):
    browser = await signed_in(visitor)
    for _ in range(2):  # from now on the answer to our own page comes from memory
        assert (await visitor.get(f"{METRICS}/{guarded_metric}", headers=browser)).status_code == 200
    cookie = {"Cookie": browser["Cookie"]}
    for path in (METRICS, f"{METRICS}/{guarded_metric}", f"/api/v1/metrics/{guarded_metric}/events"):
        assert (await visitor.get(path, headers=cookie | headers)).status_code == 401
    async with conversing(visitor, **cookie, Origin="https://evil.example") as socket:
        await socket.say(type="subscribe", id=guarded_metric)
        assert (await socket.hear())["type"] != "result"


async def test_a_link_on_another_site_opens_the_page_of_who_is_signed_in(visitor):
    first = await visitor.get("/d/sales", headers=PAGE | {"Sec-Fetch-Site": "cross-site"})
    assert first.status_code == 200
    assert 'http-equiv="refresh" content="0;url=/d/sales"' in first.text


async def test_the_cookie_of_before_is_never_taken_over(visitor):
    planted = "A" * 43
    answer = await visitor.post("/sign-in", data=FORM, headers=PAGE | OWN | {"Cookie": f"{COOKIE}={planted}"})
    assert answer.cookies[COOKIE] != planted
    visitor.cookies.clear()
    assert (await visitor.get(METRICS, headers={"Cookie": f"{COOKIE}={planted}"})).status_code == 401


async def test_signing_in_again_ends_the_session_of_before(visitor):
    old = await signed_in(visitor)
    answer = await visitor.post("/sign-in", data=FORM, headers=PAGE | OWN | {"Cookie": old["Cookie"]})
    assert answer.status_code == 303
    visitor.cookies.clear()
    assert (await visitor.get(METRICS, headers=old)).status_code == 401


async def test_signing_out_ends_the_session_and_its_streams(visitor, guarded_metric):
    browser = await signed_in(visitor)
    assert (await visitor.get(f"{METRICS}/{guarded_metric}", headers=browser)).status_code == 200
    async with watching(visitor, f"/api/v1/metrics/{guarded_metric}/events", **browser) as stream:
        assert (await stream.event()).name == "result"
        answer = await visitor.post("/sign-out", headers=browser | OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
        assert "max-age=0" in answer.headers["set-cookie"].lower()
        assert (await stream.event()).name == "denied"
    assert (await visitor.get(f"{METRICS}/{guarded_metric}", headers=browser)).status_code == 401


async def test_another_process_hears_of_the_end_of_a_session(visitor, opened):
    other = await opened()
    browser = await signed_in(visitor)
    assert (await other.get(METRICS, headers=browser)).status_code == 200
    await visitor.post("/sign-out", headers=browser | OWN)

    async def refused():
        return (await other.get(METRICS, headers=browser)).status_code == 401

    await until(refused)


async def test_a_session_ends_with_its_time(guarded):
    short = msgspec.structs.replace(guarded, pages=Pages(session_ttl_s=60))
    async with serving(short) as client:
        browser = await signed_in(client)
        assert (await client.get(METRICS, headers=browser)).status_code == 200
        async with open_database(guarded.database.url or "") as database:
            past = "UPDATE app.session SET expires_at = now() - interval '1 second' WHERE subject = 'poller'"
            await database.write(Command("end", past))
            await database.write(Command("sweep", "DELETE FROM app.session WHERE expires_at < now()"))

        async def over():
            return (await client.get(METRICS, headers=browser)).status_code == 401

        await until(over)


async def test_a_revoked_client_and_one_with_a_new_secret_are_signed_out(visitor, guarded_database):
    for end in (clients.renew, clients.revoke):
        name = f"ann-{end.__name__}"
        secret = await clients.add(guarded_database, name, ("metrics:read",), chosen=None, actor="test")
        browser = await signed_in(visitor, name, secret)
        assert (await visitor.get(METRICS, headers=browser)).status_code == 200
        more = {"chosen": None} if end is clients.renew else {}
        await end(guarded_database, name, actor="test", **more)

        async def refused(browser=browser):
            return (await visitor.get(METRICS, headers=browser)).status_code == 401

        await until(refused)


async def test_a_token_in_the_cookie_is_ignored_and_the_session_is_no_token(visitor, token):
    (bearer,) = token("metrics:read").values()
    cookie = {"Cookie": f"{COOKIE}={bearer.removeprefix('Bearer ')}"}
    assert (await visitor.get(METRICS, headers=cookie)).status_code == 401
    value = (await signed_in(visitor))["Cookie"].partition("=")[2]
    assert (await visitor.get(METRICS, headers={"Authorization": f"Bearer {value}"})).status_code == 401


async def test_a_token_counts_more_than_the_cookie(visitor, token):
    browser = await signed_in(visitor)
    assert (await visitor.get(METRICS, headers=browser | token("items:read"))).status_code == 403
    assert (await visitor.get(METRICS, headers=browser | {"Authorization": "Bearer x"})).status_code == 401


@pytest.mark.parametrize(
    "cookie",
    [
        f"{COOKIE}=",
        f"{COOKIE}={'A' * 42}",
        f"{COOKIE}={'A' * 44}",
        f"{COOKIE}={'A' * 43}",
        f"x{COOKIE}={{value}}",
        f"{COOKIE}={{value}}; {COOKIE}={'A' * 43}",
        f"{COOKIE}={{value}}x",
    ],
)
async def test_a_cookie_that_is_not_exactly_the_session_is_none(visitor, cookie):
    value = (await signed_in(visitor))["Cookie"].partition("=")[2]
    headers = {"Cookie": cookie.format(value=value)}
    assert (await visitor.get(METRICS, headers=headers)).status_code == 401
    among = {"Cookie": f"theme=dark; {COOKIE}={value}; other=1"}
    assert (await visitor.get(METRICS, headers=among)).status_code == 200


async def test_behind_https_the_cookie_is_for_this_host_alone(opened):
    client = await opened(public_url="https://tally.example")
    headers = PAGE | {"Origin": "https://tally.example", "Sec-Fetch-Site": "same-origin"}
    answer = await client.post("/sign-in", data=FORM, headers=headers)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-tally=")
    assert "secure" in cookie.lower()
    client.cookies.clear()


async def test_the_database_holds_nothing_that_opens_a_session_and_the_audit_has_each(
    visitor, guarded_database
):
    browser = await signed_in(visitor)
    value = browser["Cookie"].partition("=")[2]

    class Text(msgspec.Struct, frozen=True):
        row: str

    rows = await guarded_database.read(Statement("all", "SELECT s::text AS row FROM app.session AS s", Text))
    assert rows
    assert not any(value in each.row for each in rows)
    await visitor.post("/sign-out", headers=browser | OWN)
    newest = "SELECT action, target FROM app.audit ORDER BY id DESC LIMIT 2"
    deeds = await guarded_database.read(Statement("deeds", newest, Row))
    assert deeds == [Row("session.end", "poller"), Row("session.begin", "poller")]


async def test_with_auth_off_nobody_signs_in(client):
    assert (await client.get("/sign-in", headers=PAGE)).headers["location"] == "/"
    page = await client.get("/", headers=PAGE)
    assert "Sign" not in page.text
