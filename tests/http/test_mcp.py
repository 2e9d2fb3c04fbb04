"""`/mcp` as assistants use it: tools and resources in both kinds of revisions, rights, and wrong requests."""

import json
from uuid import uuid4

import asyncpg
import pytest
from msgspec import Struct

from service.connect.mcp.endpoint import BYTES_LIMIT
from service.database.queries import Statement
from tests.conftest import serving
from tests.http.mcp import META, VERSION, Assistant, headers_of, message, uri
from tests.http.test_rights import EXPECTED, IDS, as_caller, sales  # noqa: F401

EARLIER = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
TOOLS = ["list_metrics", "get_metric", "explain_metric", "draft_metric"]


@pytest.fixture(scope="module")
def service(shared_service):
    return shared_service


@pytest.fixture(params=[True, False], ids=["2026-07-28", "earlier"])
def assistant(service, request):
    return Assistant(service.client, modern=request.param)


@pytest.fixture
def modern(service):
    return Assistant(service.client)


@pytest.fixture
def earlier(service):
    return Assistant(service.client, modern=False)


@pytest.fixture
async def metric(service):
    [found] = await service.store("SELECT 'a' AS name, n, 12345678901234567890.10 AS exact"
                                  " FROM generate_series(1, :k::int) AS n")  # fmt: skip
    return found


async def test_a_client_of_2026_discovers_the_server(modern):
    found = await modern.ask("server/discover")
    assert found["supportedVersions"] == [VERSION]
    assert found["capabilities"] == {"tools": {}, "resources": {"subscribe": True, "listChanged": True}}
    assert (found["resultType"], found["ttlMs"] > 0, found["cacheScope"]) == ("complete", True, "public")
    assert found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "tally"


@pytest.mark.parametrize(
    ("asked", "given"), [*zip(EARLIER, EARLIER, strict=True), ("2030-01-01", "2025-11-25")]
)
async def test_an_earlier_client_initializes(earlier, asked, given):
    start = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    found = await earlier.ask("initialize", start)
    assert found["protocolVersion"] == given
    assert found["serverInfo"]["name"] == "tally"
    assert found["capabilities"]["resources"] == {}
    done = await earlier.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (done.status_code, done.content) == (202, b"")
    assert await earlier.ask("ping", **{"MCP-Protocol-Version": given}) == {}


async def test_the_tools_are_listed_with_their_schemas(assistant):
    found = await assistant.ask("tools/list")
    assert [each["name"] for each in found["tools"]] == TOOLS
    for each in found["tools"]:
        assert each["inputSchema"]["type"] == "object"
        assert each["inputSchema"]["additionalProperties"] is False
        assert "$ref" not in json.dumps(each)
    assert found["cacheScope"] == "public"


async def test_metrics_are_listed_and_found(assistant, service):
    word = uuid4().hex
    made = [
        (await service.client.post("/metrics", json={"sql": "SELECT 1", "title": f"{word} {n}"})).json()["id"]
        for n in range(3)
    ]
    first = (await assistant.call("list_metrics", search=word.upper(), limit=2))["structuredContent"]
    rest = await assistant.call("list_metrics", search=word, limit=2, cursor=first["next_cursor"])
    found = [*first["items"], *rest["structuredContent"]["items"]]
    assert [each["id"] for each in found] == sorted(made)
    assert rest["structuredContent"]["next_cursor"] is None
    assert {each["uri"] for each in found} == {uri(each) for each in made}


async def test_a_metric_is_what_a_get_gives(assistant, service, metric):
    answer = await service.client.get(f"/metrics/{metric}?k=3")
    result = await assistant.call("get_metric", id=metric, parameters={"k": 3})
    assert result["structuredContent"] == json.loads(answer.text, parse_float=str)
    assert result["structuredContent"]["records"][0]["exact"] == "12345678901234567890.10"
    assert (result["isError"], result["cacheScope"]) == (False, "private")


async def test_many_rows_are_cut_and_told(assistant, metric):
    result = await assistant.call("get_metric", id=metric, parameters={"k": 900})
    assert (len(result["structuredContent"]["records"]), result["structuredContent"]["omitted_rows"]) == (
        200,
        700,
    )
    whole = await assistant.call("get_metric", id=metric, parameters={"k": 900}, max_rows=900)
    assert len(whole["structuredContent"]["records"]) == 900
    assert "omitted_rows" not in whole["structuredContent"]


async def test_a_metric_is_explained(assistant, service, metric):
    definition = await service.client.get(f"/metrics/{metric}/definition")
    result = await assistant.call("explain_metric", id=metric)
    assert result["structuredContent"] == json.loads(definition.text, parse_float=str)


class Rows(Struct):
    n: int


