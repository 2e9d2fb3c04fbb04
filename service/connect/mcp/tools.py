"""The tools: what each takes, and how its result is shown."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct

from service.auth.guards import require
from service.auth.tokens import Principal
from service.connect.mcp.library import Library, first_rows
from service.connect.mcp.messages import INVALID_PARAMS, Call, RpcError, decode
from service.errors import Forbidden, Problem, TooManyRequests
from service.http import bodies
from service.metrics.models import Prompt

WRITE: Final = "metrics:write"
"""The scope that a prompt needs, as over HTTP."""

_METRIC = Annotated[UUID, Meta(description="the metric's id, from list_metrics")]
_FREE: Final = Meta(
    description='by name, such as {"day_range": 30}; explain_metric lists them',
    extra_json_schema={"type": "object", "additionalProperties": True},
)


class ListMetrics(Struct, frozen=True, forbid_unknown_fields=True):
    search: Annotated[str, Meta(max_length=200, description="a part of the title")] = ""
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str | None, Meta(description="`next_cursor` of the page before")] = None


class GetMetric(Struct, frozen=True, forbid_unknown_fields=True):
    id: _METRIC
    parameters: Annotated[dict[str, Any], _FREE] = {}
    max_rows: Annotated[int, Meta(ge=0, le=10_000, description="records to return")] = 200


class ExplainMetric(Struct, frozen=True, forbid_unknown_fields=True):
    id: _METRIC


class DraftMetric(Struct, frozen=True, forbid_unknown_fields=True):
    prompt: Prompt
    fallback: Annotated[bool, Meta(description="let rules answer if the language model fails")] = False


class ToolResult(Struct, frozen=True):
    """The result as JSON, and for how long it may be used."""

    body: Raw
    ttl_ms: int = 0
    stale_s: int = 0


Run = Callable[[Any, Principal], Awaitable[ToolResult]]


class _Tool(Struct, frozen=True):
    title: str
    description: str
    takes: type[Struct]
    run: Run


class _Called(Struct):
    name: str
    arguments: Raw = Raw(b"{}")


class Tools:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._tools: dict[str, _Tool] = {
            "list_metrics": _Tool("List metrics", "List metrics by title.", ListMetrics, self._list),
            "get_metric": _Tool(
                "Read a metric",
                "Get the present result of a metric: columns, records, and the time of its run (as_of).",
                GetMetric,
                self._get,
            ),
            "explain_metric": _Tool(
                "Explain a metric",
                "Get the definition of a metric: its SQL, parameters, period, columns and tables.",
                ExplainMetric,
                self._explain,
            ),
            "draft_metric": _Tool(
                "Draft a metric",
                f"Turn a question into SQL and its first rows. Stores nothing. Needs the scope {WRITE}.",
                DraftMetric,
                self._draft,
            ),
        }
        self.listed = [_listed(name, tool) for name, tool in self._tools.items()]

    async def call(self, call: Call, caller: Principal) -> dict[str, Any]:
        """Run a tool. What the model could mend is a result with `isError`, so that the model sees it.

        Raises `RpcError` for an unknown tool, `Forbidden` for a scope that the caller lacks, and
        `TooManyRequests`.
        """
        called: _Called = decode(Raw(bodies.encode(call.params)), _Called, "params")
        tool = self._tools.get(called.name)
        if tool is None:
            names = ", ".join(self._tools)
            raise RpcError(INVALID_PARAMS, f"There is no tool {called.name[:80]!r}; there are: {names}.")
        try:
            given = bodies.decode(called.arguments, tool.takes, within="arguments")
            result = await tool.run(given, caller)
        except (Forbidden, TooManyRequests):
            raise
        except Problem as problem:
            return _failed(problem)
        meta = {"_meta": {"tally/staleSeconds": result.stale_s}} if result.stale_s else {}
        return {
            "content": [{"type": "text", "text": bytes(result.body).decode()}],
            "structuredContent": result.body,
            "isError": False,
            "ttlMs": result.ttl_ms,
            "cacheScope": "private",
            **meta,
        }

    async def _list(self, given: ListMetrics, _caller: Principal) -> ToolResult:
        return ToolResult(_json(self._library.page(given.search, given.cursor, given.limit)))

    async def _get(self, given: GetMetric, caller: Principal) -> ToolResult:
        found = await self._library.result(given.id, given.parameters, caller)
        return ToolResult(first_rows(found.body, given.max_rows), found.ttl_ms, found.stale_s)

    async def _explain(self, given: ExplainMetric, caller: Principal) -> ToolResult:
        return ToolResult(_json(await self._library.definition(given.id, caller)))

    async def _draft(self, given: DraftMetric, caller: Principal) -> ToolResult:
        require(caller, WRITE)
        return ToolResult(_json(await self._library.draft(given.prompt, given.fallback)))


def _json(value: Any) -> Raw:
    return Raw(bodies.encode(value))


def _failed(problem: Problem) -> dict[str, Any]:
    return {
        "content": [{"type": "text", "text": f"{problem.title}: {problem.sentence}"}],
        "structuredContent": problem.document(),
        "isError": True,
        "ttlMs": 0,
        "cacheScope": "private",
    }


def _listed(name: str, tool: _Tool) -> Mapping[str, Any]:
    _, shapes = msgspec.json.schema_components((tool.takes,))
    schema = {word: each for word, each in shapes[tool.takes.__name__].items() if word != "title"}
    return {
        "name": name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": schema,
        "annotations": {
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
            "openWorldHint": name == "draft_metric",
        },
    }
