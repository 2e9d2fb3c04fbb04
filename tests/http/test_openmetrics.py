"""Values of a dashboard for Prometheus: exact, from held results alone, and safe whatever the data say."""

import asyncio
import subprocess
from contextvars import ContextVar
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from service.connect import openmetrics
from service.connect.missing import MOST, Missed, MissingResults
from service.connect.openmetrics import label_names
from service.observe.exposition import OPENMETRICS, TEXT
from tests.conftest import serving
from tests.http.test_rights import EXPECTED, as_caller, sales  # noqa: F401
from tests.programs import program
from tests.waiting import until

HOSTILE = 'a "quoted"\\ line\nand \u2028 \r more é ☃ {}=,#'


class Board:
    """A dashboard of its own with metrics on it."""

    def __init__(self, client, dashboard, metrics):
        self.client, self.id, self.metrics = client, dashboard, metrics
        self.path = f"/api/v1/dashboards/{dashboard}/openmetrics"

    async def warm(self, query=""):
        for metric in self.metrics:
            answer = await self.client.get(f"/api/v1/metrics/{metric}{query}")
            assert answer.status_code == 200, answer.text

    async def scrape(self, query="", accept=OPENMETRICS, **headers):
        return await self.client.get(f"{self.path}{query}", headers={"Accept": accept, **headers})

    async def samples(self, query="", accept=OPENMETRICS):
        answer = await self.scrape(query, accept)
        assert (answer.status_code, answer.headers["content-type"]) == (200, accept), answer.text
        read = read_openmetrics if accept == OPENMETRICS else read_text
        found = [sample for family in read(answer.text) for sample in family.samples]
        assert len({(each.name, *sorted(each.labels.items())) for each in found}) == len(found)
        return found

    async def values(self, number=0, **kinds):
        """The samples of one metric's values."""
        name = family(self.metrics[number])
        return [(each.labels, each.value) for each in await self.samples(**kinds) if each.name == name]

    async def about(self, name):
        return {
            each.labels.get("reason", self.metrics.index(each.labels["metric"])): each.value
            for each in await self.samples()
            if each.name == name
        }


def family(metric):
    return f"tally_metric_{metric.replace('-', '_')}"


@pytest.fixture(scope="module")
def service(shared_service):
    return shared_service


@pytest.fixture
def passive(service, monkeypatch):
    """Nothing brings what scrapes miss, as with HOT_FOR_S=0."""
    monkeypatch.setattr(service.client.service.state.services.exporter.missing, "_active", False)


@pytest.fixture
def board(service):
    async def make(*statements):
        dashboard = f"board-{uuid4().hex[:12]}"
        await service.client.post("/api/v1/dashboards", json={"id": dashboard, "title": "Board"})
        metrics = []
        for sql in statements:
            new = {"sql": sql, "dashboards": [{"id": dashboard}]}
            made = await service.client.post("/api/v1/metrics", json=new)
            assert made.status_code == 201, made.text
            metrics.append(made.json()["id"])
        return Board(service.client, dashboard, metrics)

    return make


@pytest.mark.parametrize("accept", [OPENMETRICS, TEXT])
async def test_numbers_are_samples_and_texts_are_labels(board, accept):
    made = await board(
        "SELECT * FROM (VALUES ('Critical', 3::bigint, 0.25), ('Info', 4, NULL)) AS t"
        " (alert_type, total, share)"
    )
    await made.warm()
    assert await made.values(accept=accept) == [
        ({"column": "total", "alert_type": "Critical"}, 3),
        ({"column": "share", "alert_type": "Critical"}, 0.25),
        ({"column": "total", "alert_type": "Info"}, 4),
    ]
    assert (await made.about("tally_result_held"), await made.about("tally_result_stale")) == ({0: 1}, {0: 0})
    as_of = (await made.about("tally_result_as_of_seconds"))[0]
    assert as_of == pytest.approx(as_of, abs=60)
    assert await made.about("tally_result_series_left_out") == {}


async def test_numbers_are_written_as_postgres_writes_them(board):
    made = await board(
        "SELECT 12345678901234567890.1230 AS a, 9007199254740993::bigint AS b, 'NaN'::numeric AS c,"
        " 'Infinity'::float8 AS d, 1e20::float8 AS e, -0.5::real AS f,"
        " 10::numeric ^ 400 AS g, 7::smallint AS h"
    )
    await made.warm()
    lines = [line for line in (await made.scrape()).text.splitlines() if line.startswith("tally_metric_")]
    name = family(made.metrics[0])
    assert lines == [
        f'{name}{{column="{column}"}} {number}'
        for column, number in (
            ("a", "12345678901234567890.1230"),
            ("b", "9007199254740993"),
            ("e", "1e20"),
            ("f", "-0.5"),
            ("h", "7"),
        )
    ]
    assert await made.about("tally_result_series_left_out") == {"range": 1}


