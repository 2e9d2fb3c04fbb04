"""Signed links: what they open, that nobody changes what they say, and that they end when they should."""

import csv
import io
import json
import re
from urllib.parse import parse_qsl

import msgspec
import pytest

from service.dashboard.links.signing import Claims, Signer
from service.database.gateway import open_database
from service.database.queries import Command, Statement
from service.errors import Busy
from service.http import base64url
from service.settings import Auth, Pages
from tests.conftest import serving, store_metric, visible
from tests.http.sessions import PAGE
from tests.http.test_pages import data_of
from tests.live import watching
from tests.waiting import until

SQL = "SELECT :kind::text AS kind, count(*) AS n FROM metrics"
DATED = "SELECT count(*) AS n FROM metrics WHERE date BETWEEN '2025-06-01' AND '2025-06-30'"
LINKS = "/api/v1/dashboards/sales/links"
OTHER = "11111111-1111-4111-8111-111111111111"


class Row(msgspec.Struct, frozen=True):
    action: str
    target: str


@pytest.fixture
async def shop(clone, client):
    """A dashboard `sales` of two metrics, and one metric that is on none."""
    ids = [await store_metric(clone, sql) for sql in (SQL, DATED, "SELECT 7 AS secret")]
    await visible(client, ids[-1])
    await client.post("/dashboards", json={"id": "sales", "title": "Sales"})
    places = [{"i": each, "x": 0, "y": 8 * n, "w": 6, "h": 8} for n, each in enumerate(ids[:2])]
    answer = await client.put("/dashboards/sales/layouts", json={"lg": places})
    assert answer.status_code == 200
    return ids


async def made(client, **body):
    """A new link: its address below this service, and what the API says of it."""
    answer = await client.post(LINKS, json={"parameters": {"kind": "Critical"}, **body})
    assert answer.status_code == 201, answer.text
    link = answer.json()
    assert link["url"].startswith("http://127.0.0.1:8000/s/")
    return link["url"].removeprefix("http://127.0.0.1:8000"), link


async def test_a_link_opens_the_page_its_data_each_result_and_the_stream(client, shop):
    address, link = await made(client)
    assert link["parameters"] == {"kind": "Critical"}
    page = await client.get(address, headers=PAGE)
    assert page.status_code == 200
    shown = data_of(page)
    assert (shown["api"], shown["data"], shown["scopes"], shown["link"]) == (
        address,
        f"{address}/data",
        [],
        True,
    )
    assert page.headers["referrer-policy"] == "no-referrer"
    results = (await client.get(f"{address}/data")).json()["results"]
    assert [each["id"] for each in results] == shop[:2]
    assert results[0]["result"]["records"][0]["kind"] == "Critical"
    one = await client.get(f"{address}/metrics/{shop[0]}")
    assert one.json() == results[0]["result"]
    assert one.headers["etag"]
    again = await client.get(f"{address}/metrics/{shop[0]}", headers={"If-None-Match": one.headers["etag"]})
    assert again.status_code == 304
    assert (await client.get(f"{address}/metrics/{shop[1]}")).status_code == 200
    for query, number in (("", 2), (f"?ids={shop[1]}", 1)):
        async with watching(client, f"{address}/events{query}") as stream:
            assert stream.status == 200
            events = await stream.events(number)
            assert {event.data["id"] for event in events} == set(shop[2 - number : 2])


async def test_a_link_is_live(client, clone, shop):
    address, _ = await made(client)
    async with watching(client, f"{address}/events?ids={shop[1]}") as stream:
        before = await stream.event()
        add = "INSERT INTO data.metrics (id, date) VALUES ('x', '2025-06-10')"
        await clone.write(Command("add", add))
        after = await stream.event()
        assert after.data["records"][0]["n"] == before.data["records"][0]["n"] + 1
        held = after.id
    async with watching(client, f"{address}/events?ids={shop[1]}&last_event_id={held}") as stream:
        await clone.write(Command("add", add))
        assert (await stream.event()).data["records"][0]["n"] == before.data["records"][0]["n"] + 2


