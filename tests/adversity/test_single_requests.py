"""One caller's request, however bad, is that caller's problem alone (see `conftest.everybody_else`)."""

import asyncio
import socket

import httpx
import pytest

from tests.adversity.conftest import Attacked


def test_a_line_of_sixteen_million_commas(attacked: Attacked):
    answer = attacked.client.post("/imports/customers", content=b"," * 16_000_000)
    assert answer.status_code in {413, 422}, answer.text[:300]


@pytest.mark.parametrize("filename", [None, "a.csv"], ids=["text field", "file of another name"])
def test_multipart_with_another_large_part(attacked: Attacked, filename: str | None):
    parts = {"note": (filename, b"x" * 60_000_000), "file": ("c.csv", b"Customer_Id,occupation,type\n")}
    answer = attacked.client.post("/imports/customers?dry_run=true", files=parts)
    assert answer.status_code in {201, 413, 422}, answer.text[:300]


@pytest.mark.parametrize(
    "body",
    [b"[" * 5_000_000, b'[{"a":' * 1_000_000, b'{"a":1,' * 4_000_000, b"[" + b"9" * 20_000_000 + b"]"],
    ids=["brackets", "objects", "keys", "digits"],
)
def test_a_json_file(attacked: Attacked, body: bytes):
    headers = {"Content-Type": "application/json"}
    answer = attacked.client.post("/imports/customers?dry_run=true", content=body, headers=headers)
    assert answer.status_code in {413, 422}, answer.text[:300]


def ctes(count: int) -> str:
    return "WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(count)) + " SELECT 1 FROM a0"


STATEMENTS = {
    "common tables": ctes(4_000),
    "unions": " UNION ALL ".join(["SELECT 1"] * 6_000),
    "columns": "SELECT " + ", ".join(f"1 AS c{n}" for n in range(7_000)),
    "parentheses": "SELECT " + "(" * 40_000 + "1" + ")" * 40_000,
    "comments": "SELECT 1 " + "/*" * 40_000 + "*/" * 40_000,
    "cases": "SELECT " + "CASE WHEN 1 = 1 THEN " * 3_000 + "1" + " END" * 3_000,
    "joins": "SELECT 1 FROM customers AS t0"
    + "".join(f" JOIN customers AS t{n} USING (customer_id)" for n in range(1, 1_500)),
    "parameters": "SELECT " + ", ".join(f":p{n}" for n in range(9_000)),
    "quotes": "SELECT " + "'" * 99_000,
    "dollars": "SELECT " + "$a$" * 30_001,
    "repeat": "SELECT repeat('\"', 3900000)",
    "operators": "SELECT 1" + " + 1" * 24_000,
    "ands": "SELECT 1 WHERE " + " AND ".join(["1 = 1"] * 12_000),
    "in": f"SELECT 1 WHERE 1 IN ({', '.join(['1'] * 33_000)})",
    "arrays": "SELECT " + "ARRAY[" * 8_000 + "1" + "]" * 8_000,
    "casts": "SELECT 1" + "::int" * 19_000,
    "not": "SELECT " + "NOT " * 24_000 + "true",
    "minus": "SELECT " + "- " * 49_000 + "1",
}


@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_a_statement(attacked: Attacked, sql: str):
    answer = attacked.client.post("/metrics", json={"sql": sql})
    assert answer.status_code in {201, 413, 422, 503, 504}, answer.text[:300]
    if answer.status_code == 201:
        attacked.client.delete(f"/metrics/{answer.json()['id']}")


RESULTS = {
    "long names": "SELECT "
    + ", ".join(f'1 AS "{"n" * 58}{n:04}"' for n in range(1_200))
    + " FROM generate_series(1, 10000)",
    "folded text": "SELECT string_agg('\"', '') FROM generate_series(1, 3900000)",
    "many rows of text": "SELECT string_agg('x', '') OVER (ORDER BY n) FROM generate_series(1, 10000) AS n",
    "an array of composites": "SELECT array_agg(c) FROM customers AS c, generate_series(1, 1500)",
    "an array": "SELECT array_agg(n) FROM generate_series(1, 1000000) AS n",
    "a document": "SELECT json_agg(json_build_object('n', n)) FROM generate_series(1, 400000) AS n",
}


@pytest.mark.parametrize("sql", RESULTS.values(), ids=RESULTS.keys())
def test_a_result(attacked: Attacked, sql: str):
    made = attacked.client.post("/metrics", json={"sql": sql})
    assert made.status_code == 201, made.text[:300]
    path = f"/metrics/{made.json()['id']}"
    for form in ("json", "csv", "ndjson"):
        answer = attacked.client.get(path, params={"format": form}, headers={"Cache-Control": "no-cache"})
        assert answer.status_code in {200, 413, 422, 503, 504}, answer.text[:300]
        assert len(answer.content) <= 8 << 20
    attacked.client.delete(path)


JSON = {"Content-Type": "application/json"}