async def test_a_draft_stores_nothing(assistant, service):
    count = Statement("count", "SELECT (SELECT count(*) FROM catalog.metric)::int AS n", Rows)
    before = await service.database.read(count)
    asked = await service.client.post("/metrics/ask", json={"prompt": "Interactions per channel"})
    result = await assistant.call("draft_metric", prompt="Interactions per channel")
    assert result["structuredContent"] == asked.json()
    assert await service.database.read(count) == before
    refused = await assistant.call("draft_metric", prompt="colour of the moon")
    assert refused["isError"]
    assert "not understood" in refused["content"][0]["text"]


async def test_resources_are_the_metrics(assistant, service, metric):
    listed: list[str] = []
    cursor = {}
    while True:
        page = await assistant.ask("resources/list", cursor)
        listed += [each["uri"] for each in page["resources"]]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert uri(metric) in listed
    assert (
        len(listed)
        == len(set(listed))
        == len((await service.client.get("/metrics?limit=500")).json()["items"])
    )
    [template] = (await assistant.ask("resources/templates/list"))["resourceTemplates"]
    assert template["uriTemplate"] == "tally://metrics/{id}{?parameters*}"

    read = await assistant.ask("resources/read", {"uri": uri(metric, "?k=2")})
    [contents] = read["contents"]
    answer = await service.client.get(f"/metrics/{metric}?k=2")
    assert (contents["uri"], contents["text"]) == (uri(metric, "?k=2"), answer.text)
    assert read["cacheScope"] == "private"


async def test_answers_live_as_long_as_they_are_fresh(assistant, service):
    """What max-age allows over HTTP: nothing for a result that a change may end at any time."""
    connection = await asyncpg.connect(service.settings.url)
    await connection.execute("CREATE TABLE IF NOT EXISTS data.seen (n int); SELECT app.watch('data.seen')")
    await connection.close()
    watched, timed = await service.store("SELECT count(*) AS n FROM seen", "SELECT now() AS at")
    assert (await assistant.call("get_metric", id=watched))["ttlMs"] == 0
    assert 50_000 < (await assistant.call("get_metric", id=timed))["ttlMs"] <= 60_000
    read = await assistant.ask("resources/read", {"uri": uri(timed)})
    assert 50_000 < read["ttlMs"] <= 60_000


async def test_a_stale_answer_says_so(assistant, service):
    [found] = await service.store("SELECT count(*) AS n FROM metrics")
    await assistant.call("get_metric", id=found)
    results = service.client.service.state.base.results
    entry = next(each for each in results.table._small.values() if str(each.owner) == found)
    entry.policy = type(entry.policy)(
        basis=entry.policy.basis, made_at=entry.policy.made_at, fresh_until=results.clock() - 1,
        stale_for_s=60, stale_if_error_s=60, max_age=60,
    )  # fmt: skip
    entry.evaluated_at = -1
    result = await assistant.call("get_metric", id=found)
    assert (result["ttlMs"], result["_meta"]["tally/staleSeconds"] >= 1) == (0, True)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("get_metric", {}, "arguments.id"),
        ("get_metric", {"id": "x"}, "arguments.id: Invalid UUID"),
        ("get_metric", {"id": str(uuid4())}, "There is no metric"),
        ("get_metric", {"id": str(uuid4()), "sql": "SELECT 1"}, "it takes id, parameters, max_rows"),
        ("get_metric", {"id": "METRIC", "max_rows": -1}, "arguments.max_rows"),
        ("get_metric", {"id": "METRIC"}, "k"),
        ("get_metric", {"id": "METRIC", "parameters": {"k": "x"}}, "k"),
        ("get_metric", {"id": "METRIC", "parameters": {"k": 1, "other": 1}}, "other"),
        ("get_metric", {"id": "METRIC", "parameters": {"k": [[[]]]}}, "k"),
        ("list_metrics", {"limit": 0}, "arguments.limit"),
        ("list_metrics", {"cursor": "zzz"}, "cursor"),
        ("draft_metric", {"prompt": ""}, "arguments.prompt"),
        ("draft_metric", {"prompt": 3}, "arguments.prompt: Expected `str`"),
        ("explain_metric", {"id": 1.5}, "arguments.id"),
    ],
)
async def test_wrong_arguments_are_told_to_the_model(assistant, metric, tool, arguments, words):
    given = {name: metric if value == "METRIC" else value for name, value in arguments.items()}
    result = await assistant.call(tool, **given)
    assert result["isError"] is True
    assert words in result["content"][0]["text"]
    assert result["structuredContent"]["status"] in {404, 422}