async def test_all_formats_and_csv_with_a_mark_for_spreadsheets(client, shop):
    address, _ = await made(client, parameters={"kind": "Größe"})
    one = f"{address}/metrics/{shop[0]}"
    plain = await client.get(f"{one}?format=csv")
    marked = await client.get(f"{one}?format=csv&bom=1")
    assert marked.content == b"\xef\xbb\xbf" + plain.content
    assert marked.headers["etag"] != plain.headers["etag"]
    assert marked.headers["content-type"] == plain.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(marked.content.decode("utf-8-sig"))))
    assert rows[1][0] == "Größe"
    assert (await client.get(f"{one}?format=csv&bom=0")).content == plain.content
    assert json.loads((await client.get(f"{one}?format=ndjson&bom=1")).text)["kind"] == "Größe"
    assert (await client.get(f"{one}?format=csv&bom=yes")).status_code == 422


async def test_csv_of_a_link_runs_nothing_in_a_spreadsheet_and_names_its_file(client, shop):
    address, _ = await made(client, parameters={"kind": "=1+1/../x"})
    one = f"{address}/metrics/{shop[0]}"
    for query in ("format=csv", "format=csv&bom=1", "format=csv&excel=true"):
        answer = await client.get(f"{one}?{query}")
        assert list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))[1][0] == "'=1+1/../x"
    as_it_is = await client.get(f"{one}?format=csv&excel=false")
    assert list(csv.reader(io.StringIO(as_it_is.text)))[1][0] == "=1+1/../x"
    name = as_it_is.headers["content-disposition"].partition(";")[2]
    assert re.search(r"filename=\"metric_kind==1\+1-\.\.-x_as-of-\d{8}T\d{6}Z.csv\"", name), name
    assert (await client.get(one)).json()["records"][0]["kind"] == "=1+1/../x"
    assert "content-disposition" not in (await client.get(one)).headers


@pytest.mark.parametrize(
    "query",
    ["kind=Info", "kind=Info&kind=Critical", "parameters=%7B%22kind%22%3A%22Info%22%7D", "KIND=Info", "p=1",
     "start_date=2025-01-01", "kind%00=Info", "kind[]=Info", "dashboard=default", "link=2", "ticket=x"],
)  # fmt: skip
async def test_parameters_in_the_address_are_refused_and_change_nothing_on_the_page(client, shop, query):
    address, _ = await made(client)
    name = parse_qsl(query)[0][0]
    for path in ("data", f"metrics/{shop[0]}", f"metrics/{shop[1]}"):
        answer = await client.get(f"{address}/{path}?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, name)
    page = await client.get(f"{address}?{query}", headers=PAGE)
    assert data_of(page)["parameters"] == {}
    async with watching(client, f"{address}/events?ids={shop[0]}&{query}") as stream:
        assert (stream.status, stream.problem["errors"][0]["field"]) == (422, name)


async def test_the_parameters_that_a_link_fixes_may_be_repeated(client, shop):
    """The page of a link asks for its tiles with them."""
    address, _ = await made(client)
    fixed = "kind=Critical"
    for path in ("data", f"metrics/{shop[0]}"):
        plain = await client.get(f"{address}/{path}")
        assert (await client.get(f"{address}/{path}?{fixed}")).content == plain.content
    async with watching(client, f"{address}/events?ids={shop[0]}&{fixed}") as stream:
        assert (await stream.event()).data["records"][0]["kind"] == "Critical"


@pytest.fixture
def stumbling(client, monkeypatch):
    """Lets the next planning of a metric fail, as in a crowd, and the one after it succeed."""
    executor = client.service.state.services.executor
    prepare, failing = executor.prepare, []

    async def prepared(metric):
        if str(metric.id) in failing:
            failing.remove(str(metric.id))
            raise Busy(headers={"Retry-After": "1"})
        return await prepare(metric)

    monkeypatch.setattr(executor, "prepare", prepared)
    return failing


async def test_a_metric_that_cannot_be_planned_for_a_moment_never_shows_more_than_the_link(
    client, shop, stumbling
):
    june = {"start_date": "2025-06-03", "end_date": "2025-06-04"}
    address, _ = await made(client, parameters=june)
    stumbling.append(shop[1])
    answer = await client.get(f"{address}/metrics/{shop[1]}")
    assert (answer.status_code, answer.json()["parameters"]) == (200, june)
    stumbling.append(shop[1])
    tile = (await client.get(f"{address}/data", headers={"Cache-Control": "no-cache"})).json()["results"][1]
    assert (tile["status"], tile["result"]["parameters"]) == (200, june)
    stumbling.append(shop[1])
    async with watching(client, f"{address}/events?ids={shop[1]}") as stream:
        assert (await stream.event()).data["parameters"] == june


async def test_a_link_is_not_refused_for_what_cannot_be_planned_for_a_moment(client, shop, stumbling):
    stumbling.append(shop[0])
    answer = await client.post(LINKS, json={"parameters": {"kind": "Critical"}})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await made(client)


async def test_only_the_tiles_of_its_dashboard_answer(client, shop):
    address, _ = await made(client)
    outside = [
        f"metrics/{shop[2]}",
        f"metrics/{OTHER}",
        f"metrics/{shop[0]}/definition",
        f"metrics/{shop[0]}/../{shop[2]}",
        f"events?ids={shop[2]}",
        f"events?ids={shop[0]},{shop[2]}",
        "dashboards/default/data",
        "definition",
        "links",
        "metrics",
    ]
    for path in outside:
        assert (await client.get(f"{address}/{path}")).status_code == 404, path
    for bad in ("metrics/x", "events?ids=x", f"events?ids={shop[0]}&ids={shop[2]}"):
        assert (await client.get(f"{address}/{bad}")).status_code == 422, bad
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await client.request(method, f"{address}/data")).status_code == 405
        assert (await client.request(method, address)).status_code == 405


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    return Signer(tmp_path_factory.mktemp("other") / "key")


