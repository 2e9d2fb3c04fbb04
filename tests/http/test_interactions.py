"""Interactions over HTTP: exact answers, filters, pages, totals, and what is refused."""

from collections.abc import AsyncGenerator
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from service.imports.datasets import DATASETS
from service.settings import Database as DatabaseSettings
from tests.conftest import Server, _cloned, everybody, serving

# Customer 4 is unknown: nobody else used Call and Bird.
SAMPLE = {
    "customers": """Customer_Id,Occupation,Type
1,Purchasing manager,Manufacturer
2,Design engineer,Distributor
3,Fleet manager,manufacturer
5,Engineer,
""",
    "external_interactions": """Date Start,Interaction,Customer_Id
04/10/2021 09:00,Email,1
31/10/2021 23:59:59.5,email,2
06/10/2021 09:00,Call,4
07/10/2021 09:00,Bird,4
08/10/2021 09:00,Call,4
01/11/2021 00:00,Email,3
05/12/2021 10:00,EMAIL ,3
01/01/2022 10:00,Email,5
31/04/2022 10:00,Fax,5
""",
    "products_of_discussion": """Date,Product
10-2021,Pumps
10-2021,Valves
11-2021,Pumps
01-2023,Gears
""",
}


async def put(client: httpx.AsyncClient, dataset: str, text: str) -> dict:
    """Import text as a file of a dataset; its report."""
    answer = await client.post(
        f"/api/v1/imports/{dataset}", content=text.encode(), headers={"Content-Type": "text/csv"}
    )
    assert answer.status_code == 201
    return answer.json()


async def put_sample(client: httpx.AsyncClient) -> None:
    for dataset, text in SAMPLE.items():
        await put(client, dataset, text)


