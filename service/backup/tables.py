"""Which tables an export holds. A test demands a place here for each table of Tally's own schemas.

A new table is one more entry: in `EXPORTED`, after the tables that it refers to, or in `LEFT_OUT`.
"""

from typing import Final

EXPORTED: Final = (
    "catalog.query",
    "catalog.metric",
    "catalog.metric_version",
    "catalog.origin",
    "catalog.lingering",
    "catalog.dashboard",
    "catalog.layout_item",
    "catalog.tile",
    "app.link",
    "imports.dataset",
    "imports.run",
    "quarantine.row",
    "data.vocabulary",
    "app.item",
    "app.alert_rule",
)
"""Each after those that it refers to."""

SECRET: Final = ("app.api_client", "app.alert_secret")
"""Exported only if it is asked for: secrets, or hashes of them."""

LEFT_OUT: Final = {
    "app.audit": "says what happened in one database",
    "app.alert": "says what happened in one database",
    "app.alert_delivery": "says what happened in one database",
    "app.history_series": "says what happened in one database",
    "app.result_history": "says what happened in one database",
    "app.incarnation": "tells the life of one server from its next",
    "app.session": "says who is signed in on the pages of one service",
    "app.reader": "says which rights a role of this database had before",
    "data.metrics": "business data",
    "data.customers": "business data",
    "data.external_interactions": "business data",
    "data.products_of_discussion": "business data",
}

MERGED: Final = frozenset({"data.vocabulary"})
"""Words of the database stay: the rows of its business tables use them."""
