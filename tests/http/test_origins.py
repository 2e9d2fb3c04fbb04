"""AUTH=off: which names and which pages of a browser get in, and what those of other sites may do."""

from uuid import uuid4

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.app import create_app
from service.auth.guards import scope_of
from service.auth.origins import read_host
from service.settings import Auth, is_loopback
from tests.conftest import serving
from tests.http.test_auth import ORIGIN, routes

FOREIGN = {
    "an image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "an image of another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image"},
    "an image in an old browser": {"Referer": "https://evil.example/page"},
    "a link": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    "a script": {"Origin": "https://evil.example"},
    "a script of another port": {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
    "a sandboxed frame": {"Origin": "null"},
    "a word of a later browser": {"Sec-Fetch-Site": "near-site"},
    "a broken referer": {"Referer": "http://[::1"},
}
OWN = {
    "a command": {},
    "the address bar": {"Sec-Fetch-Site": "none"},
    "our own page": {"Sec-Fetch-Site": "same-origin", "Referer": "http://127.0.0.1:8000/docs"},
    "our own page in an old browser": {"Referer": "http://127.0.0.1:8000/docs"},
    "our own script": {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
    "an allowed site": {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
}
MALFORMED = [
    b"[::1", b"[", b"]", b"a]b", b"[::1]x", b"[::1%25lo]", b"[127.0.0.1]", b"[]", b"::1", b":8000",
    b"127.0.0.1:x", b"127.0.0.1:8000.evil.example", b"evil@127.0.0.1", b"user:pw@localhost",
    b"127.0.0.1:99999", b"127.0.0.1:-1", b"127.0.0.1:+1", b"127.0.0.1:1:1", b"127.0.0.1 evil",
    b"127.0.0.1\tevil", b"127.0.0.1/evil", b"127.0.0.1?x", b"127.0.0.1#x", b"127.0.0.1\\evil",
    b"\xff", b"127.0.0.1:\xb2", b"\xef\xbc\x91.0.0.1", b"%zz", b"%", b"a\x7f",
]  # fmt: skip
ELSEWHERE = [
    b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil.example:8000", b"127.0.0.1,evil",
    b"localhost.", b"127.1", b"0x7f.1", b"2130706433", b"%6cocalhost", b"[::ffff:127.0.0.1]",
    b"[v1.a]", b"0", b"0.0.0.0", b"[::]", b"017700000001", b"127.0.0.1%2eevil", b"128.0.0.1",
]  # fmt: skip
BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
async def everyone(guarded):
    auth = msgspec.structs.replace(guarded.auth, mode="off", cors_origins=(ORIGIN,))
    async with serving(msgspec.structs.replace(guarded, auth=auth)) as opened:
        yield opened


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_a_page_of_another_site_changes_no_item_by_reading_it(everyone, headers, method):
    item = (await everyone.post("/api/v1/items", json={"title": "mine"})).json()
    for root in ("/api/v1", "//api//v1//", "/api%2fv1"):
        address = f"{BASE}{root}/external/fetch-data/{item['id']}"
        answer = await everyone.request(method, address, headers=headers)
        assert answer.status_code == 403
    assert (await everyone.get(f"/api/v1/items/{item['id']}")).json() == item


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_whether_a_route_writes_is_told_by_its_scope(everyone, guarded, headers):
    refused = 0
    for method, _, path, handler in routes(guarded):
        scope = scope_of(handler)
        if scope is None or scope.endswith(":read"):
            continue
        refused += 1
        answer = await everyone.request(method, path, headers=headers, content=b"{")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
        assert "CORS_ORIGINS" in answer.json()["detail"]
    assert refused > 20


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_a_page_of_another_site_may_have_read(everyone, headers):
    """The browser shows it nothing of the answer."""
    for path in ("/api/v1/metrics", "/health/live", "/docs"):
        assert (await everyone.get(path, headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
async def test_own_pages_and_commands_do_everything(everyone, headers):
    assert (await everyone.get("/api/v1/external/fetch-data/999", headers=headers)).status_code == 404
    assert (await everyone.post("/api/v1/items", json={"title": "x"}, headers=headers)).status_code == 201


async def test_two_origins_are_not_read_as_the_better_one(everyone):
    both = [("Origin", "http://127.0.0.1:8000"), ("Origin", "https://evil.example")]
    for headers in (both, both[::-1]):
        assert (await everyone.get("/api/v1/external/fetch-data/1", headers=headers)).status_code == 403


async def test_a_socket_of_another_site_is_refused(guarded):
    sent = []

    async def send(message):
        sent.append(message)

    off = msgspec.structs.replace(guarded, auth=Auth(mode="off"))
    scope = {
        "type": "websocket",
        "path": "/live",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:3000")],
    }
    await create_app(off)(scope | {"state": {}}, None, send)
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("host", MALFORMED)
@pytest.mark.parametrize("mode", ["on", "off"])
async def test_a_malformed_host_is_no_http(everyone, visitor, token, host, mode):
    client = {"on": visitor, "off": everyone}[mode]
    good = (await client.get("/health", headers={"Host": "localhost", **token("metrics:read")})).status_code
    assert good == 200
    for path in ("/health", "/health/live", "/", "/nothing", f"/api/v1/metrics/{uuid4()}"):
        answer = await client.get(path, headers={"Host": host, **token("metrics:read")})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), path
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("host", ELSEWHERE)
async def test_a_name_of_elsewhere_is_not_this_machine(everyone, host):
    assert (await everyone.get("/health/live", headers={"Host": host})).status_code == 403


async def test_two_hosts_are_no_http(everyone):
    for other in ("127.0.0.1:8000", "evil.example"):
        both = [("Host", "127.0.0.1:8000"), ("Host", other)]
        assert (await everyone.get("/health/live", headers=both)).status_code == 400


async def test_with_tokens_any_name_will_do(visitor):
    assert (await visitor.get("/health/live", headers={"Host": "tally.example:8443"})).status_code == 200


@given(st.binary(max_size=40) | st.from_regex(rb"[\[\]:.@%/1270loca-]{1,30}", fullmatch=True))
@example(b"127.0.0.1:80")
@example(b"LOCALHOST")
@example(b"[::1]:8000")
def test_what_is_read_as_loopback_is_written_as_loopback(host):
    name = read_host(host)
    if name is not None and is_loopback(name):
        written, _, port = host.decode().lower().rpartition(":" if host[-1:] != b"]" else "\0")
        assert (written or port) in {name, f"[{name}]"}


async def test_spellings_of_one_metric_are_counted_together(opened, token):
    client, headers = await opened(metric_rate_limit=1), token("metrics:read")
    for spell in SPELLINGS:
        metric_id = uuid4()
        first = await client.get(f"{BASE}{spell(metric_id)}", headers=headers)
        assert first.status_code == 404
        for method in ("GET", "HEAD"):
            again = await client.request(method, f"/metrics/{metric_id}", headers=headers)
            assert again.status_code == 429, first.url


SPELLINGS = [
    lambda found: f"/api/v1/metrics/{found}",
    lambda found: f"/metrics/{found}",
    lambda found: f"/api/v1/metrics/{str(found).upper()}",
    lambda found: f"/api/v1/metrics/{found.hex}",
    lambda found: f"/api/v1/metrics/{found.hex.upper()}/",
    lambda found: f"//api///v1//metrics//{found}//",
    lambda found: f"/api/v1/%6detrics/{found}",
    lambda found: f"/api%2Fv1%2Fmetrics%2f{found}",
    lambda found: f"/api/v1/metrics/%{ord(str(found)[0]):02x}{str(found)[1:]}",
    lambda found: f"/api/v1/metrics/{found}/definition",
    lambda found: f"/api/v1/metrics/{found}?format=csv",
]


async def test_spellings_that_are_no_id_are_no_metrics(opened, token):
    client = await opened(metric_rate_limit=1)
    for text in (f"{{{uuid4()}}}", f"urn:uuid:{uuid4()}", "batch", "0"):
        for _ in range(2):
            answer = await client.get(f"/api/v1/metrics/{text}", headers=token("metrics:read"))
            assert answer.status_code in {405, 422}, text
