"""Signed links: a dashboard with fixed parameters for everybody who has the address, until they end."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from time import monotonic, time
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from service import audit
from service.audit import Actor
from service.auth.limits import Allowance
from service.auth.remembered import Remembered
from service.auth.tokens import Principal
from service.dashboard.links.signing import LONGEST_TOKEN, Claims, Signer
from service.database.gateway import Database, violation
from service.database.queries import SqlFile
from service.errors import (
    FieldError,
    Gone,
    InvalidInput,
    NotFound,
    Problem,
    TooManyRequests,
)
from service.http.ids import MAX_ID
from service.metrics.catalog import Catalog, Dashboard
from service.metrics.execute import Executor
from service.metrics.models import Metric

TABLES: Final = ("app.link",)
"""The table whose changes may end a link."""

SESSION: Final = "link:"
"""How the `session` of a link's principal begins; its id follows."""
DEFAULT_S: Final = 30 * 86_400
LONGEST_S: Final = 366 * 86_400
WINDOW_S: Final = 60
_SERVER_FAULTS: Final = 500
_LATEST: Final = 9_999_999_999

_HOST: Final = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]"
Origin = Annotated[str, Meta(pattern=rf"^https?://({_HOST})(:[0-9]{{1,5}})?\Z", max_length=260)]
LONGEST_VALUE: Final = 1000
_VALUE: Final = {
    "anyOf": [{"type": "string", "maxLength": LONGEST_VALUE}, {"type": "number"}, {"type": "boolean"}]
}
Name = Annotated[str, Meta(min_length=1, max_length=63)]


_PARAMETERS: Final = Meta(max_length=50, extra_json_schema={"extra": {"additionalProperties": _VALUE}})


class NewLink(Struct, frozen=True, forbid_unknown_fields=True):
    """`parameters` are those of the metrics, fixed for ever. `embed`: origins that may frame the page."""

    # A type that says more would make doubles of numbers, and so lose digits.
    parameters: Annotated[dict[Name, Any], _PARAMETERS] = {}
    expires_in: Annotated[int, Meta(ge=60, le=LONGEST_S)] = DEFAULT_S
    embed: Annotated[list[Origin], Meta(max_length=20)] = []


class Stored(Struct, frozen=True):
    """A link as it is stored."""

    id: int
    dashboard_id: str
    parameters: str
    embed: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class Link(Struct, frozen=True):
    """A link as its makers see it. `url` opens it."""

    id: int
    dashboard_id: str
    url: str
    parameters: dict[str, str]
    embed: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class LinkPage(Struct, frozen=True):
    items: list[Link]
    next_cursor: str | None


class OpenLink(Struct, frozen=True):
    """A link that somebody uses now."""

    claims: Claims
    embed: tuple[str, ...]

    @property
    def principal(self) -> Principal:
        """The caller that a link stands for: it reads results as nobody in particular."""
        name = f"{SESSION}{self.claims.link}"
        payload = msgspec.json.encode({"sub": name}).decode()
        return Principal(name, frozenset({"metrics:read"}), payload, self.claims.expires, session=name)


_SQL: Final = SqlFile(Path(__file__).with_name("queries.sql"))
_INSERT: Final = _SQL.rows("insert_link", Stored)
_FIND: Final = _SQL.rows("find_link", Stored)
_LIST: Final = _SQL.rows("list_links", Stored)
_REVOKE: Final = _SQL.rows("revoke_link", Stored)


