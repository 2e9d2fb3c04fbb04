"""Answer scrapes: choose between the two formats that Prometheus reads."""

from msgspec import Struct

from service.http.fields import media_type_of, media_weight
from service.observe.exposition import OPENMETRICS, TEXT


class Scraped(Struct, frozen=True):
    """Metrics as text, and its media type."""

    text: str
    media_type: str


def prefers_openmetrics(accept: str) -> bool:
    """Whether `Accept` asks for OpenMetrics. Without preference it is Prometheus's own text format."""
    return media_weight(accept, media_type_of(OPENMETRICS)) > media_weight(accept, media_type_of(TEXT))


def scraped(text: str, *, openmetrics: bool) -> Scraped:
    return Scraped(text, OPENMETRICS if openmetrics else TEXT)
