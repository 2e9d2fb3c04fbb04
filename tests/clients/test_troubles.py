"""What a network, a proxy or a wrong address does to the clients."""

import asyncio
import io
import pickle
import time
from datetime import date
from decimal import Decimal
from importlib import import_module

import httpx
import pytest

from tests.clients.conftest import SECRET, run_node
from tests.clients.troubled import troubled

ID = "c797b618-df12-45f7-bbb2-cc6695a48e46"


@pytest.fixture
def trouble():
    with troubled() as started:
        yield started


@pytest.fixture
def at(trouble, tally_client, monkeypatch):
    """A client of a scenario, whose pauses are noted and take no time."""
    opened = []

    def open_at(scenario, **options):
        opened.append(tally_client.Client(f"{trouble.url}/{scenario}", **options))
        return opened[-1]

    open_at.pauses = []
    monkeypatch.setattr(time, "sleep", open_at.pauses.append)
    yield open_at
    for each in opened:
        each.close()


def asked(trouble, scenario):
    return [headers for name, _, headers in trouble.asked if name == scenario]


@pytest.mark.parametrize(("scenario", "pauses"), [("busy", [0.0]), ("dated", [0.0])])
def test_not_now_is_asked_again_when_the_service_says(at, trouble, scenario, pauses):
    assert at(scenario).get_health().status == "ok"
    assert at.pauses == pauses
    assert len(asked(trouble, scenario)) == 2


def test_a_longer_wait_than_wanted_is_an_error_at_once(at, trouble, tally_client):
    with pytest.raises(tally_client.BusyError) as caught:
        at("long").get_metric_definition(ID)
    assert caught.value.retry_after == 3600
    assert (at.pauses, len(asked(trouble, "long"))) == ([], 1)


def test_only_what_changes_nothing_more_is_repeated(at, trouble, tally_client):
    api = at("always", retries=2)
    tries = {
        "GET": lambda: api.get_item(1),
        "PUT": lambda: api.replace_item(1, {"title": "x"}),
        "POST that reads": lambda: api.get_metric_results({"metrics": []}),
        "POST": lambda: api.create_item({"title": "x"}),
        "POST of a file": lambda: api.import_file("customers", b"x", name="x.csv"),
    }
    counts = {}
    for name, call in tries.items():
        before = len(trouble.asked)
        with pytest.raises(tally_client.BusyError):
            call()
        counts[name] = len(trouble.asked) - before
    assert counts == {"GET": 3, "PUT": 3, "POST that reads": 3, "POST": 1, "POST of a file": 1}


def test_a_cut_connection_is_tried_again_unless_that_could_do_it_twice(at, trouble, tally_client):
    assert at("cut").get_health().status == "ok"
    assert 0.1 < at.pauses[0] <= 0.25
    trouble.turns.clear()
    with pytest.raises(tally_client.UnreachableError, match="broke"):
        at("cut").create_item({"title": "x"})


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("html", "text/html.*is the address right"),
        ("proxy", "502.*text/html.*\n<h1>Bad gateway"),
        ("moved", "redirect to https://elsewhere.example/"),
        ("broken", "is the service's version another"),
        ("other", "KeyError.*status"),
        ("forgetful", "304"),
        ("nowhere", "404"),
    ],
)
def test_what_is_no_answer_of_tally_is_said_to_be_none(at, tally_client, scenario, said):
    with pytest.raises(tally_client.UnexpectedAnswerError, match=said):
        at(scenario).get_health()


def test_an_unchanged_answer_comes_from_memory(at, trouble):
    api = at("held")
    first, second = (api.request("GET", "/api/v1/health") for _ in range(2))
    assert (first.held, second.held, second.json()) == (False, True, first.json())
    assert [headers.get("If-None-Match") for headers in asked(trouble, "held")] == [None, '"one"']
    assert at("held", cache_bytes=0).request("GET", "/api/v1/health").held is False


def test_what_one_token_sees_is_not_shown_to_another(at, trouble):
    tokens = iter(["ana", "ana", "bob"])
    api = at("held", token=lambda: next(tokens))
    assert [api.request("GET", "/api/v1/health").held for _ in range(3)] == [False, True, False]


