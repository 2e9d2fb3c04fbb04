"""Tally: stored SQL as live, cached, safe JSON metrics over Postgres."""

from typing import Final

__version__: Final = "0.1.0"
