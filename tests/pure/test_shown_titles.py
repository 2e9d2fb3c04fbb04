"""The title of a metric that has none: the comment that its SQL begins with."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from service.metrics.models import Metric


def shown(sql):
    return Metric(
        UUID(int=1), "q", sql, False, None, True, None, None, {}, "auto", 1, datetime(2025, 1, 1, tzinfo=UTC)
    ).shown_title


@pytest.mark.parametrize(
    ("sql", "title"),
    [
        ("-- Alerts by type\nSELECT 1", "Alerts by type"),
        ("\n\t --Alerts\u00a0by type \t\r\n\nSELECT 1", "Alerts\u00a0by type"),
        ("--\nSELECT 1", None),
        ("SELECT 1 -- no title", None),
        ("-- Alerts", "Alerts"),
        ("-- a" + " " * 90_000 + "b" + " " * 9_000, "a" + " " * 90_000 + "b"),
    ],
    ids=["comment", "blanks", "empty", "later", "only", "long"],
)
def test_the_first_line_is_the_title_if_it_is_a_comment(sql, title):
    assert shown(sql) == title