def test_names_of_headers_may_be_written_in_any_case(at, trouble):
    api = at("held")
    api.request("get", "/api/v1/health")
    other = api.request("GET", "/api/v1/health", headers={"accept": "text/csv"})
    assert other.held is False
    assert asked(trouble, "held")[1]["Accept"] == "text/csv"
    assert api.request("GET", "/api/v1/health", headers={"ACCEPT": "text/csv"}).held


def test_the_memory_has_an_end_and_heeds_no_store(at, trouble):
    api = at("held", cache_bytes=40)
    paths = ["/api/v1/health", "/api/v1/health/live", "/api/v1/health"]
    assert [api.request("GET", path).held for path in paths] == [False, False, False]
    api = at("private")
    assert [api.request("GET", "/x").held for _ in range(2)] == [False, False]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8000", "ftp://x", "", "http://", "http://u:p@x", "http://x:99999", "http://x:0"],
)
def test_an_address_that_cannot_be_one_is_refused_at_once(tally_client, address):
    with pytest.raises(ValueError, match=r"address|port|Port"):
        tally_client.Client(address)


def test_nobody_there_is_said_with_the_address(tally_client):
    with (
        tally_client.Client("http://127.0.0.1:1/api/v1/", retries=0) as api,
        pytest.raises(
            tally_client.UnreachableError, match=r"127.0.0.1:1/api/v1/health.*does the service run"
        ),
    ):
        api.get_health()


@pytest.mark.parametrize("token", ["two\nlines", "späce", "a b", 7])
def test_a_token_that_no_header_can_carry_is_refused(at, token):
    with pytest.raises(ValueError, match="visible ASCII"):
        at("held", token=token).get_health()


@pytest.mark.parametrize("name", ["", ".", "..", None])
def test_an_id_that_names_nothing_is_refused(at, trouble, name):
    for call in (at("held").get_item, at("held").delete_dashboard, at("held").export_metric):
        with pytest.raises(ValueError, match="must name something"):
            call(name)
    assert trouble.asked == []


def test_the_service_says_what_is_wrong_and_how_to_mend_it(tally_client, address, client):
    with tally_client.Client(address, token="wrong") as api:
        with pytest.raises(tally_client.UnauthorizedError) as caught:
            api.list_metrics()
        assert (caught.value.status, caught.value.code) == (401, "invalid-token")
        assert "new token" in caught.value.remedy
        assert caught.value.remedy in str(caught.value)
        assert pickle.loads(pickle.dumps(caught.value)).code == "invalid-token"  # noqa: S301 (our own)
    poor = tally_client.ClientCredentials(address, "poor", SECRET)
    with tally_client.Client(address, token=poor) as api:
        assert api.list_items().items == []
        with pytest.raises(tally_client.ForbiddenError, match="metrics:read"):
            api.list_metrics()
    with pytest.raises(tally_client.UnauthorizedError, match="invalid_client"):
        tally_client.ClientCredentials(address, "poor", "guess")()
    for strange in ("a/b", "日本", "%2e%2e", "x?y=1#z"):
        with pytest.raises(tally_client.ProblemError) as caught:
            client.get_dashboard(strange)
        assert caught.value.status in (404, 422)
    with pytest.raises(tally_client.InvalidInputError) as caught:
        client.create_item({"title": ""})
    assert caught.value.errors[0].field == "title"


def test_a_real_result_is_fetched_once(client):
    made = client.create_metric({"sql": "SELECT count(*) AS n FROM customers", "title": "Held"})
    path = f"/api/v1/metrics/{made.id}"
    first, second = (client.request("GET", path) for _ in range(2))
    assert (first.held, second.held, second.json()["columns"]) == (False, True, first.json()["columns"])
    assert second.headers["cache-status"].startswith("tally; hit")


class Counted(io.BytesIO):
    """A file that notes how much was read at once."""

    name = "many.csv"

    def __init__(self, content):
        super().__init__(content)
        self.sizes = []

    def read(self, size=-1):
        piece = super().read(size)
        self.sizes.append(len(piece))
        return piece