@pytest.fixture
async def raw(addresses: DatabaseSettings) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(addresses.url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def sample(
    server: Server, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[httpx.AsyncClient]:
    """The service over the sample, for all tests that only read it."""
    data_dir = tmp_path_factory.mktemp("data")
    async with (
        _cloned(server, template) as addresses,
        serving(everybody(addresses, data_dir)) as client,
    ):
        await put_sample(client)
        yield client


@pytest.fixture
async def own_sample(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The service over a sample that the test may change."""
    await put_sample(client)
    return client


def zeros(**counts: int) -> dict[str, int]:
    return {"Email": 0, "Call": 0, "Bird": 0} | counts


async def test_a_customer_is_answered_with_every_channel_that_ever_appeared(sample: httpx.AsyncClient):
    answer = await sample.get("/api/v1/interactions/1")
    assert answer.content == b'{"data":{"customer_id":1,"interactions":{"Email":1,"Call":0,"Bird":0}}}'


@pytest.mark.parametrize(
    ("customer", "filters", "emails"),
    [
        (3, "", 2),
        (3, "channel=Email", 2),
        (3, "channel=email", 2),
        (3, "channel=Call", 0),
        (3, "channel=Call&channel=Email", 2),
        (3, "start_date=2021-11-02", 1),
        (3, "end_date=2021-11-01", 1),
        (3, "start_date=2021-11-01&end_date=2021-11-01", 1),
        (3, "start_date=2021-12-06", 0),
        (2, "end_date=2021-10-31", 1),
        (2, "end_date=2021-10-30", 0),
        (3, "product=Pumps", 1),
        (3, "product=PUMPS", 1),
        (3, "product=Valves", 0),
        (3, "product=Gears", 0),
        (1, "product=Valves&start_date=2021-10-04&end_date=2021-10-04&channel=Email", 1),
        (3, "start_date=0001-01-01&end_date=9999-12-31", 2),
        (3, "start_date=9999-12-31", 0),
        (3, "end_date=0001-01-01", 0),
    ],
)
async def test_filters_choose_what_counts_and_the_other_channels_stay(
    sample: httpx.AsyncClient, customer: int, filters: str, emails: int
):
    answer = await sample.get(f"/api/v1/interactions/{customer}?{filters}")
    assert answer.json() == {"data": {"customer_id": customer, "interactions": zeros(Email=emails)}}


@pytest.mark.parametrize("customer", ["6", "44", "9223372036854775807", "9223372036854775808", "9" * 200])
async def test_a_customer_who_is_not_there_is_not_found(sample: httpx.AsyncClient, customer: str):
    answer = await sample.get(f"/api/v1/interactions/{customer}")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(f"There is no customer {customer[:60]}")
    assert "quarantine" not in answer.json()["detail"]


async def test_of_an_unknown_customer_it_is_told_how_many_rows_wait(sample: httpx.AsyncClient):
    answer = await sample.get("/api/v1/interactions/4")
    assert answer.status_code == 404
    assert answer.json()["detail"] == (
        "There is no customer 4. 3 interactions of this customer are in quarantine and load when the customer"
        " arrives: see /api/v1/quarantine?dataset=external_interactions&reason=orphan&status=open."
    )


async def test_when_the_customer_arrives_the_waiting_rows_count(own_sample: httpx.AsyncClient):
    report = await put(own_sample, "customers", "Customer_Id,Occupation,Type\n4.0,Engineer,Distributor\n")
    assert report["released"] == {"external_interactions": 3}
    answer = await own_sample.get("/api/v1/interactions/4")
    assert answer.json() == {"data": {"customer_id": 4, "interactions": zeros(Call=2, Bird=1)}}
    answer = await own_sample.get("/api/v1/interactions/by/channel")
    assert answer.json() == {"data": zeros(Email=5, Call=2, Bird=1)}
    stats = (await own_sample.get("/api/v1/stats")).json()["data"]["external_interactions"]
    assert (stats["rows"], stats["waiting_rows"]) == (8, 1)


async def test_rows_discarded_from_the_quarantine_no_longer_wait(
    own_sample: httpx.AsyncClient, raw: asyncpg.Connection
):
    await raw.execute("UPDATE quarantine.row SET status = 'discarded', closed_at = now()")
    answer = await own_sample.get("/api/v1/interactions/4")
    assert answer.json()["detail"] == "There is no customer 4."


async def test_rows_that_a_mirroring_import_marked_gone_do_not_count(
    own_sample: httpx.AsyncClient, raw: asyncpg.Connection
):
    await raw.execute("""
        UPDATE data.external_interactions SET gone_at = now() WHERE date_start = '2021-11-01';
        UPDATE data.products_of_discussion SET gone_at = now() WHERE product = 'Valves';
        UPDATE data.customers SET gone_at = now() WHERE customer_id = 1;
    """)
    assert (await own_sample.get("/api/v1/interactions/1")).status_code == 404
    listed = (await own_sample.get("/api/v1/interactions")).json()["items"]
    assert [item["interactions"]["Email"] for item in listed] == [1, 1, 1]
    totals = await own_sample.get("/api/v1/interactions/by/product,customer_type")
    assert totals.json() == {
        "data": {"Pumps": {"Distributor": 1, "null": 1}, "null": {"Manufacturer": 1, "null": 1}}
    }
    refused = await own_sample.get("/api/v1/interactions?product=Valves")
    assert refused.json()["errors"][0]["message"] == "'Valves' is not known; known are Gears, Pumps"
    stats = (await own_sample.get("/api/v1/stats")).json()["data"]
    assert [stats[name]["rows"] for name in SAMPLE] == [3, 4, 3]


@pytest.mark.parametrize(
    "customer", ["0", "00", "-1", "+1", "1.0", "abc", "1e3", "%20", "%00", "%ff", "१", "0x1", "by,channel"]
)
async def test_an_id_that_is_no_positive_integer_is_refused(sample: httpx.AsyncClient, customer: str):
    answer = await sample.get(f"/api/v1/interactions/{customer}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "customer_id"
    assert "not a positive integer" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("path", ["/1", "", "/by/channel"])
@pytest.mark.parametrize(
    ("filters", "field", "message"),
    [
        ("channel=Fax", "channel", "'Fax' is not known; known are Email, Call, Bird"),
        ("channel=Email&channel=", "channel", "'' is not known; known are Email, Call, Bird"),
        ("channel=%00", "channel", "'\\x00' is not known; known are Email, Call, Bird"),
        ("product=Screws", "product", "'Screws' is not known; known are Gears, Pumps, Valves"),
        (
            "start_date=2022-02-01&end_date=2022-01-31",
            "end_date",
            "2022-01-31 is before start_date 2022-02-01",
        ),
        ("start_date=01/02/2022", "start_date", "'01/02/2022' is not a day such as 2025-06-30"),
        ("end_date=2022-02-30", "end_date", "'2022-02-30' is not a day such as 2025-06-30"),
        ("end_date=", "end_date", "'' is not a day such as 2025-06-30"),
        ("start_date=10000-01-01", "start_date", "'10000-01-01' is not a day such as 2025-06-30"),
        ("product=Pumps&product=Valves", "product", "given more than once"),
    ],
)
async def test_a_wrong_filter_is_refused_by_name(
    sample: httpx.AsyncClient, path: str, filters: str, field: str, message: str
):
    answer = await sample.get(f"/api/v1/interactions{path}?{filters}")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": field, "message": message}]


async def test_all_wrong_filters_are_named_at_once(sample: httpx.AsyncClient):
    answer = await sample.get("/api/v1/interactions?channel=Fax&channel=Pigeon&product=x&customer_type=y")
    assert [error["field"] for error in answer.json()["errors"]] == [
        "channel", "channel", "customer_type", "product",
    ]  # fmt: skip
    assert "known are Distributor, Manufacturer" in answer.json()["errors"][2]["message"]


@pytest.mark.parametrize("filters", ["day_range=7", "customer_type=Manufacturer"])
async def test_a_filter_that_a_route_does_not_take_is_refused(sample: httpx.AsyncClient, filters: str):
    answer = await sample.get(f"/api/v1/interactions/1?{filters}")
    assert answer.status_code == 422
    assert "it takes channel, end_date, product, start_date" in answer.json()["errors"][0]["message"]


async def test_the_list_has_all_customers_also_those_never_in_touch(
    own_sample: httpx.AsyncClient, raw: asyncpg.Connection
):
    await raw.execute(
        "INSERT INTO data.customers (customer_id, type) VALUES (9223372036854775807, 'Distributor')"
    )
    answer = await own_sample.get("/api/v1/interactions")
    assert answer.json() == {
        "items": [
            {"customer_id": 1, "interactions": zeros(Email=1)},
            {"customer_id": 2, "interactions": zeros(Email=1)},
            {"customer_id": 3, "interactions": zeros(Email=2)},
            {"customer_id": 5, "interactions": zeros(Email=1)},
            {"customer_id": 9223372036854775807, "interactions": zeros()},
        ],
        "next_cursor": None,
    }


async def test_the_list_takes_filters_and_a_type_of_customer(sample: httpx.AsyncClient):
    answer = await sample.get("/api/v1/interactions?customer_type=manufacturer&end_date=2021-11-30")
    assert answer.json()["items"] == [
        {"customer_id": 1, "interactions": zeros(Email=1)},
        {"customer_id": 3, "interactions": zeros(Email=1)},
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
async def test_pages_together_are_the_list(sample: httpx.AsyncClient, limit: int):
    whole = (await sample.get("/api/v1/interactions")).json()["items"]
    found, cursor = [], ""
    for _ in range(len(whole)):
        page = (await sample.get(f"/api/v1/interactions?limit={limit}{cursor}")).json()
        assert 1 <= len(page["items"]) <= limit
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == whole
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "cursor=", "cursor=x", "cursor=f_________8", "cursor=__________8",
     "cursor=%ff", "cursor=AAAAAAAAAAIA"],
)  # fmt: skip
async def test_a_page_that_cannot_be_is_refused(sample: httpx.AsyncClient, query: str):
    answer = await sample.get(f"/api/v1/interactions?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == query.split("=", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("channel", {"Email": 5, "Call": 0, "Bird": 0}),
        ("channel?channel=Bird", {"Email": 0, "Call": 0, "Bird": 0}),
        ("channel?customer_type=Manufacturer", {"Email": 3, "Call": 0, "Bird": 0}),
        ("customer_type", {"Distributor": 1, "Manufacturer": 3, "null": 1}),
        ("customer_type?end_date=2021-10-31", {"Distributor": 1, "Manufacturer": 1}),
        ("customer_type?start_date=2030-01-01", {}),
        ("product", {"Pumps": 3, "Valves": 2, "null": 2}),
        ("product?product=Valves", {"Valves": 2}),
        ("product?start_date=2021-11-01&end_date=2021-11-30", {"Pumps": 1}),
        ("channel?product=Pumps", {"Email": 3, "Call": 0, "Bird": 0}),
        (
            "customer_type,product",
            {
                "Distributor": {"Pumps": 1, "Valves": 1},
                "Manufacturer": {"Pumps": 2, "Valves": 1, "null": 1},
                "null": {"null": 1},
            },
        ),
        (
            "product,customer_type",
            {
                "Pumps": {"Distributor": 1, "Manufacturer": 2},
                "Valves": {"Distributor": 1, "Manufacturer": 1},
                "null": {"Manufacturer": 1, "null": 1},
            },
        ),
        (
            "customer_type,channel?product=Valves",
            {"Distributor": zeros(Email=1), "Manufacturer": zeros(Email=1)},
        ),
        (
            "channel,product,customer_type?end_date=2021-10-31",
            {
                "Email": {
                    "Pumps": {"Distributor": 1, "Manufacturer": 1},
                    "Valves": {"Distributor": 1, "Manufacturer": 1},
                },
                "Call": {},
                "Bird": {},
            },
        ),
    ],
)  # fmt: skip
async def test_totals_count_by_what_the_address_names(sample: httpx.AsyncClient, by: str, expected: dict):
    answer = await sample.get(f"/api/v1/interactions/by/{by}")
    assert answer.status_code == 200
    assert repr(answer.json()) == repr({"data": expected})  # the order counts too


@pytest.mark.parametrize(
    "by",
    ["type", "channel,", ",", "channel,channel", "Channel", "channel,product,channel", "channel;product"],
)
async def test_totals_by_something_else_are_refused(sample: httpx.AsyncClient, by: str):
    answer = await sample.get(f"/api/v1/interactions/by/{by}")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "field": "dimensions",
            "message": f"'{by}' is not one or several of channel, customer_type, product, each once",
        }
    ]


async def test_a_product_called_null_is_added_to_none(own_sample: httpx.AsyncClient, raw: asyncpg.Connection):
    await raw.execute(
        "INSERT INTO data.products_of_discussion (month, product) VALUES ('2021-11-01', 'null')"
    )
    answer = await own_sample.get("/api/v1/interactions/by/product?start_date=2021-11-01")
    assert answer.json() == {"data": {"Pumps": 1, "null": 3}}


async def test_rows_written_past_the_imports_count_too_whatever_their_spelling(
    own_sample: httpx.AsyncClient, raw: asyncpg.Connection
):
    await raw.execute("""
        INSERT INTO data.external_interactions (date_start, interaction, customer_id) VALUES
            ('2022-05-01', 'EMAIL', 1), ('2022-05-02', 'call', 1), ('2022-05-03', 'Visit', 1),
            ('2022-05-04', 'Fax', 1);
        UPDATE data.external_interactions SET interaction = 'Pigeon' WHERE interaction = 'Fax';
    """)
    expected = zeros(Email=2, Call=1) | {"Visit": 1, "Fax": 0, "Pigeon": 1}
    answer = await own_sample.get("/api/v1/interactions/1")
    assert repr(answer.json()["data"]["interactions"]) == repr(expected)
    answer = await own_sample.get("/api/v1/interactions/by/customer_type,channel?customer_type=Manufacturer")
    assert answer.json() == {"data": {"Manufacturer": expected | {"Email": 4}}}
    answer = await own_sample.get("/api/v1/interactions/by/channel?channel=EMAIL&customer_type=Manufacturer")
    assert answer.json() == {"data": dict.fromkeys(expected, 0) | {"Email": 4}}


async def test_channels_may_be_any_text(own_sample: httpx.AsyncClient, raw: asyncpg.Connection):
    channels = [
        "Телефон", "電話", "E-Mail ✉️", "Café", "صوت", 'quo"te', "back\\slash", "a,b",
        "🐦‍⬛", "__proto__", "null",
        " ", "x" * 200,
    ]  # fmt: skip
    await raw.execute(
        "INSERT INTO data.external_interactions (date_start, interaction, customer_id)"
        " SELECT '2022-05-01', channel, 1 FROM unnest($1::text[]) AS channel",
        channels,
    )
    for channel in channels:
        answer = await own_sample.get(f"/api/v1/interactions/1?channel={quote(channel, safe='')}")
        expected = zeros() | dict.fromkeys(channels, 0) | {channel: 1}
        assert repr(answer.json()) == repr({"data": {"customer_id": 1, "interactions": expected}})
    answer = await own_sample.get("/api/v1/interactions/by/channel")
    assert answer.json() == {"data": zeros(Email=5) | dict.fromkeys(channels, 1)}


async def test_a_service_without_data_answers_empty(client: httpx.AsyncClient):
    assert (await client.get("/api/v1/interactions")).json() == {"items": [], "next_cursor": None}
    assert (await client.get("/api/v1/interactions/1")).status_code == 404
    for by in ("channel", "product", "customer_type,channel"):
        assert (await client.get(f"/api/v1/interactions/by/{by}")).json() == {"data": {}}
    answer = await client.get("/api/v1/interactions?channel=Email")
    assert answer.json()["errors"] == [
        {"field": "channel", "message": "'Email' is not known; none is known yet"}
    ]
    stats = (await client.get("/api/v1/stats")).json()["data"]
    assert list(stats) == [dataset.name for dataset in DATASETS]
    assert {(figures["rows"], figures["waiting_rows"]) for figures in stats.values()} == {(0, 0)}


async def test_the_figures_of_each_dataset(own_sample: httpx.AsyncClient, raw: asyncpg.Connection):
    await raw.execute(
        "INSERT INTO data.metrics (id, date)"
        " VALUES ('b', '2020-02-29 23:59'), ('a', '2024-01-01'), ('a', '2022-01-01')"
    )
    stats = (await own_sample.get("/api/v1/stats")).json()["data"]
    assert stats["metric_records"] == {
        "rows": 3, "first_date": "2020-02-29", "last_date": "2024-01-01", "distinct_keys": 2,
        "waiting_rows": 0,
    }  # fmt: skip
    assert stats["customers"] == {
        "rows": 4, "first_date": None, "last_date": None, "distinct_keys": 4, "waiting_rows": 0,
    }  # fmt: skip
    assert stats["external_interactions"] == {
        "rows": 5, "first_date": "2021-10-04", "last_date": "2022-01-01", "distinct_keys": 5,
        "waiting_rows": 4,
    }  # fmt: skip
    assert stats["products_of_discussion"] == {
        "rows": 4, "first_date": "2021-10-01", "last_date": "2023-01-01", "distinct_keys": 4,
        "waiting_rows": 0,
    }  # fmt: skip


async def test_the_document_tells_what_a_topic_is(client: httpx.AsyncClient):
    document = (await client.get("/openapi.json")).json()
    totals = document["paths"]["/api/v1/interactions/by/{dimensions}"]["get"]
    assert "several" in totals["description"]
    assert "add up to more than" in totals["description"]
    one = document["paths"]["/api/v1/interactions/{customer_id}"]["get"]
    assert one["responses"]["200"]["content"]["application/json"]["example"] == {
        "data": {"customer_id": 1, "interactions": {"Email": 1, "Call": 0, "Bird": 0}}
    }
    assert {"200", "404", "422", "503"} <= set(one["responses"])
