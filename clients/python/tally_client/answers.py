"""An answer of the service as this client handles it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from . import exact


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (names in lower case) and the whole body. `held`: it came from this client's memory."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    url: str
    held: bool = False

    def json(self) -> Any:
        return exact.loads(self.content)

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def etag(self) -> str | None:
        return self.headers.get("etag")

    @property
    def is_problem(self) -> bool:
        return "problem" in self.headers.get("content-type", "")

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before asking again, if the service told: as a number, or as a date."""
        told = self.headers.get("retry-after", "").strip()
        if told.isdecimal() and told.isascii():
            return float(told)
        try:
            when = parsedate_to_datetime(told)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