def test_a_file_is_sent_piece_by_piece(client):
    rows = "".join(f"{number},Cook,B2B\n" for number in range(100_000, 160_000))
    file = Counted(b"customer_id,occupation,type\n" + rows.encode())
    report = client.import_file("customers", file, dry_run=True)
    assert (report.source, report.rows_read) == ("many.csv", 60_000)
    assert max(file.sizes) <= 1 << 16
    assert len(file.sizes) > 10


@pytest.mark.parametrize("name", [None, "data", "data.txt"])
def test_a_file_needs_a_name_that_tells_its_kind(at, name):
    with pytest.raises(ValueError, match=r"\.csv, \.json, \.xlsx"):
        at("held").import_file("customers", b"x", name=name)


def test_a_lost_stream_is_opened_again_where_it_was(at, trouble):
    events = list(at("live").watch_metric(ID, day_range=3, parameters={"a": [1, 2]}))
    assert [(each.event, each.id) for each in events] == [
        ("result", '"one"'),
        ("stale", ""),
        ("alert", ""),
        ("gone", ""),
    ]
    assert events[0].result.records == [{"n": 1}]
    assert events[2].data == {"open": 2}
    assert [headers.get("Last-Event-ID") for headers in asked(trouble, "live")] == [None, *['"one"'] * 3]
    assert at.pauses == [0.001, 0.0, 0.001]


def test_a_stream_goes_on_with_a_new_token(at, trouble):
    tokens = iter(["ana", "ana-2", "ana-2", "ana-2", "ana-2"])
    events = [each.event for each in at("renewed", token=lambda: next(tokens)).watch_metric(ID)]
    assert events == ["result", "gone"]
    assert [headers["Authorization"] for headers in asked(trouble, "renewed")] == [
        "Bearer ana",
        "Bearer ana-2",
    ]


def test_a_token_goes_to_no_other_server(at, trouble):
    for path in ("http://elsewhere.example/x", "//elsewhere.example/x", "@elsewhere.example/x", "x"):
        with pytest.raises(ValueError, match="no path"):
            at("held", token="secret").request("GET", path)
    assert trouble.asked == []


def test_a_number_goes_back_as_it_came(tally_client):
    exact = import_module("tally_client.exact")
    text = b'{"a":[0.12345678901234567890,1e400,12345678901234567890123],"b":{"c":-0.10},"d":0.5}'
    assert exact.dumps(exact.loads(text)) == text.replace(b"1e400", b"1E+400").replace(b",", b", ").replace(
        b":", b": "
    )
    assert exact.loads(b"9" * 5000).exact() == Decimal("9" * 5000)
    assert isinstance(exact.loads(b"0.5"), float)
    beyond = b'{"columns":[{"name":"j","type":"json"}],"records":[{"j":[1e9999999999999999999, 1.50]}]}'
    huge, plain = exact.loads(beyond)["records"][0]["j"]
    assert (huge.text, str(plain)) == ("1e9999999999999999999", "1.50")
    assert exact.dumps([huge, plain]) == b"[1e9999999999999999999, 1.50]"
    with pytest.raises(ValueError, match="no number NaN"):
        exact.dumps(Decimal("NaN"))
    with pytest.raises(TypeError, match="object cannot be written"):
        exact.dumps([object()])


async def test_what_is_not_given_is_not_sent(tally_client):
    def answer(request):
        return httpx.Response(200, json={"items": [], "next_cursor": None, "query": str(request.url.query)})

    async with tally_client.AsyncClient(transport=httpx.MockTransport(answer)) as api:
        page = await api.list_customer_interactions(
            start_date=None, end_date="2025-06-30", channel=["A", "B"]
        )
        assert page.additional_properties["query"] == "b'channel=A&channel=B&end_date=2025-06-30'"
        page = await api.list_customer_interactions(start_date=date(2025, 6, 1), cursor=None)
        assert page.additional_properties["query"] == "b'start_date=2025-06-01'"


def test_what_is_nested_too_deep_to_read_is_said(tally_client):
    deep = httpx.MockTransport(
        lambda _: httpx.Response(200, text="[" * 100_000, headers={"Content-Type": "application/json"})
    )
    with (
        tally_client.Client(transport=deep) as api,
        pytest.raises(tally_client.UnexpectedAnswerError, match="RecursionError"),
    ):
        api.get_health()


