"""Paths of the API."""

from urllib.parse import quote


def segment(value: object) -> str:
    """One part of a path. Nothing, or dots, would be the path of something else."""
    text = str(value)
    if value is None or text in ("", ".", ".."):
        raise ValueError(f"an id or name must name something, not be {value!r}")
    return quote(text, safe="")


def path_of(*parts: object) -> str:
    return "/".join(("/api/v1", *map(segment, parts)))
