"""Header fields that are lists: weights, cache directives and entity tags."""

import pytest

from service.http.fields import Directives, directives, has_tag, items, media_weight, weights


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("a, b;q=1 ,c", ["a", "b;q=1", "c"]),
        ('"a,b", W/"c"', ['"a,b"', 'W/"c"']),
        ('x="a,b";q=0,y', ['x="a,b";q=0', "y"]),
        ('"open, b', ['"open, b']),
    ],
)
def test_a_comma_within_quotes_separates_nothing(field, expected):
    assert items(field) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("gzip", 1),
        ("GZIP;Q=0.5", 0.5),
        ("gzip ; level=1 ; q = 0.25", 0.25),
        ("gzip;q=7", 1),
        ("gzip;q=-1", 0),
        ("gzip;q=", 0),
        ("gzip;q=0, gzip;q=0.5", 0.5),
    ],
)
def test_the_weight_of_an_item(field, expected):
    assert weights(field) == {"gzip": expected}


@pytest.mark.parametrize(
    ("accept", "weight"),
    [
        ("", 1),
        ("*/*", 1),
        ("text/*;q=0.5, */*", 0.5),
        ("text/csv;header=present;q=0.2, text/*", 0.2),
        ("text/html", 0),
    ],
)
def test_the_most_specific_range_decides(accept, weight):
    assert media_weight(accept, "text/csv") == weight


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", Directives()),
        ("no-cache", Directives(no_cache=True)),
        ("No-Cache, foo=bar", Directives(no_cache=True)),
        ("max-age=0", Directives(max_age=0)),
        ('max-age="15"', Directives(max_age=15)),
        ("max-age=30,max-age=10, no-transform", Directives(max_age=10)),
        ("max-age=-1", Directives()),
        ("max-age=ten", Directives()),
        ("x-no-cache, no-cached, no-store", Directives()),
    ],
)
def test_reads_cache_control(field, expected):
    assert directives(field) == expected


@pytest.mark.parametrize(
    ("field", "strong", "weak"),
    [
        ("*", True, True),
        ('"a"', True, True),
        ('W/"a"', False, True),
        ('"b", "a"', True, True),
        ('"b"', False, False),
        ('"b,"a",c"', False, False),
        ("", False, False),
    ],
)
def test_a_list_of_entity_tags(field, strong, weak):
    assert has_tag(field, '"a"') is strong
    assert has_tag(field, '"a"', weak=True) is weak