async def test_nobody_changes_or_makes_a_token(client, shop, forged):
    address, link = await made(client)
    token = address.removeprefix("/s/")
    payload, signature = token.split(".")
    claims = msgspec.json.decode(base64url.decode(payload.encode()))
    changes = [
        {"dashboard": "default"},
        {"parameters": {"kind": "Info"}},
        {"expires": 2**40},
        {"link": 99},
    ]
    texts = [base64url.encode(msgspec.json.encode(claims | each)).decode() for each in changes]
    expires = claims["expires"]
    tokens = [
        *(f"{text}.{signature}" for text in texts),
        forged.sign(Claims(link["id"], "sales", {"kind": "Info"}, expires)),
        payload,
        f"{payload}.",
        f".{signature}",
        f"{payload}.{signature[:-1]}",
        f"{payload}.{signature}A",
        f"{payload}.{signature}=",
        f"{payload}.{signature}.{signature}",
        f"{payload}=.{signature}",
        f"{signature}.{payload}",
        "x",
        "%ff%fe",
        "ü",
        "a" * 9000,
    ]
    for each in tokens:
        for path in ("", "/data", f"/metrics/{shop[0]}", "/events"):
            answer = await client.get(f"/s/{each}{path}")
            assert answer.status_code == 404, (each, path)


async def test_a_revoked_link_is_gone_and_its_stream_ends(client, clone, shop):
    address, link = await made(client)
    other, _ = await made(client)
    assert (await client.get(f"{address}/data")).status_code == 200
    async with watching(client, f"{address}/events") as stream:
        await stream.events(2)
        revoke = f"{LINKS}/{link['id']}"
        assert (await client.delete(revoke)).status_code == 204
        for path in ("", "/data", f"/metrics/{shop[0]}", "/events"):
            gone = await client.get(f"{address}{path}")
            assert (gone.status_code, gone.json()["code"]) == (410, "gone")
        assert (await stream.event()).name == "denied"
    page = await client.get(address, headers=PAGE)
    assert (page.status_code, "Link ended" in page.text) == (410, True)
    assert "frame-ancestors *;" in page.headers["content-security-policy"]
    assert "To the dashboards" not in page.text
    assert (await client.get(f"{other}/data")).status_code == 200
    assert (await client.delete(revoke)).status_code == 204
    newest = "SELECT action, target FROM app.audit ORDER BY id DESC LIMIT 3"
    deeds = await clone.read(Statement("deeds", newest, Row))
    assert deeds[0] == Row("links.revoke", f"sales/{link['id']}")
    assert [deed.action for deed in deeds[1:]] == ["links.create", "links.create"]


