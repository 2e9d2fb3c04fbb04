"""REDIS_URL: what it may be, and what a mistake in it is answered with."""

import pytest

from service.errors import Stop
from service.redis_url import parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", ("one", (("localhost", 6379),), False, None, None, 0)),
        ("rediss://:p%40ss@store:7000/2", ("one", (("store", 7000),), True, None, "p@ss", 2)),
        ("redis://tally:word@[::1]:6380", ("one", (("::1", 6380),), False, "tally", "word", 0)),
        ("redis+cluster://a:1,b:2", ("cluster", (("a", 1), ("b", 2)), False, None, None, 0)),
        ("rediss+sentinel://:x@a,b:9/main/3", ("sentinel", (("a", 26379), ("b", 9)), True, None, "x", 3)),
    ],
)
def test_one_server_sentinel_and_cluster(url, expected):
    found = parse(url)
    assert (found.kind, found.hosts, found.tls, found.username, found.password, found.database) == expected


def test_a_socket_options_and_what_is_shown():
    assert parse("unix:///run/redis.sock").path == "/run/redis.sock"
    found = parse("rediss+sentinel://:secret@a/main?ssl_ca_certs=/ca.pem&sentinel_password=other")
    assert (found.service, found.options, found.sentinel) == (
        "main",
        {"ssl_ca_certs": "/ca.pem"},
        {"password": "other"},
    )
    assert found.where == "a:26379"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://:secret@store", "expected redis://"),
        ("redis://:secret@", "no host:port"),
        ("redis://:secret@store:port", "no host:port"),
        ("redis://:secret@store:99999", "no host:port"),
        ("redis://:secret@store/main", "the database is a number"),
        ("redis://:secret@store/0/1", "the database is a number"),
        ("redis+sentinel://:secret@store", "name Sentinel's service"),
        ("redis+cluster://:secret@store/1", "no numbered databases"),
        ("redis://:secret@store?ssl_ca_certs=/x", "takes no parameter 'ssl_ca_certs'"),
        ("rediss://:secret@store?ssl_verify=no", "it takes ssl_ca_certs"),
        ("rediss://:secret@store?ssl_check_hostname=maybe", "is true or false"),
        ("redis://:secret@store?nonsense", "expected redis://"),
        ("redis://:secret@[::1", "expected redis://"),
    ],
)
def test_a_mistake_is_named_without_the_password(url, says):
    with pytest.raises(Stop, match="REDIS_URL") as caught:
        parse(url)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2