async def test_labels_hold_all_other_types(board):
    made = await board(
        "SELECT date '2025-06-01' AS day, true AS yes, NULL::text AS none, '' AS empty, '5'::json AS json,"
        " ARRAY[1, 2] AS list, interval '1 month' AS span, 1 AS n"
    )
    await made.warm()
    [(labels, value)] = await made.values()
    expected = {"day": "2025-06-01", "yes": "true", "json": "5", "list": "[1,2]", "span": "P1M"}
    assert (labels, value) == ({"column": "n", **expected}, 1)


async def test_a_domain_over_a_number_is_a_number(board, service):
    executor = service.client.service.state.services.executor
    generation = executor._generation
    connection = await asyncpg.connect(service.settings.url)
    await connection.execute("CREATE DOMAIN data.euros AS numeric(10, 2)")
    await connection.close()
    await until(lambda: executor._generation > generation)  # else a later test would lose its plans
    made = await board("SELECT 1.50::data.euros AS price, 'x' AS name")
    await made.warm()
    assert await made.values() == [({"column": "price", "name": "x"}, 1.5)]


@pytest.mark.parametrize("accept", [OPENMETRICS, TEXT])
async def test_hostile_names_and_texts_are_read_back(board, accept):
    """Whatever a column is called and whatever stands in it, the parser finds the same text."""
    text = HOSTILE.replace("'", "''")
    made = await board(
        f"""SELECT '{text}' AS "__name__", 'b' AS "column", 'c' AS "le", 'd' AS "Größe (m²)", 'e' AS "цена",
        'f' AS "1st", 'g' AS "alertType", 'h' AS "alert type", 'i' AS "a{{}}=\\", {"'x' ||" * 0} 1 AS n"""
    )
    await made.warm()
    [(labels, _)] = await made.values(accept=accept)
    assert labels == {
        "name": HOSTILE, "column": "n", "column_2": "b", "le_2": "c", "groe_m2": "d", "label_5": "e",
        "_1st": "f", "alert_type": "g", "alert_type_2": "h", "a": "i",
    }  # fmt: skip


@given(st.lists(st.text(max_size=12), max_size=30))
def test_names_of_labels_are_safe_and_unique(columns):
    names = label_names(columns)
    assert len(set(names)) == len(columns)
    for name in names:
        assert name.isascii()
        assert name.replace("_", "a").isalnum()
        assert not name[0].isdigit()
        assert not name.startswith("__")
        assert name not in {"column", "le", "quantile"}


async def test_rows_with_the_same_labels_are_told(board):
    made = await board("SELECT 'x' AS name, n FROM generate_series(1, 5) AS n")
    await made.warm()
    assert await made.values() == [({"column": "n", "name": "x"}, 1)]
    assert await made.about("tally_result_series_left_out") == {"duplicate": 4}


async def test_the_number_of_series_is_limited_and_the_rest_told(board, monkeypatch):
    monkeypatch.setattr(openmetrics, "MOST_SERIES", 100)
    monkeypatch.setattr(openmetrics, "_ROWS_OF_A_PART", 30)
    many = "SELECT n::text AS name, n AS a, n AS b FROM generate_series(1, 400) AS n"
    made = await board(many, "SELECT 7 AS n", many)
    await made.warm()
    by_family = [len(await made.values(number)) for number in range(3)]
    assert sum(by_family) == 100
    assert min(by_family[0], by_family[2]) > 30
    assert await made.values(1) == [({"column": "n"}, 7)]
    left_out = [each for each in await made.samples() if each.name == "tally_result_series_left_out"]
    assert {(each.labels["metric"], each.labels["reason"]) for each in left_out} == {
        (made.metrics[0], "limit"), (made.metrics[2], "limit")
    }  # fmt: skip
    assert sum(each.value for each in left_out) == 1600 - 99


async def test_long_texts_are_cut(board):
    made = await board("SELECT repeat('x', 5000) AS name, 1 AS n")
    await made.warm()
    [(labels, _)] = await made.values()
    assert labels["name"] == "x" * (openmetrics.LONGEST_LABEL - 3) + "..."


async def test_a_cut_result_says_so(board):
    made = await board("SELECT n::text AS name, n FROM generate_series(1, 10001) AS n", "SELECT 1 AS n")
    await made.warm()
    assert await made.about("tally_result_truncated") == {0: 1, 1: 0}


