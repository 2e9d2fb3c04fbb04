"""Whose address counts behind proxies: never one that the caller made up."""

import pytest

from service.environment import load
from service.errors import Stop
from service.http.client_address import Proxies

PROXIES = Proxies(("10.0.0.0/8", "2001:db8::/32"))


def address(peer: str, *forwarded: str, proxies: Proxies = PROXIES) -> str | None:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return proxies.client_address({"client": (peer, 1234), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("1.1.1.1, 203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("1.1.1.1", "203.0.113.9, 10.0.0.2"), "203.0.113.9"),
        ("::ffff:10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("2001:db8::1", ("2001:DB9::0001",), "2001:db9::1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9, unknown",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9:80",), "10.0.0.1"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", (", ".join(["203.0.113.9"] + ["10.0.0.2"] * 5000),), "10.0.0.2"),
        ("192.0.2.1", ("203.0.113.9",), "192.0.2.1"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_clients(peer, forwarded, expected):
    assert address(peer, *forwarded) == expected


def test_without_the_setting_nobody_is_believed():
    assert address("127.0.0.1", "203.0.113.9", proxies=Proxies(())) == "127.0.0.1"
    assert Proxies(()).client_address({"headers": []}) is None


def test_the_setting_is_checked_at_the_start():
    assert load({"TRUSTED_PROXIES": "10.0.0.0/8, ::1"}).server.trusted_proxies == ("10.0.0.0/8", "::1")
    with pytest.raises(Stop, match=r"TRUSTED_PROXIES: 'nginx' is no network"):
        load({"TRUSTED_PROXIES": "nginx"})
    with pytest.raises(Stop, match="host bits"):
        load({"TRUSTED_PROXIES": "10.0.0.1/8"})
