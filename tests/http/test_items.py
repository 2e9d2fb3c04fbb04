"""Items over HTTP: the shapes, the conditions, the refusals."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.database import gateway
from service.settings import Auth, Database, Settings
from tests.conftest import Server, _cloned, serving
from tests.db.test_item_store import EVENTS

ITEMS = "/api/v1/items"
FIELDS = ["id", "title", "description", "external_data", "summary", "created_at", "updated_at"]


@pytest.fixture(scope="module")
async def addresses(server: Server, template: str) -> AsyncGenerator[Database]:
    """One database for all tests of this file: each works on items of its own."""
    async with _cloned(server, template) as settings:
        yield settings


@pytest.fixture(scope="module")
async def client(addresses: Database) -> AsyncGenerator[httpx.AsyncClient]:
    async with serving(Settings(database=addresses, auth=Auth(mode="off"))) as opened:
        yield opened


async def make(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    answer = await client.post(ITEMS, json={"title": "Buy milk", **fields})
    assert answer.status_code == 201
    return answer


async def test_an_item_is_created_and_read_at_its_location(client: httpx.AsyncClient):
    made = await make(client, description="two litres")
    assert made.headers["Location"] == f"{ITEMS}/{made.json()['id']}"
    assert list(made.json()) == FIELDS
    assert made.json()["external_data"] is None
    read = await client.get(made.headers["Location"])
    assert read.json() == made.json()
    assert read.headers["ETag"] == made.headers["ETag"]


async def test_a_put_replaces_title_and_description_together(client: httpx.AsyncClient):
    made = await make(client, description="two litres")
    put = await client.put(made.headers["Location"], json={"title": "Buy oats"})
    assert put.status_code == 200
    assert (put.json()["title"], put.json()["description"]) == ("Buy oats", None)
    assert put.json()["created_at"] == made.json()["created_at"]


async def test_a_patch_changes_what_it_names(client: httpx.AsyncClient):
    made = await make(client, description="two litres")
    address = made.headers["Location"]
    assert (await client.patch(address, json={"title": "Buy oats"})).json()["description"] == "two litres"
    assert (await client.patch(address, json={"description": None})).json()["title"] == "Buy oats"
    before = await client.get(address)
    assert (await client.patch(address, json={})).json() == before.json()


async def test_a_deleted_item_is_gone(client: httpx.AsyncClient):
    address = (await make(client)).headers["Location"]
    deleted = await client.delete(address)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert (await client.request(method, address)).status_code == 404


async def test_pages_lead_through_all_items_newest_first(client: httpx.AsyncClient):
    made = [(await make(client, title=f"Task {number}")).json()["id"] for number in range(5)]
    found: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get(ITEMS, params={"limit": "2", **cursor})).json()
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert found[:5] == made[::-1]
    assert found == sorted(set(found), reverse=True)


async def test_search_finds_parts_of_titles_page_by_page(client: httpx.AsyncClient):
    for title in ("Buy kumquats", "Garden", "Dried kumquats", "KUMQUATSHAKE"):
        await make(client, title=title)
    first = (await client.get(ITEMS, params={"q": "Kumquat", "limit": "2"})).json()
    rest = (await client.get(ITEMS, params={"q": "Kumquat", "cursor": first["next_cursor"]})).json()
    assert [item["title"] for item in first["items"]] == ["KUMQUATSHAKE", "Dried kumquats"]
    assert [item["title"] for item in rest["items"]] == ["Buy kumquats"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        pytest.param("{tag}", 200, id="the present version"),
        pytest.param('"other", {tag}', 200, id="one of several"),
        pytest.param('"{version}-gzip"', 200, id="the present version as it was sent compressed"),
        pytest.param("*", 200, id="any"),
        pytest.param('"other"', 412, id="another version"),
        pytest.param("W/{tag}", 412, id="a weak tag"),
        pytest.param("other", 422, id="no tag"),
        pytest.param("", 422, id="nothing"),
    ],
)
async def test_a_change_may_name_the_version_it_starts_from(
    client: httpx.AsyncClient, method: str, if_match: str, status: int
):
    made = await make(client)
    tag = made.headers["ETag"]
    header = {"If-Match": if_match.format(tag=tag, version=tag.strip('"'))}
    body = {} if method == "DELETE" else {"json": {"title": "changed"}}
    answer = await client.request(method, made.headers["Location"], headers=header, **body)
    expected = 204 if method == "DELETE" and status == 200 else status
    assert answer.status_code == expected
    if status != 200:
        assert (await client.get(made.headers["Location"])).json() == made.json()


async def test_of_concurrent_puts_from_one_version_exactly_one_wins(client: httpx.AsyncClient):
    made = await make(client)
    puts = [
        client.put(
            made.headers["Location"],
            json={"title": f"by {name}"},
            headers={"If-Match": made.headers["ETag"]},
        )
        for name in range(10)
    ]
    answers = await asyncio.gather(*puts)
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    winner = next(answer for answer in answers if answer.status_code == 200)
    assert (await client.get(made.headers["Location"])).json() == winner.json()


async def test_a_held_copy_that_is_still_good_is_not_sent_again(client: httpx.AsyncClient):
    made = await make(client)
    address, tag = made.headers["Location"], made.headers["ETag"]
    for held in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await client.get(address, headers={"If-None-Match": held})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert (await client.get(address, headers={"If-None-Match": "no tag"})).status_code == 200
    await client.patch(address, json={"title": "changed"})
    assert (await client.get(address, headers={"If-None-Match": tag})).status_code == 200


async def test_the_tag_of_a_compressed_answer_stands_for_its_version(client: httpx.AsyncClient):
    address = (await make(client, description="long " * 400)).headers["Location"]
    read = await client.get(address, headers={"Accept-Encoding": "gzip"})
    assert read.headers["Content-Encoding"] == "gzip"
    condition = {"If-Match": read.headers["ETag"]}
    assert (await client.patch(address, json={"title": "first"}, headers=condition)).status_code == 200
    assert (await client.patch(address, json={"title": "second"}, headers=condition)).status_code == 412


BODIES = [
    pytest.param(b'{"title": ""}', "title", id="empty title"),
    pytest.param(b'{"title": " \\t\\u00a0"}', "title", id="blank title"),
    pytest.param(b'{"title": "a\\u0000b"}', "title", id="NUL in title"),
    pytest.param(b'{"title": "' + b"x" * 256 + b'"}', "title", id="title too long"),
    pytest.param(b'{"title": 1}', "title", id="title no text"),
    pytest.param(b'{"title": null}', "title", id="title null"),
    pytest.param(b'{"title": "x", "description": "a\\u0000b"}', "description", id="NUL in description"),
    pytest.param(b'{"title": "x", "description": "' + b"x" * 10_001 + b'"}', "description", id="too long"),
    pytest.param(b'{"title": "x", "id": 7}', "id", id="id is not the caller's"),
    pytest.param(b'{"title": "x", "external_data": {}}', "external_data", id="external data neither"),
    pytest.param(b'{"title": "x"', "body", id="malformed"),
    pytest.param(b"", "body", id="nothing"),
    pytest.param(b"[]", "body", id="no object"),
    pytest.param(b'{"title": "\xff"}', "body", id="no UTF-8"),
    pytest.param(b'{"title": "\\ud800"}', "body", id="half a surrogate pair"),
    pytest.param(b'{"title": ' + b"[" * 100_000, "title", id="nested too deep"),
]


@pytest.mark.parametrize(("body", "field"), BODIES)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_wrong_body_is_refused_by_the_name_of_what_is_wrong(
    client: httpx.AsyncClient, method: str, body: bytes, field: str
):
    made = await make(client)
    address = ITEMS if method == "POST" else made.headers["Location"]
    answer = await client.request(method, address, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert (await client.get(made.headers["Location"])).json() == made.json()
    assert (await client.get(ITEMS)).json()["items"][0] == made.json()


async def test_a_new_item_and_a_put_need_a_title(client: httpx.AsyncClient):
    address = (await make(client)).headers["Location"]
    for answer in (await client.post(ITEMS, json={}), await client.put(address, json={"description": "x"})):
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["title"]


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_another_media_type_is_unsupported(client: httpx.AsyncClient, media_type: str):
    answer = await client.post(ITEMS, content=b'{"title": "x"}', headers={"Content-Type": media_type})
    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported-media-type"


async def test_a_huge_body_is_too_large(client: httpx.AsyncClient):
    answer = await client.post(ITEMS, content=b" " * 8_388_609, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param("limit=0", "limit", id="no page"),
        pytest.param("limit=501", "limit", id="a page too large"),
        pytest.param("limit=ten", "limit", id="no number"),
        pytest.param("limit=1&limit=2", "limit", id="twice"),
        pytest.param("q=", "q", id="nothing to search"),
        pytest.param("q=%00", "q", id="NUL"),
        pytest.param("q=" + "x" * 256, "q", id="longer than any title"),
        pytest.param("cursor=AAAA", "cursor", id="no cursor"),
        pytest.param("cursor=__________8", "cursor", id="a cursor out of range"),
        pytest.param("cursor=%C3%A9", "cursor", id="a cursor not in ASCII"),
        pytest.param("titel=x", "titel", id="unknown"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(client: httpx.AsyncClient, query: str, field: str):
    answer = await client.get(f"{ITEMS}?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("item_id", "status"),
    [
        ("0", 404),
        ("1000000", 404),
        ("9223372036854775808", 404),
        ("9" * 5000, 404),
        ("-1", 422),
        ("1.5", 422),
        ("first", 422),
        ("%D9%A1", 422),
    ],
)
async def test_an_id_that_is_no_items(client: httpx.AsyncClient, method: str, item_id: str, status: int):
    body = {"json": {"title": "x"}} if method in {"PUT", "PATCH"} else {}
    assert (await client.request(method, f"{ITEMS}/{item_id}", **body)).status_code == status


async def test_a_change_is_in_the_audit_with_its_request(client: httpx.AsyncClient, clone: gateway.Database):
    headers = {"X-Request-ID": "mine-1"}
    made = await client.post(ITEMS, json={"title": "x"}, headers=headers)
    found = await clone.read(EVENTS)
    assert [(deed.action, deed.target) for deed in found if deed.request_id == "mine-1"] == [
        ("items.create", str(made.json()["id"]))
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
nearly_items = st.fixed_dictionaries(
    {},
    optional={
        "title": st.text(max_size=300) | json_values,
        "description": st.text() | json_values,
        "id": json_values,
    },
)
bodies = st.binary(max_size=200) | (json_values | nearly_items).map(lambda value: json.dumps(value).encode())


@settings(max_examples=150)
@given(body=bodies, method=st.sampled_from(["POST", "PUT", "PATCH"]))
async def test_no_body_breaks_the_service_and_what_is_taken_is_kept(
    client: httpx.AsyncClient, body: bytes, method: str
):
    address = ITEMS if method == "POST" else (await make(client)).headers["Location"]
    answer = await client.request(method, address, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 201, 422}
    if answer.status_code != 422:
        kept = (await client.get(answer.headers.get("Location", address))).json()
        assert kept == answer.json()
        assert {**kept, **json.loads(body)} == kept


@settings(max_examples=60)
@given(part=st.text(max_size=260), cursor=st.none() | st.text(max_size=20), limit=st.integers() | st.text())
async def test_no_parameter_breaks_the_list(
    client: httpx.AsyncClient, part: str, cursor: str | None, limit: int | str
):
    given_parameters = {"q": part, "limit": limit, **({} if cursor is None else {"cursor": cursor})}
    assert (await client.get(ITEMS, params=given_parameters)).status_code in {200, 422}


async def test_the_root_answers_clients_in_json(client: httpx.AsyncClient):
    answer = await client.get("/", headers={"Accept": "application/json"})
    assert list(answer.json()) == ["message", "docs", "health"]
    for address in (answer.json()["docs"], answer.json()["health"]):
        assert (await client.get(address)).status_code == 200