ASKING: ContextVar[bool] = ContextVar("asking", default=False)


@pytest.fixture
def statements(monkeypatch):
    """The calls of the driver that a request makes, also in tasks that it starts."""
    calls = []
    for name in ("_do_execute", "execute", "_get_statement"):
        real = getattr(asyncpg.Connection, name)

        def counted(self, *args, _real=real, _name=name, **kwargs):
            if ASKING.get():
                calls.append((_name, str(args[0])[:60]))
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(asyncpg.Connection, name, counted)
    token = ASKING.set(True)
    yield calls
    ASKING.reset(token)


async def test_a_scrape_runs_no_statement(passive, board, statements):
    made = await board("SELECT count(*) AS n FROM metrics", "SELECT 2 AS n")
    statements.clear()
    for _ in range(3):  # nothing is held or planned yet
        assert await made.values() == []
        assert await made.about("tally_result_held") == {0: 0, 1: 0}
    assert statements == []
    await made.warm()
    assert statements != []
    statements.clear()
    for _ in range(20):
        assert [await made.values(number) for number in range(2)] == [
            [({"column": "n"}, 0)], [({"column": "n"}, 2)]
        ]  # fmt: skip
    assert statements == []
    made.client.service.state.services.executor.forget()  # as after a change of functions or rights
    assert await made.about("tally_result_held") == {0: 0, 1: 0}
    assert statements == []


async def test_a_change_is_told_and_runs_what_is_scraped(board, service):
    """A held result that a scrape reads is hot: the change itself brings the new one."""
    connection = await asyncpg.connect(service.settings.url)
    await connection.execute("CREATE TABLE data.scraped (n int); SELECT app.watch('data.scraped')")
    made = await board("SELECT count(*) AS n FROM scraped")
    await made.warm()
    assert await made.values() == [({"column": "n"}, 0)]
    await connection.execute("INSERT INTO data.scraped VALUES (1)")
    await connection.close()

    async def newer():
        found = await made.values()
        if not found:  # the new table was noticed as a change of definitions after the result was held
            await made.warm()
            return False
        return found[0][1] == 1 and await made.about("tally_result_stale") == {0: 0}

    await until(newer)


async def test_what_a_scrape_misses_is_there_for_a_later_one(board):
    """After a start, after a redefinition, and with parameters. The scrape itself gives no wrong value."""
    made = await board("SELECT 3 AS n", "SELECT :k::integer AS n", "SELECT 1 / count(*) AS n FROM metrics")
    assert await made.values(query="?k=8") == []

    async def both():
        return [await made.values(number, query="?k=8") for number in range(2)]

    expected = [[({"column": "n"}, 3)], [({"column": "n"}, 8)]]
    await until(lambda: _equal(both, expected))
    assert await made.values(2) == []  # it fails, and is not there
    changed = await made.client.patch(f"/api/v1/metrics/{made.metrics[0]}", json={"sql": "SELECT 4 AS n"})
    assert changed.status_code == 200
    missing = made.client.service.state.services.exporter.missing
    missing._not_before.clear()  # the pause is over
    expected[0] = [({"column": "n"}, 4)]
    await until(lambda: _equal(both, expected))


async def _equal(ask, expected):
    return await ask() == expected


async def test_what_fails_is_not_tried_by_each_scrape(board):
    made = await board("SELECT 1 / count(*) AS n FROM metrics")
    missing = made.client.service.state.services.exporter.missing
    tried = []
    bring = missing._run

    async def counted(missed):
        tried.append(missed)
        await bring(missed)

    missing._run = counted
    try:
        await made.samples()
        await until(lambda: any(str(each.metric_id) == made.metrics[0] for each in missing._not_before))
        for _ in range(20):
            await made.samples()
    finally:
        del missing._run
    assert [str(each.metric_id) for each in tried] == made.metrics
    assert not missing._wanted


async def test_more_than_can_be_remembered_is_forgotten():
    missing = MissingResults(None, None, None, lambda: 0.0, active=True)
    for number in range(MOST + 10):
        missing.want(Missed(UUID(int=number), (), ""))
    assert len(missing._wanted) == MOST
    assert Missed(UUID(int=0), (), "") not in missing._wanted


async def test_a_stale_result_is_told(board, service):
    """Nothing here brings a new one: while announcements are lost, nobody knows what has changed."""
    made = await board("SELECT count(*) AS n FROM metrics")
    await made.warm()
    results = service.client.service.state.base.results
    results.silent()
    try:
        assert await made.values() == [({"column": "n"}, 0)]
        assert await made.about("tally_result_stale") == {0: 1}
    finally:
        results.heard()


