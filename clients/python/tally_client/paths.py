"""Paths and queries of the API."""

import datetime as dt
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ._generated.types import Unset


def segment(value: object) -> str:
    """One part of a path. Nothing, or dots, would be the path of something else."""
    text = str(value)
    if value is None or text in ("", ".", ".."):
        raise ValueError(f"an id or name must name something, not be {value!r}")
    return quote(text, safe="")


def path_of(*parts: object) -> str:
    return "/".join(("/api/v1", *map(segment, parts)))


def given(named: Mapping[str, Any]) -> dict[str, Any]:
    """What was given of parameters; dates and times as text."""
    return {
        name: value.isoformat() if isinstance(value, dt.date | dt.time) else value
        for name, value in named.items()
        if value is not None and not isinstance(value, Unset)
    }


def query_of(parameters: Mapping[str, Any] | Unset | None, /, **named: Any) -> dict[str, Any]:
    """A query: parameters of the API, and a metric's own, which may have any name."""
    own = parameters if isinstance(parameters, Mapping) else {}
    return given(named) | given(own)
