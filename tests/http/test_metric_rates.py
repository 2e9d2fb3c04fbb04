"""METRIC_RATE_LIMIT counts a metric by whatever way a caller names it; each way has the allowance of all."""

import json
from uuid import uuid4

import pytest

from tests.http.mcp import Assistant, headers_of, message, uri
from tests.live import conversing, watching

LIMIT = 3
CODE = "too-many-requests"


@pytest.fixture
async def limited(opened, guarded_metric):
    """A service that answers each caller `LIMIT` times for a metric."""
    return await opened(metric_rate_limit=LIMIT)


@pytest.fixture
def caller(token):
    """A caller whom nobody has counted yet."""
    return token("metrics:read", subject=f"caller-{uuid4().hex}")


async def by_get(client, metric, headers):
    answer = await client.get(f"/metrics/{metric}", headers=headers)
    return answer.status_code, answer.headers.get("retry-after")


async def by_batch(client, metric, headers):
    answer = await client.post("/metrics/batch", json={"metrics": [{"id": metric}]}, headers=headers)
    [entry] = answer.json()["results"]
    assert answer.status_code == 200
    if entry["status"] == 429:
        assert (entry["problem"]["code"], entry["id"]) == (CODE, metric)
        assert "wait" in entry["problem"]["detail"]
    return entry["status"], None


async def by_tool(client, metric, headers):
    said = message("tools/call", {"name": "get_metric", "arguments": {"id": metric}})
    return await by_mcp(client, said, headers)


async def by_definition(client, metric, headers):
    said = message("tools/call", {"name": "explain_metric", "arguments": {"id": metric}})
    return await by_mcp(client, said, headers)


async def by_resource(client, metric, headers):
    return await by_mcp(client, message("resources/read", {"uri": uri(metric)}), headers)


async def by_mcp(client, said, headers):
    answer = await Assistant(client, **headers).send(said)
    if answer.status_code == 200:
        assert "error" not in answer.json()
    else:
        assert answer.json()["code"] == CODE
    return answer.status_code, answer.headers.get("retry-after")


async def by_subscription(client, metric, headers):
    said = message("subscriptions/listen", {"notifications": {"resourceSubscriptions": [uri(metric)]}})
    own = {"Accept": "application/json, text/event-stream", **headers_of(said), **headers}
    async with watching(client, "/mcp", json.dumps(said).encode(), **own) as stream:
        return stream.status, stream.headers.get("retry-after")


async def by_stream(client, metric, headers):
    async with watching(client, f"/metrics/{metric}/events", **headers) as stream:
        return stream.status, stream.headers.get("retry-after")


async def by_list(client, metric, headers):
    async with watching(client, f"/events?ids={metric}", **headers) as stream:
        return stream.status, stream.headers.get("retry-after")


async def by_socket(client, metric, headers):
    async with conversing(client, **headers) as socket:
        await socket.say(type="subscribe", id=metric)
        said = await socket.hear()
        await socket.say(type="ping")
        assert (await socket.hear())["type"] == "pong"  # the socket goes on
    if said["type"] == "error":
        assert (said["code"], said["id"]) == (CODE, metric)
        assert "wait" in said["message"]
        return 429, None
    return 200, None


WAYS = (by_get, by_batch, by_tool, by_definition, by_resource, by_subscription, by_stream, by_list, by_socket)


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_to_a_result_is_counted(limited, guarded_metric, caller, way):
    found = [await way(limited, guarded_metric, caller) for _ in range(LIMIT + 1)]
    assert [status for status, _ in found] == [200] * LIMIT + [429]
    assert found[-1][1] in {"20", None}  # in an entry or a message the text names the seconds
    if way not in {by_batch, by_socket}:
        assert found[-1][1] == "20"


@pytest.mark.parametrize("way", WAYS)
async def test_what_one_way_has_used_up_no_other_has(limited, guarded_metric, caller, way):
    asked = {"metrics": [{"id": guarded_metric}] * (LIMIT + 1)}
    answer = await limited.post("/metrics/batch", json=asked, headers=caller)
    assert [each["status"] for each in answer.json()["results"]] == [200] * LIMIT + [429]
    assert (await way(limited, guarded_metric, caller))[0] == 429


async def test_another_caller_and_another_metric_are_counted_apart(limited, guarded_metric, caller, token):
    for _ in range(LIMIT + 1):
        await by_tool(limited, guarded_metric, caller)
    other = token("metrics:read", subject=f"caller-{uuid4().hex}")
    assert (await by_tool(limited, guarded_metric, other))[0] == 200
    for _ in range(LIMIT + 1):
        answer = await limited.post(
            "/metrics/batch", json={"metrics": [{"id": str(uuid4())}]}, headers=caller
        )
        assert answer.json()["results"][0]["status"] == 404
