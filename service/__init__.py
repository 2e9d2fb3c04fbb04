"""Tally: stored SQL as live, cached, safe JSON metrics over Postgres."""

from pathlib import Path

__version__ = "0.2.0"


def bundled(folder: str) -> Path:
    """The path of `migrations`, `seeds` or `clients/js`: inside the package in a wheel, else beside it."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder
