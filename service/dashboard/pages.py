"""Render the pages: templates, the data that scripts read from a page, and the headers of every page."""

from base64 import b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from service.auth.tokens import Principal
from service.dashboard.assets import FOLDER, Assets
from service.errors import Problem
from service.http import bodies
from service.http.fields import media_weight, weights

TEMPLATES: Final = Path(__file__).with_name("templates")
EARLY: Final = (FOLDER / "early.js").read_text()
"""Stands in each page before all that the page loads, so that the numbers are asked for first."""
_EARLY_HASH: Final = b64encode(sha256(EARLY.encode()).digest()).decode()
HTML: Final = "text/html"


class Entry(Struct, frozen=True):
    """A part of the service in the navigation, for callers who have the scope."""

    title: str
    address: str
    scope: str
    module: str
    """The page exists if this module does."""


NAVIGATION: Final = (
    Entry("Dashboards", "/", "metrics:read", "main.js"),
    Entry("Ask", "/ask", "metrics:write", "ask.js"),
    Entry("Data", "/data", "imports:write", "data.js"),
    Entry("Alerts", "/alerts", "alerts:read", "alerts.js"),
)


class Pages:
    """All pages. `assets` are the files that they load. Days are those of `zone`."""

    def __init__(
        self, assets: Assets, *, auth: bool, zone: tzinfo = UTC, embed_origins: Iterable[str] = ()
    ) -> None:
        self.assets = assets
        self._zone = zone
        self._embed_origins = tuple(embed_origins)
        self.environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        shared: dict[str, Any] = self.environment.globals
        shared |= {"asset": assets.url, "auth": auth, "early": Markup(EARLY)}  # noqa: S704 (a file of ours)
        self.environment.filters.update(data=_data, ticks=_ticks)

    def render(self, template: str, *, principal: Principal | None = None, **context: Any) -> str:
        """Render a page. `principal` decides which parts of the service the navigation names."""
        scopes = principal.scopes if principal else frozenset[str]()
        return self.environment.get_template(template).render(
            navigation=[
                entry for entry in NAVIGATION if entry.scope in scopes and entry.module in self.assets.files
            ],
            scopes=sorted(scopes),
            principal=principal,
            **context,
        )

    def now(self) -> str:
        """The local time, without its zone."""
        return datetime.now(self._zone).replace(tzinfo=None).isoformat(timespec="seconds")

    def frame_ancestors(self, embed: Iterable[str]) -> str:
        """Who may show a link's page in a frame: the origins of the link, and EMBED_ORIGINS."""
        return " ".join(dict.fromkeys([*embed, *self._embed_origins])) or "'none'"

    def problem(
        self,
        problem: Problem,
        *,
        linked: bool,
        request_id: str = "",
        principal: Principal | None = None,
    ) -> str:
        """The page of an error. `linked`: at a signed link, whose reader has nowhere else to go here."""
        return self.render(
            "problem.html", problem=problem, linked=linked, request_id=request_id, principal=principal
        )


def headers(
    *, nonce: str | None = None, frame_ancestors: str = "'none'", referrer: str = "same-origin"
) -> dict[str, str]:
    """Headers of a page: it runs and loads nothing but `EARLY` and our own files.

    A `nonce` allows a style element.
    """
    styles = "'self'" if nonce is None else f"'self' 'nonce-{nonce}'"
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{_EARLY_HASH}'; style-src {styles}; "
        "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
        "form-action 'self'; base-uri 'none'; "
        f"frame-ancestors {frame_ancestors}; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": referrer,
        "Vary": "Accept",
        "Cross-Origin-Opener-Policy": "same-origin",
    }


def new_nonce() -> str:
    return token_urlsafe(16)


def prefers_html(accept: str) -> bool:
    """Whether a browser asks for a page: it names HTML, and does not weigh JSON above it."""
    named = weights(accept)
    html, json = named.get("text/html", 0.0), media_weight(accept, "application/json")
    return html > json or (html == json > 0 and "application/json" not in named)


def _data(value: Any) -> Markup:
    """A value as JSON within a script element, which no text in it can end."""
    text = bodies.encode(value).decode()
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _ticks(text: str) -> Markup:
    """Text whose parts in backticks are code."""
    parts = text.split("`")
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if number % 2 else part for number, part in enumerate(parts))
