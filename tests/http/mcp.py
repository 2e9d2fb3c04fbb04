"""A client of `/mcp`, of both kinds of revisions."""

import json

VERSION = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
NAMED = {"tools/call": "name", "resources/read": "uri"}


def message(method, params=None, *, request_id=1, modern=True):
    """A request as the SDKs send it."""
    params = dict(params or {}) | ({"_meta": META} if modern else {})
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def headers_of(said):
    """What a request of 2026-07-28 repeats in its head."""
    found = {"MCP-Protocol-Version": VERSION, "Mcp-Method": said["method"]}
    name = said["params"].get(NAMED.get(said["method"]))
    return found | ({"Mcp-Name": name} if name else {})


def uri(metric, query=""):
    return f"tally://metrics/{metric}{query}"


class Assistant:
    def __init__(self, client, *, modern=True, **headers):
        self.client, self.modern = client, modern
        self.headers = {"Accept": "application/json, text/event-stream", **headers}

    async def send(self, said, **headers):
        own = headers_of(said) if self.modern and isinstance(said, dict) else {}
        return await self.client.post("/mcp", json=said, headers=self.headers | own | headers)

    async def send_text(self, text):
        """Send a message that is JSON already."""
        own = headers_of(json.loads(text)) | {"Content-Type": "application/json"}
        return await self.client.post("/mcp", content=text, headers=self.headers | own)

    async def ask(self, method, params=None, **headers):
        """The result of a call that succeeds."""
        answer = await self.send(message(method, params, modern=self.modern), **headers)
        assert (answer.status_code, answer.json()["id"]) == (200, 1), answer.text
        return json.loads(answer.text, parse_float=str)["result"]

    async def fail(self, method, params=None, **headers):
        """The status and the error of a call that fails."""
        answer = await self.send(message(method, params, modern=self.modern), **headers)
        body = answer.json()
        assert body.keys() == {"jsonrpc", "id", "error"}, body
        assert body["id"] == 1
        return answer.status_code, body["error"]

    async def call(self, tool, **arguments):
        """The structured result of a tool, which its text repeats."""
        result = await self.ask("tools/call", {"name": tool, "arguments": arguments})
        (content,) = result["content"]
        if not result["isError"]:
            assert json.loads(content["text"], parse_float=str) == result["structuredContent"]
        return result
