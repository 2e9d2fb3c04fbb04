"""Signed links over HTTP: make, list and revoke them, and the page that one opens."""

from typing import Any, Final

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from litestar.types import ControllerRouterHandler

from service.auth.guards import actor
from service.dashboard.links import Link, LinkPage, Links, NewLink
from service.dashboard.pages import HTML, Pages, headers, new_nonce
from service.dashboard.view import link_page
from service.errors import DatabaseUnavailable, NotFound, TooLarge, UnsupportedMediaType
from service.http.cursors import Cursor, Limit, page_of, read_id_cursor
from service.http.ids import MAX_ID, parse_number
from service.http.requests import Call

Made = NamedDependency[Links]

EXAMPLE: Final[dict[str, Any]] = {
    "id": 7,
    "dashboard_id": "default",
    "url": "https://tally.example.org/s/eyJkYXNoYm9hcmQiOiJkZWZhdWx0In0.9Jm0",
    "parameters": {"start_date": "2025-06-01", "end_date": "2025-06-30"},
    "embed": ["https://intranet.example.org"],
    "created_by": "ann",
    "created_at": "2025-07-01T09:00:00Z",
    "expires_at": "2025-07-31T09:00:00Z",
    "revoked_at": None,
}


class LinksController(Controller):
    path = "/dashboards/{dashboard_id:str}/links"
    tags = ("links",)
    opt = {"scope": "metrics:write"}  # noqa: RUF012 (Litestar's way)

    @post(
        "/",
        operation_id="createLink",
        summary="Make a signed link to a dashboard",
        description="Whoever has the address sees the dashboard with these parameters, without a token.",
        opt={
            "problems": (NotFound, TooLarge, UnsupportedMediaType, DatabaseUnavailable),
            "example": EXAMPLE,
        },
    )
    async def create(
        self, dashboard_id: FromPath[str], data: JSONBody[NewLink], request: Call, links: Made
    ) -> Response[Link]:
        made = await links.create(dashboard_id, data, actor(request.scope))
        place = f"/api/v1/dashboards/{made.dashboard_id}/links/{made.id}"
        return Response(made, status_code=201, headers={"Location": place, "Cache-Control": "no-store"})

    @get(
        "/",
        operation_id="listLinks",
        summary="Links of a dashboard, newest first",
        opt={"problems": (NotFound, DatabaseUnavailable)},
    )
    async def list_links(
        self,
        dashboard_id: FromPath[str],
        links: Made,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response[LinkPage]:
        found = await links.page(dashboard_id, read_id_cursor(cursor, MAX_ID), limit)
        return Response(LinkPage(*page_of(found, limit)), headers={"Cache-Control": "no-store"})

    @delete(
        "/{link_id:str}",
        operation_id="revokeLink",
        summary="Revoke a link: its address is 410 from now on",
        opt={"problems": (NotFound, DatabaseUnavailable)},
    )
    async def revoke(
        self, dashboard_id: FromPath[str], link_id: FromPath[str], request: Call, links: Made
    ) -> None:
        await links.revoke(dashboard_id, parse_number(link_id, "link"), actor(request.scope))


@get("/s/{token:str}", include_in_schema=False, opt={"scope": None, "free_query": True})
async def open_link(
    token: FromPath[str],
    request: Call,
    links: Made,
    pages: NamedDependency[Pages],
) -> Response[str]:
    link = await links.open(token)
    nonce = new_nonce()
    query = request.scope["query_string"].decode("latin-1")
    page = link_page(pages, links.dashboard(link), f"/s/{token}", query)
    fields = headers(nonce=nonce, frame_ancestors=pages.frame_ancestors(link.embed), referrer="no-referrer")
    body = pages.render("dashboard.html", nonce=nonce, not_signed_in=True, **page)
    return Response(body, media_type=HTML, headers=fields | {"X-Robots-Tag": "noindex"})


def routes() -> list[ControllerRouterHandler]:
    return [open_link]