async def test_arguments_have_to_be_an_object(assistant):
    result = await assistant.ask("tools/call", {"name": "list_metrics", "arguments": [1]})
    assert result["isError"]


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        (("tools/call", {"name": "run_sql", "arguments": {"sql": "SELECT 1"}}), -32602, "list_metrics"),
        (("tools/call", {}), -32602, "params.name"),
        (("tools/call", {"name": 3}), -32602, "params.name"),
        (("tools/list", {"cursor": 3}), -32602, "params.cursor"),
        (("resources/list", {"cursor": "zz"}), -32602, "cursor"),
        (("resources/read", {}), -32602, "params.uri"),
        (("resources/read", {"uri": "METRIC?k=x"}), -32602, "k must be"),
        (("prompts/list", {}), -32601, "there are: "),
        (("tools/../call", {}), -32601, "there are: "),
        (("x" * 5000, {}), -32601, "there are: "),
    ],
)
async def test_wrong_calls_are_errors_of_the_protocol(assistant, metric, call, code, words):
    method, params = call
    if isinstance(params.get("uri"), str):
        params = {"uri": params["uri"].replace("METRIC", uri(metric))}
    own = {"Mcp-Name": "3"} if params.get("name") == 3 else {}
    status, error = await assistant.fail(method, params, **own)
    assert (error["code"], words in error["message"]) == (code, True), error
    assert len(error["message"]) < 400
    assert status == ({-32601: 404, -32602: 400}[code] if assistant.modern else 200)


@pytest.mark.parametrize(
    "wrong",
    ["", "file:///etc/passwd", "tally://metrics/", "tally://metrics/x", "tally://other/{}", "tally:///{}",
     "tally://metrics/{}/data", "tally://metrics/{}#a", "tally://metrics/\n{}", "tally://met\trics/{}",
     "tally://metrics/{}?k", "tally://metrics/{}?k=1&k=2", "http://[::1", "tally://[x/{}",
     "tally://user@metrics/{}", "tally://metrics/00000000-0000-0000-0000-000000000000"],
)  # fmt: skip
async def test_there_are_no_other_resources(assistant, metric, wrong):
    params = {"uri": wrong.format(metric)}
    _, error = await assistant.fail("resources/read", params)
    assert error["code"] == (-32602 if assistant.modern else -32002)
    assert error["data"]["uri"] == params["uri"]


def body_of(**fields):
    return json.dumps(message("tools/list") | fields).encode()


@pytest.mark.parametrize(
    ("body", "code", "echoed"),
    [
        (b"", -32700, None),
        (b"{", -32700, None),
        (b"\xff\xfe", -32700, None),
        (b"[" * 50_000, -32700, None),
        (b'{"a":' * 50_000, -32700, None),
        (b"[]", -32600, None),
        (json.dumps([message("tools/list")] * 3).encode(), -32600, None),
        (b"null", -32600, None),
        (b"3", -32600, None),
        (b'"tools/list"', -32600, None),
        (b"{}", -32600, None),
        (body_of(jsonrpc="1.0"), -32600, 1),
        (body_of(jsonrpc=2.0), -32600, 1),
        (body_of(method=3), -32600, 1),
        (body_of(method=None), -32600, 1),
        (body_of(id=None), -32600, None),
        (body_of(id=1.5), -32600, None),
        (body_of(id={"a": 1}), -32600, None),
        (body_of(id="x" * 300), -32600, None),
        (body_of(id=10**80), -32600, None),
        (body_of(id="?").replace(b'"?"', b'"\xff"'), -32600, None),
        (body_of(params=[1]), -32602, 1),
        (body_of(params={"_meta": 3}), -32602, 1),
        (body_of(params={"_meta": {}}), -32602, 1),
        (body_of(params={"_meta": META | {"io.modelcontextprotocol/clientCapabilities": 1}}), -32602, 1),
        (json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode(), -32600, 1),
    ],
)
async def test_what_is_no_request_is_refused(modern, body, code, echoed):
    headers = modern.headers | headers_of(message("tools/list")) | {"Content-Type": "application/json"}
    answer = await modern.client.post("/mcp", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (400, code, echoed)


@pytest.mark.parametrize("request_id", ["", 'a"b\\c\u2028é', "x" * 256, 0, -7, 10**60])
async def test_ids_come_back_as_they_were(modern, request_id):
    answer = await modern.send(message("tools/list", request_id=request_id))
    assert (answer.status_code, answer.json()["id"]) == (200, request_id)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"MCP-Protocol-Version": "2025-03-26-x"}, -32020),
        ({"MCP-Protocol-Version": ""}, -32020),
        ({"Mcp-Method": "tools/list"}, -32020),
        ({"Mcp-Method": ""}, -32020),
        ({"Mcp-Name": "get_metric"}, -32020),
        ({"Mcp-Name": "=?base64?!?="}, -32020),
        ({"Mcp-Name": ""}, -32020),
    ],
)
async def test_headers_must_not_contradict_the_body(modern, headers, code):
    status, error = await modern.fail("tools/call", {"name": "list_metrics", "arguments": {}}, **headers)
    assert (status, error["code"]) == (400, code)


