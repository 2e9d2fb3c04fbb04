"""What POST says of SQL that it does not take, and how it types parameters that say little of themselves."""

from typing import Any

import httpx
import pytest

from service.database.stored_sql.reader import Reader
from service.errors import Busy


async def posted(client: httpx.AsyncClient, sql: str) -> dict[str, Any]:
    answer = await client.post("/metrics", json={"sql": sql})
    return {"status": answer.status_code, **answer.json()}


def types(document: dict[str, Any]) -> dict[str, str]:
    return {parameter["name"]: parameter["postgres_type"] for parameter in document["parameters"]}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(:kind IS NULL OR alert_type = :kind)", {"kind": "text"}),
        ("(:n IS NULL OR parts_flagged = :n)", {"n": "int4"}),
        ("(parts_flagged = :n OR :n IS NULL)", {"n": "int4"}),
        ("(:n::text IS NULL OR parts_flagged = :n)", {"n": "int4"}),
        ("(:day IS NOT NULL AND date > :day) AND :other IS NULL", {"day": "timestamp", "other": "text"}),
        ("(:a IS NULL OR :b IS NULL OR (parts_flagged > :a AND date < :b))", {"a": "int4", "b": "timestamp"}),
        ("alert_type = :from AND alert_category = :select", {"from": "text", "select": "text"}),
        ("(:order IS NULL OR parts_flagged < :order)", {"order": "int4"}),
    ],
)
async def test_a_parameter_has_the_type_of_its_other_use(client, condition, expected):
    made = await posted(client, f"SELECT count(*) AS n FROM metrics WHERE {condition}")

    assert made["status"] == 201, made
    assert types(made) == expected


async def test_an_optional_parameter_filters_or_does_not(client):
    sql = "SELECT x FROM (VALUES (1), (2)) AS v (x) WHERE (:x IS NULL OR x = :x) ORDER BY x"
    body = {"sql": sql, "parameters": {"x": {"type": "integer", "default": None}}}
    declared = (await client.post("/metrics", json=body)).json()
    plain = await posted(client, sql)

    every = (await client.get(f"/metrics/{declared['id']}")).json()["records"]
    one = (await client.get(f"/metrics/{plain['id']}?x=2")).json()["records"]

    assert every == [{"x": 1}, {"x": 2}]
    assert one == [{"x": 2}]


async def test_a_typo_gets_the_message_of_postgres(client):
    problem = await posted(client, "SELECT id,\n  count(* FROM metrics")

    assert (problem["status"], problem["code"], problem["sqlstate"]) == (422, "sql-refused", "42601")
    assert problem["detail"] == 'Postgres: syntax error at or near "FROM" (line 2, column 11)'
    assert (problem["line"], problem["column"]) == (2, 11)
    assert "operator" not in problem["detail"]


async def test_what_neither_parser_takes_gets_the_message_of_postgres(client):
    problem = await posted(client, "SELECT upper(1, 2)")

    assert "function upper(integer, integer) does not exist (line 1, column 8)" in problem["detail"]


async def test_a_gap_of_ours_says_that_an_operator_can_trust_it(client):
    problem = await posted(client, "SELECT XMLPARSE(DOCUMENT '<a/>') AS x FROM metrics")

    assert (problem["status"], problem["code"]) == (422, "sql-refused")
    assert "an operator can trust it" in problem["detail"]
    assert problem["line"] == 1


@pytest.mark.parametrize(
    ("sql", "line", "column"),
    [
        ("SELECT 1,\n nocolumn FROM metrics", 2, 2),
        ("SELECT :a::int,\n\n  nocolumn, :b FROM metrics", 3, 3),
        ("SELECT *\nFROM nowhere", 2, 6),
    ],
)
async def test_what_postgres_refuses_has_a_line_and_a_column(client, sql, line, column):
    problem = await posted(client, sql)

    assert problem["code"] == "query-failed"
    assert (problem["line"], problem["column"]) == (line, column)
    assert f"(line {line}, column {column})" in problem["detail"]
    assert f"(line {line}, column {column})" in problem["errors"][0]["message"]