class Links:
    """Makes, lists, revokes and opens links. A link answers `rate_limit` requests a minute, with 0 all."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        executor: Executor,
        signer: Signer,
        *,
        public_url: str,
        rate_limit: int,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._executor = executor
        self._signer = signer
        self._public_url = public_url
        self._allowance = Allowance(rate_limit, WINDOW_S) if rate_limit else None
        self._remembered: Remembered[int, Stored] = Remembered(now)

    async def create(self, dashboard_id: str, new: NewLink, actor: Actor) -> Link:
        """Raises `NotFound`, and `InvalidInput` for parameters that no metric of the dashboard takes."""
        dashboard = self._catalog.dashboard(dashboard_id)
        parameters = {name: _text(name, value) for name, value in new.parameters.items()}
        self._check_length(dashboard, parameters)
        await self._check(dashboard, parameters)
        stored = msgspec.json.encode(parameters, order="deterministic").decode()
        async with self._database.transaction() as tx:
            with violation("link_dashboard_id_fkey", self._catalog.no_dashboard(dashboard_id)):
                made = await tx.read_one(
                    _INSERT, dashboard.id, stored, new.embed, actor.name, float(new.expires_in)
                )
            assert made, "RETURNING gives the row"
            target = f"{dashboard.id}/{made.id}"
            await audit.record(tx, actor, "links.create", target, after=audit.digest(made))
        return self._shown(made)

    async def page(self, dashboard_id: str, before: int, limit: int) -> list[Link]:
        """Up to `limit` + 1 links of a dashboard with ids below `before`, newest first."""
        dashboard = self._catalog.dashboard(dashboard_id)
        found = await self._database.read(_LIST, dashboard.id, before, limit + 1)
        return [self._shown(each) for each in found]

    async def revoke(self, dashboard_id: str, link_id: int, actor: Actor) -> None:
        """End a link now, in all processes. Ending it again changes nothing. Raises `NotFound`."""
        async with self._database.transaction() as tx:
            revoked = await tx.read_one(_REVOKE, link_id, dashboard_id)
            if revoked is not None:
                target = f"{dashboard_id}/{link_id}"
                await audit.record(tx, actor, "links.revoke", target, after=audit.digest(revoked))
            else:
                known = await tx.read_one(_FIND, link_id)
                if known is None or known.dashboard_id != dashboard_id:
                    raise NotFound(f"The dashboard {dashboard_id!r} has no link {link_id}.")
        self.forget()

    async def open(self, token: str) -> OpenLink:
        """The link of a token, counted against its rate limit.

        Raises `NotFound` for a token that we did not sign, `Gone` once it has ended, and `TooManyRequests`.
        """
        claims = self._signer.read(token)
        stored = None if claims.expires <= time() else await self._stored(claims.link)
        if stored is None or stored.revoked_at is not None or stored.dashboard_id != claims.dashboard:
            raise Gone
        if self._allowance is not None and not (decision := self._allowance.take(claims.link)).allowed:
            raise TooManyRequests(headers={"Retry-After": str(decision.retry_s)})
        return OpenLink(claims, tuple(stored.embed))

    def dashboard(self, link: OpenLink) -> Dashboard:
        """The dashboard that a link shows. Raises `Gone` once it is deleted."""
        try:
            return self._catalog.dashboard(link.claims.dashboard)
        except NotFound:
            raise Gone from None

    async def holds(self, session: str) -> bool:
        """Whether a link, by the session of its principal, was not revoked."""
        stored = await self._stored(int(session.removeprefix(SESSION)))
        return stored is not None and stored.revoked_at is None

    def forget(self) -> None:
        """Read all links anew: one has ended somewhere."""
        self._remembered.forget()

    async def taken(self, link: OpenLink, metrics: list[Metric]) -> dict[str, str]:
        """The link's parameters that at least one of these metrics takes.

        All of them if one cannot be planned: it may be a moment later, and must not show more than the link.
        """
        names: set[str] = set()
        for metric in metrics:
            try:
                names |= set((await self._executor.prepare(metric)).template.accepted)
            except Problem:  # its own answer says why it does not run
                return link.claims.parameters
        return {name: value for name, value in link.claims.parameters.items() if name in names}

    def _check_length(self, dashboard: Dashboard, parameters: dict[str, str]) -> None:
        token = self._signer.sign(Claims(MAX_ID, dashboard.id, parameters, _LATEST))
        if len(token) > LONGEST_TOKEN:
            wrong = f"together they make an address of more than {LONGEST_TOKEN} characters"
            raise InvalidInput(errors=(FieldError("parameters", wrong),))

    async def _check(self, dashboard: Dashboard, parameters: dict[str, str]) -> None:
        """Try the values with each metric that takes them."""
        unknown = set(parameters)
        for metric in dashboard.metrics:
            try:
                template = (await self._executor.prepare(metric)).template
            except Problem as problem:
                if problem.status >= _SERVER_FAULTS:  # it says nothing about what the metric takes
                    raise
                continue
            given = [(name, value) for name, value in parameters.items() if name in template.accepted]
            if given:
                template.bind(given)
            unknown.difference_update(name for name, _ in given)
        if unknown:
            wrong = "no metric of this dashboard takes it"
            fields = tuple(FieldError(f"parameters.{name}", wrong) for name in sorted(unknown))
            raise InvalidInput(errors=fields)

    async def _stored(self, link_id: int) -> Stored | None:
        return await self._remembered.find(link_id, lambda: self._database.read_one(_FIND, link_id))

    def _shown(self, stored: Stored) -> Link:
        parameters = msgspec.json.decode(stored.parameters, type=dict[str, str])
        claims = Claims(stored.id, stored.dashboard_id, parameters, int(stored.expires_at.timestamp()))
        return Link(
            stored.id,
            stored.dashboard_id,
            f"{self._public_url}/s/{self._signer.sign(claims)}",
            parameters,
            stored.embed,
            stored.created_by,
            stored.created_at,
            stored.expires_at,
            stored.revoked_at,
        )


def _text(name: str, value: object) -> str:
    """A value as it stands in a query string, with all its digits. Raises `InvalidInput`."""
    text = ""
    match value:
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case int():
            text = str(value)
        case Decimal():
            is_plain = abs(value.adjusted()) < LONGEST_VALUE
            text = format(value, "f") if is_plain else str(value)
            text = text.removesuffix(".0")
        case _:
            wrong = "is no text, number or boolean"
            raise InvalidInput(errors=(FieldError(f"parameters.{name}", wrong),))
    if len(text) > LONGEST_VALUE:
        wrong = f"has more than {LONGEST_VALUE} characters"
        raise InvalidInput(errors=(FieldError(f"parameters.{name}", wrong),))
    return text