def test_a_batch_of_wrong_entries(attacked: Attacked):
    body = b'{"metrics":[' + b",".join([b"0"] * 380_000) + b"]}"
    answer = attacked.client.post(
        "/metrics/batch", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {413, 422}, answer.text[:300]
    body = (
        b'{"metrics":[{"id":"x","parameters":{'
        + b",".join(f'"p{n}":"{"x" * 20}"'.encode() for n in range(200_000))
        + b"}}]}"
    )
    answer = attacked.client.post(
        "/metrics/batch", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in {200, 413, 422}, answer.text[:300]


def test_a_batch_of_large_results(attacked: Attacked):
    sql = "SELECT repeat('x', 10000) AS t, :n::int AS k FROM generate_series(1, 790)"
    made = attacked.client.post("/metrics", json={"sql": sql}).json()["id"]
    entries = [{"id": made, "parameters": {"n": n}} for n in range(100)]
    answer = attacked.client.post("/metrics/batch", json={"metrics": entries})
    assert answer.status_code == 200
    assert len(answer.content) <= 33 << 20
    statuses = [result["status"] for result in answer.json()["results"]]
    assert {200, 413} <= set(statuses) <= {200, 413, 504}  # a slow machine runs out of time as well
    attacked.client.delete(f"/metrics/{made}")


@pytest.fixture
def large_rows(attacked: Attacked):
    """Rows of 2 MB each in quarantine."""
    for batch in range(6):
        rows = [{"Customer_Id": f"x{batch}_{n}", "occupation": "a" * 2_000_000} for n in range(9)]
        report = attacked.client.post("/imports/customers", json=rows)
        assert report.json()["quarantined"] == len(rows), report.text[:300]


@pytest.mark.usefixtures("large_rows")
def test_quarantined_rows_that_are_large(attacked: Attacked):
    page = attacked.client.get("/quarantine?limit=500&dataset=customers").json()
    seen = [row["id"] for row in page["items"]]
    while page["next_cursor"]:
        cursor = page["next_cursor"]
        answer = attacked.client.get(f"/quarantine?limit=500&dataset=customers&cursor={cursor}")
        assert len(answer.content) <= 32 << 20
        page = answer.json()
        seen += [row["id"] for row in page["items"]]
    assert len(seen) == len(set(seen)) >= 54
    with attacked.client.stream("GET", "/quarantine/export?dataset=customers") as answer:
        assert sum(map(len, answer.iter_bytes())) > 54 * 2_000_000


PROMPTS = {
    "a long number": "9" * 309,
    "a longer number": "top " + "9" * 5_000 + " customers",
    "one noun": "alerts " * 10_000,
    "one word": "a" * 1_000_000,
    "thousands": "1" + ",1" * 50_000,
    "joined": "in " + "and " * 20_000,
    "before": "before " * 5_000 + "March 2025",
    "overrides": "\u202e" * 1_000,
    "parentheses": "(" * 50_000,
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_a_prompt(attacked: Attacked, prompt: str):
    answer = attacked.client.post("/metrics/ask", json={"prompt": prompt})
    assert answer.status_code in {413, 422}, answer.text[:300]


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET /api/v1/metrics HTTP/1.1\r\nHost: [\r\n\r\n",
        "GET /api/v1/metrics HTTP/1.1\r\nHost: a]b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:99999999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:8000.evil.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: evil@127.0.0.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
    ],
    ids=lambda text: text.split("Host: ")[1].strip(),
)
def test_a_malformed_host(attacked: Attacked, request_text: str):
    with socket.create_connection(("127.0.0.1", attacked.port), timeout=10) as connection:
        connection.sendall(
            request_text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode("latin-1")
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    status = int(answer.split(b" ", 2)[1])
    assert status in {400, 403, 421}, answer[:300]


def test_silent_connections(attacked: Attacked):
    silent = []
    try:
        for _ in range(2_100):
            try:
                silent.append(socket.create_connection(("127.0.0.1", attacked.port), timeout=5))
            except OSError:
                break
        assert httpx.get(f"{attacked.address}/health/live", timeout=10).status_code == 200
    finally:
        for connection in silent:
            connection.close()


# Each character is looked for among thousands that do not hold it: some seconds, not hours, of the processor.
UNCANCELLABLE = """
WITH a AS (SELECT string_agg('ab', '') AS t, string_agg('c', '') AS c FROM generate_series(1, 30000))
SELECT length(translate(t, c, c)) AS n FROM a"""


async def test_statements_that_postgres_cannot_cancel(attacked: Attacked):
    made = attacked.client.post("/metrics", json={"sql": UNCANCELLABLE})
    assert made.status_code == 201, made.text[:300]
    path = f"{attacked.address}/api/v1/metrics/{made.json()['id']}"
    good = attacked.client.post("/metrics", json={"sql": "SELECT count(*) AS n FROM customers"}).json()["id"]
    afresh = {"Cache-Control": "no-cache"}
    async with httpx.AsyncClient(timeout=60) as client:
        for _ in range(4):
            answers = await asyncio.gather(*(client.get(path, headers=afresh) for _ in range(8)))
            assert {answer.status_code for answer in answers} <= {503, 504}
            answer = await client.get(f"{attacked.address}/api/v1/metrics/{good}", headers=afresh)
            assert answer.status_code == 200, answer.text
    assert answers[-1].json()["code"] == "metric-suspended"