@pytest.mark.parametrize(
    ("sql", "advice"),
    [
        ("SELECT 1 FROM metrics WHERE id = @id", "write the parameter :id"),
        ("SELECT 1 FROM metrics WHERE id =@id", "write the parameter :id"),
        ("SELECT 1 FROM metrics WHERE parts_flagged = @parts_flagged", "write the parameter :parts_flagged"),
        ("SELECT 1 FROM metrics m WHERE parts_flagged >= @parts_flagged", "or abs(parts_flagged)"),
        ("SELECT 1 FROM metrics WHERE date > ':start_date'", "write :start_date without quotes"),
        ("SELECT 1 FROM metrics WHERE date > now() - interval ':d days'", "write :d without quotes"),
        ("SELECT 1 FROM metrics WHERE date > now() - interval :d", "write :d::interval"),
        ("SELECT extract(:part FROM date) FROM metrics", ":part is a parameter, which stands for a value"),
        ("SELECT m.:name FROM metrics m", ":name is a parameter, which stands for a value"),
        ("SELECT cast(1 AS :type) FROM metrics", ":type is a parameter, which stands for a value"),
        ("SELECT (ARRAY[1, 2])[:n]", "write (:n)"),
        ("SELECT (ARRAY[1, 2])[1:n]", "write (:n)"),
        ("SELECT 1 FROM :tables", "a parameter for a relation"),
        ("SELECT 1 FROM data.:tables", "a parameter for a relation"),
        ("SELECT 1 FROM metrics JOIN :tables ON true", "a parameter for a relation"),
    ],
)
async def test_what_postgres_reads_otherwise_is_explained(client, sql, advice):
    problem = await posted(client, sql)

    assert problem["status"] == 422
    assert advice in problem["detail"]


async def test_a_parameter_inside_quotes_is_explained_to_who_gives_it(client):
    made = await posted(client, "SELECT count(*) AS n FROM metrics WHERE alert_type = ':kind'")

    problem = (await client.get(f"/metrics/{made['id']}?kind=a")).json()

    assert "write :kind without quotes" in problem["errors"][0]["message"]


async def test_the_own_database_may_be_named(client, addresses):
    name = addresses.url.rsplit("/", 1)[-1]

    assert (await posted(client, f"SELECT 1 FROM {name}.data.metrics"))["status"] == 201
    assert (await posted(client, "SELECT 1 FROM elsewhere.data.metrics"))["status"] == 422


async def test_large_sql_is_stored_and_read_as_any_other(client):
    columns = ", ".join(f"{n} AS c{n}" for n in range(600))

    made = await posted(client, f"SELECT {columns} FROM metrics WHERE (:kind IS NULL OR alert_type = :kind)")
    refused = await posted(client, f"SELECT {columns}, pg_sleep(1) FROM metrics")

    assert (made["status"], types(made)) == (201, {"kind": "text"})
    assert (refused["status"], refused["code"]) == (422, "sql-refused")
    assert "pg_sleep" in refused["detail"]


async def test_a_text_parameter_has_a_length_limit(client):
    made = await posted(client, "SELECT length(:text::text) AS n")
    long = {"id": made["id"], "parameters": {"text": "é" * 32_768}}
    longer = {"id": made["id"], "parameters": {"text": "é" * 32_769}}

    answer = await client.post("/metrics/batch", json={"metrics": [long, longer]})
    fits, refused = answer.json()["results"]

    assert (fits["status"], fits["result"]["records"]) == (200, [{"n": 32_768}])
    assert refused["status"] == 422
    assert "65536 bytes" in refused["problem"]["errors"][0]["message"]


@pytest.mark.parametrize(
    "call", ["cuont(*)", "data.cuont(1)", "pg_catalog.cuont(1)", "dat_trunc('day', date)"]
)
async def test_a_typo_in_a_function_gets_the_message_of_postgres(client, call):
    problem = await posted(client, f"SELECT 1,\n {call} FROM metrics")

    assert (problem["status"], problem["line"], problem["column"]) == (422, 2, 2)
    assert problem["detail"].startswith(f"Postgres: function {call.split('(')[0]}(")
    assert "does not exist" in problem["detail"]
    assert "No function" in problem["hint"]


async def test_a_function_that_exists_is_refused_by_name(client):
    problem = await posted(client, "SELECT pg_sleep(1)")

    assert problem["code"] == "sql-refused"
    assert problem["detail"].startswith("The SQL calls pg_sleep, which stored SQL may not")


async def test_a_call_is_refused_even_if_postgres_cannot_be_asked(client, monkeypatch):
    async def busy(*_: object) -> None:
        raise Busy

    monkeypatch.setattr(Reader, "parameter_types", busy)
    problem = await posted(client, "SELECT cuont(*) FROM metrics")

    assert (problem["status"], problem["code"]) == (422, "sql-refused")
    assert problem["detail"].startswith("The SQL calls cuont")