async def test_another_process_hears_of_a_revoked_link(client, settings, shop):
    async with serving(settings) as other:
        address, link = await made(client)
        assert (await other.get(f"{address}/data")).status_code == 200
        await client.delete(f"{LINKS}/{link['id']}")

        async def gone():
            return (await other.get(f"{address}/data")).status_code == 410

        await until(gone)


async def test_an_expired_link_is_gone(client, settings, shop):
    address, link = await made(client, expires_in=60)
    assert link["expires_at"] > link["created_at"]
    signer = Signer(settings.database.data_dir / "links.key")
    assert address == f"/s/{signer.sign(signer.read(address.removeprefix('/s/')))}"
    past = signer.sign(Claims(link["id"], "sales", {}, 1_000_000_000))
    for path in ("", "/data", "/events"):
        assert (await client.get(f"/s/{past}{path}")).status_code == 410


async def test_a_token_of_our_key_opens_no_other_dashboard_than_its_link(client, settings, shop):
    """As after a restore of another database, whose links have the same numbers."""
    address, link = await made(client)
    signer = Signer(settings.database.data_dir / "links.key")
    own = signer.read(address.removeprefix("/s/"))
    other = signer.sign(Claims(link["id"], "default", {}, own.expires))
    assert (await client.get(f"{address}/data")).status_code == 200
    assert (await client.get(f"/s/{other}/data")).status_code == 410


async def test_the_links_of_a_deleted_dashboard_are_gone(client, shop):
    address, _ = await made(client)
    assert (await client.delete("/dashboards/sales")).status_code == 204
    for path in ("", "/data", "/events"):
        assert (await client.get(f"{address}{path}")).status_code == 410


async def test_links_are_listed_newest_first_and_paged(client, shop):
    made_links = [(await made(client))[1] for _ in range(3)]
    first = (await client.get(f"{LINKS}?limit=2")).json()
    second = (await client.get(f"{LINKS}?limit=2&cursor={first['next_cursor']}")).json()
    assert [*first["items"], *second["items"]] == made_links[::-1]
    assert second["next_cursor"] is None
    assert (await client.get("/api/v1/dashboards/nothing/links")).status_code == 404
    assert (await client.get("/api/v1/dashboards/default/links")).json()["items"] == []
    for wrong in ("/api/v1/dashboards/default/links", LINKS):
        number = made_links[0]["id"] if "default" in wrong else 999
        assert (await client.delete(f"{wrong}/{number}")).status_code == 404
    assert (await client.delete(f"{LINKS}/x")).status_code == 422


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"parameters": {"color": "red"}}, "parameters.color"),
        ({"parameters": {"start_date": "yesterday"}}, "start_date"),
        ({"parameters": {"kind": None}}, "parameters"),
        ({"parameters": []}, "parameters"),
        ({"expires_in": 1}, "expires_in"),
        ({"expires_in": 10**9}, "expires_in"),
        ({"expires_in": "1"}, "expires_in"),
        ({"embed": ["evil.example"]}, "embed"),
        ({"embed": ["https://a.example/path"]}, "embed"),
        ({"embed": ["https://a.example; script-src *"]}, "embed"),
        ({"embed": ["https://a.example\n"]}, "embed"),
        ({"embed": ["*"]}, "embed"),
        ({"embed": "https://a.example"}, "embed"),
        ({"embed": ["https://a.example"] * 21}, "embed"),
        ({"nothing": 1}, "nothing"),
        ({"parameters": {f"p{n}": "x" * 1000 for n in range(4)}}, "parameters"),
        ({"parameters": {"kind": "😀" * 1000}}, "parameters"),
        ({"parameters": {"kind": "x" * 1001}}, "parameters.kind"),
        ({"parameters": {"kind": 10**1000}}, "parameters.kind"),
        ({"parameters": {"kind": [1]}}, "parameters.kind"),
    ],
)
async def test_a_link_that_makes_no_sense_is_refused(client, shop, body, field):
    answer = await client.post(LINKS, json=body)
    assert answer.status_code == 422, answer.text
    assert any(field in each["field"] for each in answer.json()["errors"]), answer.text


async def test_numbers_and_truth_are_fixed_as_they_stand_in_an_address(client, shop):
    answer = await client.post(LINKS, json={"parameters": {"kind": True}})
    assert answer.json()["parameters"] == {"kind": "true"}
    for number, text in ((7, "7"), (-0.5, "-0.5"), (2**53, "9007199254740992"), ("007", "007")):
        answer = await client.post(LINKS, json={"parameters": {"kind": number}})
        assert answer.json()["parameters"] == {"kind": text}
    assert (await client.post("/api/v1/dashboards/nothing/links", json={})).status_code == 404


