# ruff: noqa: T201 (a bench prints)
"""What other tools read, beside JSON: time per call of MCP, OpenMetrics and Arrow on the same held results.

Each is measured over a real socket in turns with JSON, so that a busy moment hits both; the ratio is that of
the medians. A result that is run for every call shows what writing Arrow costs.

`.venv/bin/python -m tests.bench.connect`
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.processes import serving_seeds

ROUNDS = 200
UNCACHED_ROUNDS = 25
SQL = {
    100: "SELECT n, 'name ' || n AS name, n / 8.0 AS share, now() - n * interval '1 minute' AS at"
    " FROM generate_series(1, 100) AS n",
    10_000: "SELECT n, 'name ' || n AS name, n / 8.0 AS share, now() - n * interval '1 s' AS at"
    " FROM generate_series(1, 10000) AS n",
}
ARROW = {"Accept": "application/vnd.apache.arrow.stream", "Accept-Encoding": "identity"}
PLAIN = {"Accept": "application/json", "Accept-Encoding": "identity"}

Call = Callable[[], httpx.Response]


def medians(rounds: int, *calls: Call) -> list[float]:
    """Median milliseconds of each call, in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for own, call in zip(times, calls, strict=True):
            began = time.perf_counter()
            call().raise_for_status()
            own.append(time.perf_counter() - began)
    return [statistics.median(each) * 1e3 for each in times]


def show(name: str, ours: float, base: str, beside: float) -> None:
    print(f"{name}: {ours:.2f} ms, {base} {beside:.2f} ms, ratio {ours / beside:.2f}")


def measure(client: httpx.Client) -> None:
    client.post("/api/v1/dashboards", json={"id": "bench", "title": "Bench"}).raise_for_status()
    for rows, sql in SQL.items():
        # A result that the clock bounds stays fresh for an hour: all calls but the first are hits.
        new = {"sql": sql, "fresh_for_s": 3600, "dashboards": [{"id": "bench"}]}
        metric = client.post("/api/v1/metrics", json=new).raise_for_status().json()["id"]
        address = f"/api/v1/metrics/{metric}"

        def get(headers: dict[str, str], address: str = address) -> Call:
            return lambda: client.get(address, headers=headers)

        def mcp(metric: str = metric, rows: int = rows) -> httpx.Response:
            arguments = {"id": metric, "max_rows": rows}
            params = {"name": "get_metric", "arguments": arguments}
            return client.post("/mcp", json=_message("tools/call", params), headers=PLAIN)

        def read(metric: str = metric) -> httpx.Response:
            return client.post(
                "/mcp", json=_message("resources/read", {"uri": f"tally://metrics/{metric}"}), headers=PLAIN
            )

        named = f"{rows:,} rows"
        arrow, plain, tool, resource = medians(ROUNDS, get(ARROW), get(PLAIN), mcp, read)
        show(f"Arrow, held, {named}", arrow, "JSON", plain)
        show(f"MCP get_metric, held, {named}", tool, "JSON", plain)
        show(f"MCP resources/read, held, {named}", resource, "JSON", plain)
        afresh = {"Cache-Control": "no-cache"}
        arrow, plain = medians(UNCACHED_ROUNDS, get(ARROW | afresh), get(PLAIN | afresh))
        show(f"Arrow, run for every request, {named}", arrow, "JSON", plain)
        sizes = [len(get(headers)().content) for headers in (ARROW, PLAIN)]
        print(f"Arrow, bytes, {named}: {sizes[0]:,}, JSON {sizes[1]:,}, ratio {sizes[0] / sizes[1]:.2f}")
    for dashboard in ("default", "bench"):
        address = f"/api/v1/dashboards/{dashboard}"
        client.get(f"{address}/data").raise_for_status()
        scrape, data = medians(
            ROUNDS if dashboard == "default" else UNCACHED_ROUNDS,
            lambda: client.get(f"{address}/openmetrics", headers={"Accept-Encoding": "identity"}),  # noqa: B023
            lambda: client.get(f"{address}/data", headers=PLAIN),  # noqa: B023
        )
        text = client.get(f"{address}/openmetrics").text
        series = sum(line.startswith("tally_metric_") for line in text.splitlines())
        show(f"OpenMetrics of the dashboard `{dashboard}`, {series:,} series", scrape, "its JSON", data)


def _message(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def main() -> int:
    with serving_seeds() as base, httpx.Client(base_url=base, timeout=60) as client:
        measure(client)
    return 0


if __name__ == "__main__":
    sys.exit(main())
