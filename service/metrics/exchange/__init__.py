"""Take over dashboards of other tools: read their exports, rewrite their SQL, store it as metrics."""

from collections.abc import Callable, Mapping
from typing import Final

from service.metrics.exchange import grafana, metabase, redash
from service.metrics.exchange.plan import Node, Plan


def _bounded(read: Callable[[Node], Plan]) -> Callable[[Node], Plan]:
    return lambda document: read(document).bounded


READERS: Final[Mapping[str, Callable[[Node], Plan]]] = {
    "redash": _bounded(redash.read),
    "grafana": _bounded(grafana.read),
    "metabase": _bounded(metabase.read),
}
"""By tool: what makes a plan of a document. Raises `Stop` for the document of another tool."""