async def test_a_header_given_twice_is_refused(modern):
    said = message("tools/list")
    fields = [*(modern.headers | headers_of(said)).items(), ("Mcp-Method", "tools/list")]
    answer = await modern.client.post("/mcp", json=said, headers=fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)


async def test_names_in_headers_may_be_encoded(modern):
    result = await modern.ask(
        "tools/call", {"name": "list_metrics"}, **{"Mcp-Name": "=?base64?bGlzdF9tZXRyaWNz?="}
    )
    assert result["isError"] is False


@pytest.mark.parametrize("version", ["1999-01-01", "2027-01-01", "x" * 500])
async def test_an_unknown_revision_names_the_known_one(modern, earlier, version):
    said = message("tools/list", modern=False)
    said["params"]["_meta"] = META | {"io.modelcontextprotocol/protocolVersion": version}
    for each in (said, message("tools/list", modern=False), {"jsonrpc": "2.0", "method": "notifications/x"}):
        headers = {"MCP-Protocol-Version": version, "Mcp-Method": "tools/list"}
        answer = await earlier.send(each, **headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, -32022)
        assert error["data"] == {"supported": [VERSION], "requested": version[:100]}
    gone = await modern.fail("initialize", {"protocolVersion": VERSION})
    assert gone[1]["code"] == -32601


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Accept": "text/html"}, 406),
        ({"Accept": "*/*"}, 200),
        ({"Accept": ""}, 200),
        ({"Accept": "application/json"}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Origin": "http://127.0.0.1:8000"}, 200),
        ({"Origin": "https://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.test"}, 403),
    ],
)
async def test_the_head_of_a_request(assistant, headers, status):
    answer = await assistant.send(message("tools/list", modern=assistant.modern), **headers)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_other_methods_addresses_and_large_bodies(modern):
    for method in ("GET", "DELETE", "PUT"):
        answer = await modern.client.request(method, "/mcp", headers=modern.headers)
        assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"OPTIONS", "POST"}), (
            method
        )
    assert (await modern.client.post("/mcp?x=1", json=message("tools/list"))).status_code == 422
    assert (await modern.client.post("/api/v1/mcp", json=message("tools/list"))).status_code == 404
    large = b'{"a":"' + b"x" * BYTES_LIMIT + b'"}'
    head = {"Content-Type": "application/json"}
    assert (await modern.client.post("/mcp", content=large, headers=head)).status_code == 413

    async def slowly():
        for at in range(0, len(large), 65536):
            yield large[at : at + 65536]

    assert (await modern.client.post("/mcp", content=slowly(), headers=head)).status_code == 413


async def test_large_answers_are_compressed(assistant):
    answer = await assistant.send(
        message("tools/list", modern=assistant.modern), **{"Accept-Encoding": "gzip"}
    )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["result"]["tools"]


async def test_scopes_are_those_of_the_api(visitor, token, guarded_metric):
    assert (await Assistant(visitor).send(message("tools/list"))).status_code == 401
    other = Assistant(visitor, **token("items:read"))
    answer = await other.send(message("tools/list"))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    reader = Assistant(visitor, **token("metrics:read"))
    assert (await reader.call("get_metric", id=guarded_metric))["structuredContent"]["records"] == [{"n": 1}]
    draft = message(
        "tools/call", {"name": "draft_metric", "arguments": {"prompt": "Interactions per channel"}}
    )
    refused = await reader.send(draft)
    assert (refused.status_code, 'scope="metrics:write"' in refused.headers["www-authenticate"]) == (
        403,
        True,
    )
    writer = Assistant(visitor, **token("metrics:read", "metrics:write"))
    assert (await writer.send(draft)).status_code == 200
    foreign = await reader.send(message("tools/list"), Origin="https://evil.test")
    assert foreign.status_code == 403  # also with a token


async def test_callers_see_their_own_rows_alone(sales, as_caller):  # noqa: F811
    async with serving(sales) as client:
        for who in ("ann", "bob", "eve", "ann"):
            assistant = Assistant(client, **as_caller(who))
            for metric in IDS.values():
                [record] = (await assistant.call("get_metric", id=str(metric)))["structuredContent"][
                    "records"
                ]
                assert record == {"n": EXPECTED.get(who)}
                [contents] = (await assistant.ask("resources/read", {"uri": uri(metric)}))["contents"]
                assert json.loads(contents["text"])["records"] == [{"n": EXPECTED.get(who)}]