async def test_who_may_frame_the_page_is_the_links_own_list_and_the_setting(settings, client, shop):
    everywhere = msgspec.structs.replace(settings, pages=Pages(embed_origins=("https://intranet.example",)))
    lists = {"https://a.example:8443": ["https://a.example:8443"], "'none'": []}
    for expected, embed in lists.items():
        address, _ = await made(client, embed=embed)
        policy = (await client.get(address, headers=PAGE)).headers["content-security-policy"]
        assert f"frame-ancestors {expected};" in policy
        assert "unsafe" not in policy
    async with serving(everywhere) as other:
        policy = (await other.get(address, headers=PAGE)).headers["content-security-policy"]
        assert "frame-ancestors https://intranet.example;" in policy


async def test_a_link_answers_so_many_requests_a_minute(settings, client, shop):
    address, _ = await made(client)
    other, _ = await made(client)
    async with serving(msgspec.structs.replace(settings, pages=Pages(link_rate_limit=3))) as slow:
        answers = [await slow.get(f"{address}/data") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await slow.get(address, headers=PAGE)).status_code == 429
        assert (await slow.get(f"{other}/data")).status_code == 200


async def test_where_tokens_are_needed_a_link_needs_none_and_gives_no_other_rights(settings, client, shop):
    address, _ = await made(client)
    async with serving(msgspec.structs.replace(settings, auth=Auth())) as guarded:
        assert (await guarded.get(f"{address}/data")).status_code == 200
        assert (await guarded.get(f"{address}/metrics/{shop[0]}")).status_code == 200
        async with watching(guarded, f"{address}/events") as stream:
            assert len(await stream.events(2)) == 2
        page = await guarded.get(address, headers=PAGE)
        assert page.status_code == 200
        assert "/sign-in" not in page.text
        for token in ("Bearer nonsense", f"Bearer {address[3:]}"):
            answer = await guarded.get(f"{address}/data", headers={"Authorization": token})
            assert answer.status_code == 200
        for path in ("/api/v1/metrics", f"/api/v1/metrics/{shop[0]}", LINKS):
            for header in (
                {},
                {"Authorization": f"Bearer {address[3:]}"},
                {"Cookie": f"tally_8000={address[3:]}"},
            ):
                assert (await guarded.get(path, headers=header)).status_code == 401
        assert (await guarded.post(LINKS, json={})).status_code == 401


async def test_stored_sql_sees_the_link_as_the_caller(settings, client, clone):
    sql = "SELECT current_setting('request.claims', true) AS claims"
    metric = await store_metric(clone, sql, trusted=True)
    await visible(client, metric)
    await client.post("/dashboards", json={"id": "sales", "title": "Sales"})
    await client.put(
        "/dashboards/sales/layouts", json={"lg": [{"i": metric, "x": 0, "y": 0, "w": 6, "h": 8}]}
    )
    answer = await client.post(LINKS, json={})
    address = answer.json()["url"].removeprefix("http://127.0.0.1:8000")
    own = (await client.get(f"{address}/metrics/{metric}")).json()["records"][0]["claims"]
    assert json.loads(own) == {"sub": f"link:{answer.json()['id']}"}
    everyone = (await client.get(f"/metrics/{metric}")).json()["records"][0]["claims"]
    assert json.loads(everyone) == {"sub": "local"}


async def test_all_processes_sign_with_one_key_that_others_cannot_read(settings, client, shop):
    address, _ = await made(client)
    key = settings.database.data_dir / "links.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) >= 32
    async with serving(settings) as other:
        assert (await other.get(f"{address}/data")).status_code == 200


async def test_the_database_does_not_hold_the_token(client, clone, settings, shop):
    address, _ = await made(client)

    class Text(msgspec.Struct, frozen=True):
        row: str

    async with open_database(settings.database.url or "") as database:
        rows = await database.read(Statement("all", "SELECT l::text AS row FROM app.link AS l", Text))
    assert rows
    assert not any(address[3:40] in each.row for each in rows)
