"""Query parameters mean what they say: an integer is digits, and nothing is passed over."""

from inspect import signature
from typing import get_args

import pytest
from litestar.routes import HTTPRoute

from service.app import routed
from service.http.requests import _query_fields, _takes_integers, query_parameters

NO_INTEGERS = [
    "1e1",
    "1E1",
    "10.0",
    "+10",
    " 10",
    "10 ",
    "1_0",
    "0x10",
    "ten",
    "",
    "\u0661\u0660",
    "1" * 31,
    "true",
]
LISTS = [
    "/metrics", "/dashboards", "/items", "/imports", "/quarantine", "/audit", "/alerts", "/alerts/rules",
    "/alerts/deliveries", "/interactions",
]  # fmt: skip


@pytest.fixture(scope="module")
def client(shared_service):
    return shared_service.client


@pytest.mark.parametrize("text", NO_INTEGERS)
@pytest.mark.parametrize("path", LISTS)
async def test_the_size_of_a_page_is_written_in_digits(client, path, text):
    answer = await client.get(f"/api/v1{path}", params={"limit": text})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == "limit"


@pytest.mark.parametrize("text", ["10", "1", "500"])
async def test_digits_are_taken(client, text):
    assert (await client.get(f"/api/v1/metrics?limit={text}")).status_code == 200


@pytest.mark.parametrize("text", ["1e1", "10.0", " 10", "10 ", "ten"])
async def test_a_parameter_of_a_metric_that_is_an_integer_is_written_in_digits_too(
    client, shared_service, text
):
    [metric] = await shared_service.store("SELECT :n::int AS n")
    answer = await client.get(f"/metrics/{metric}", params={"n": text})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "n"), answer.text


def test_no_route_has_an_integer_that_is_read_more_loosely():
    """Whatever a handler declares as int is seen by the check."""
    found = 0
    for route in routed().routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            for name in query_parameters(handler):
                hint = signature(handler.fn).parameters[_query_fields(handler)[name].name].annotation
                kinds = get_args(get_args(hint)[0]) or (get_args(hint)[0],)
                assert _takes_integers(handler, name) is (int in kinds), (route.path, name)
                found += _takes_integers(handler, name)
    assert found >= len(LISTS)
