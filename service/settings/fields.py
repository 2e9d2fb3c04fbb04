"""How a setting is declared."""

from typing import Any

from msgspec import Meta


def env(variable: str, help_text: str, *, shown: str = "", **limits: Any) -> Meta:
    """Bind a field to its variable. `shown` replaces the default in the table of settings."""
    return Meta(description=help_text, extra={"env": variable, "shown": shown}, **limits)