def test_a_stream_without_rights_or_metric_ends(at, tally_client):
    with pytest.raises(tally_client.UnauthorizedError, match=r"It ended.\nGet a new token"):
        list(at("denied").watch_metric(ID))
    with pytest.raises(tally_client.UnexpectedAnswerError, match="cannot be read"):
        list(at("garbled").watch_metric(ID))
    assert list(at("gone").watch_metric(ID)) == []
    with pytest.raises(tally_client.UnexpectedAnswerError):
        list(at("html").watch_metric(ID))


async def test_the_same_in_an_event_loop(trouble, tally_client, monkeypatch):
    pauses = []

    async def noted(seconds):
        pauses.append(seconds)

    monkeypatch.setattr("tally_client.aio.asyncio.sleep", noted)

    async def token():
        return "ana"

    async with tally_client.AsyncClient(f"{trouble.url}/live", token=token) as api:
        events = [each.event async for each in api.watch_metric(ID)]
    assert events == ["result", "stale", "alert", "gone"]
    async with tally_client.AsyncClient(f"{trouble.url}/busy", token=token) as api:
        assert (await api.get_health()).status == "ok"
    async with tally_client.AsyncClient(f"{trouble.url}/cut") as api:
        assert (await api.get_health()).status == "ok"
    async with tally_client.AsyncClient(f"{trouble.url}/held") as api:
        assert [(await api.request("GET", "/x")).held for _ in range(2)] == [False, True]
    assert len(pauses) == 5
    assert asked(trouble, "busy")[0]["Authorization"] == "Bearer ana"


async def test_leaving_a_stream_closes_it(tally_client, address, token_of):
    async with tally_client.AsyncClient(address, token=token_of) as api:
        made = await api.create_metric({"sql": "SELECT count(*) AS n FROM customers", "title": "Watched"})
        watched = api.watch_metric(made.id)
        first = await anext(watched)
        more = asyncio.ensure_future(anext(watched))
        await api.import_file("customers", b"customer_id,occupation,type\n77001,Cook,B2B\n", name="a.csv")
        second = await more
        assert second.result.records[0]["n"] == first.result.records[0]["n"] + 1
        await watched.aclose()


def test_threads_may_share_a_client(trouble, tally_client):
    from concurrent.futures import ThreadPoolExecutor

    with tally_client.Client(f"{trouble.url}/held") as api, ThreadPoolExecutor(8) as pool:
        assert {each.status for each in pool.map(lambda _: api.get_health(), range(64))} == {"ok"}


def test_an_event_without_an_end_is_not_held(at, tally_client, monkeypatch):
    module = import_module(f"{tally_client.__name__}.live")
    monkeypatch.setattr(module, "LARGEST_EVENT", 1000)
    reader = module.EventReader()
    assert [*reader.feed(b"x" * 400), *reader.feed(b"x" * 400)] == []
    with pytest.raises(tally_client.UnexpectedAnswerError, match="more than 1000 bytes"):
        list(reader.feed(b"x" * 400))


def test_a_transport_of_ones_own_is_used(tally_client):
    def answer(request):
        return httpx.Response(200, json={"status": "ok", "checks": {"agent": request.headers["user-agent"]}})

    with tally_client.Client(transport=httpx.MockTransport(answer)) as api:
        assert api.get_health().checks["agent"].startswith("tally-client/")


def test_the_other_client_does_the_same(trouble, sdk):
    import shutil
    from pathlib import Path

    shutil.copy(Path(__file__).with_name("troubles.mts"), sdk)
    assert run_node(sdk / "troubles.mts", trouble.url) == "well\n"
    counts = {each: len(asked(trouble, each)) for each in ("busy", "dated", "long", "always", "cut")}
    assert counts == {"busy": 2, "dated": 2, "long": 1, "always": 14, "cut": 3}
    assert [headers.get("last-event-id") for headers in map(lower, asked(trouble, "live"))] == [
        None,
        *['"one"'] * 3,
    ]


def lower(headers):
    return {name.lower(): value for name, value in headers.items()}