async def test_each_metric_takes_the_parameters_that_it_knows(board):
    made = await board("SELECT :k::int AS n", "SELECT 5 AS n")
    for query in ("?k=3", "?k=4"):
        await made.client.get(f"/api/v1/metrics/{made.metrics[0]}{query}")
    await made.client.get(f"/api/v1/metrics/{made.metrics[1]}")
    for k in (3, 4):
        numbers = [
            each.value for each in await made.samples(f"?k={k}") if each.name.startswith("tally_metric_")
        ]
        assert numbers == [k, 5]
    for query, word in (("?k=x", "k"), ("?other=1", "other"), ("?k=1&k=2", "query")):
        answer = await made.scrape(query)
        assert answer.status_code == 422
        assert word in [each["field"] for each in answer.json()["errors"]]


async def test_an_unchanged_scrape_is_not_modified(board):
    made = await board("SELECT 1 AS n")
    await made.warm()
    first = await made.scrape()
    again = await made.scrape(**{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await made.scrape(accept=TEXT)).headers["etag"] != first.headers["etag"]
    assert first.headers["vary"].split(", ")[0] == "Accept"
    assert (await made.client.head(made.path)).headers["content-type"] == TEXT


async def test_an_unknown_dashboard_is_404_and_an_empty_one_is_empty(service, board):
    answer = await service.client.get("/dashboards/none/openmetrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    made = await board()
    assert await made.samples() == []


async def test_a_changed_definition_has_no_held_result(passive, board):
    made = await board("SELECT 1 AS n")
    await made.warm()
    changed = await made.client.patch(f"/api/v1/metrics/{made.metrics[0]}", json={"sql": "SELECT 2 AS n"})
    assert changed.status_code == 200
    assert await made.values() == []


async def test_callers_see_their_own_rows_alone(sales, as_caller):  # noqa: F811
    async with serving(sales) as client:
        path = "/api/v1/dashboards/default/openmetrics"

        async def seen(who):
            answer = await client.get(path, headers=as_caller(who))
            return {
                sample.value
                for each in read_text(answer.text)
                for sample in each.samples
                if sample.name.startswith("tally_metric_")
            }

        assert (await client.get(path)).status_code == 401
        for who, own in EXPECTED.items():
            await client.get("/api/v1/dashboards/default/data", headers=as_caller(who))
            assert await seen(who) == {own}
            assert await seen("eve") == set()


async def test_scraping_needs_the_scope(visitor, token):
    path = "/api/v1/dashboards/default/openmetrics"
    assert (await visitor.get(path, headers=token("items:read"))).status_code == 403
    assert (await visitor.get(path, headers=token("metrics:read"))).status_code == 200


async def test_promtool_finds_nothing_to_say(board):
    text = HOSTILE.replace("'", "''")
    made = await board(
        f"""SELECT '{text}' AS "le", 'q' AS quantile, 'x' AS "alertType", 1 AS count, 2 AS orders_total,
        3 AS took_milliseconds, 4 AS bucket""",
        f"SELECT 1 AS n -- {text[:14]}",
        "SELECT 'x' AS name, n FROM generate_series(1, 3) AS n",
    )
    title = {"title": HOSTILE.replace("\n", " ") + "\\n"}
    assert (await made.client.patch(f"/api/v1/metrics/{made.metrics[1]}", json=title)).status_code == 200
    await made.warm()
    body = (await made.scrape(accept=TEXT)).content
    assert body.count(b"tally_metric_") > 6
    command = [program("promtool"), "check", "metrics"]
    found = await asyncio.to_thread(subprocess.run, command, input=body, capture_output=True, check=False)
    assert (found.stdout + found.stderr, found.returncode) == (b"", 0)


async def test_a_metric_that_needs_a_parameter_leaves_the_others_be(board):
    made = await board("SELECT 1 AS n", "SELECT :k::integer AS n, :l::integer AS m")
    await made.client.get(f"/api/v1/metrics/{made.metrics[0]}")
    await made.client.get(f"/api/v1/metrics/{made.metrics[1]}?k=7&l=8")
    for query, held in (("", 0), ("?k=7", 0), ("?k=7&l=9", 0), ("?k=7&l=8", 1)):
        found = await made.samples(query)
        named = {each.labels["metric"]: each.value for each in found if each.name == "tally_result_held"}
        assert named == {made.metrics[0]: 1, made.metrics[1]: held}, query
    for query in ("?k=x", "?k=7&l=", "?other=1"):
        assert (await made.scrape(query)).status_code == 422
