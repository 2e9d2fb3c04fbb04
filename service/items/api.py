"""Items and the external API over HTTP."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, Final, TypeVar

from litestar import Controller, Response, delete, get, patch, post, put
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter

from service.auth.guards import actor
from service.database.gateway import Database
from service.errors import (
    DatabaseUnavailable,
    FieldError,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from service.http.cursors import Cursor, Limit, read_id_cursor, write_cursor
from service.http.ids import MAX_ID, parse_number
from service.http.preconditions import IfMatch, read_if_match
from service.http.requests import Call
from service.items import store
from service.items.enrich import POSTS, POSTS_FRESH_S, POSTS_STALE_IF_ERROR_S, ExternalApi
from service.items.models import TITLE_LENGTH, Item, ItemPage, ItemPatch, NewItem, Post, SummarisedItem
from service.items.summary import Summariser, summarise

T = TypeVar("T")

ETAG: Final = ResponseHeader(name="ETag", description="the item's version", documentation_only=True)
LOCATION: Final = ResponseHeader(name="Location", description="the item's address", documentation_only=True)

EXAMPLE: Final = {
    "id": 1,
    "title": "Replace the pump",
    "description": "It leaks at its seal.",
    "external_data": {
        "userId": 1,
        "id": 1,
        "title": "sunt aut facere",
        "body": "quia et suscipit",
        "fetched_at": "2025-08-02T09:05:00Z",
    },
    "summary": "Replace the pump. It leaks at its seal.",
    "created_at": "2025-08-02T09:00:00Z",
    "updated_at": "2025-08-02T09:06:00Z",
}
POST_EXAMPLE: Final = {"userId": 1, "id": 1, "title": "sunt aut facere", "body": "quia et suscipit"}

_UPSTREAM: Final = (UpstreamFailed, UpstreamTimeout, UpstreamUnavailable)
_READ: Final = {"scope": "items:read", "problems": (NotFound, DatabaseUnavailable), "example": EXAMPLE}
_LIST: Final = {
    "scope": "items:read",
    "problems": (DatabaseUnavailable,),
    "example": {"items": [EXAMPLE], "next_cursor": None},
}
_POSTS: Final = {"scope": "items:read", "problems": _UPSTREAM, "example": [POST_EXAMPLE]}
_CREATE: Final = {
    "scope": "items:write",
    "problems": (TooLarge, UnsupportedMediaType, DatabaseUnavailable),
    "example": EXAMPLE | {"external_data": None, "summary": None},
}
_CHANGE: Final = {
    "scope": "items:write",
    "problems": (NotFound, PreconditionFailed, TooLarge, UnsupportedMediaType, DatabaseUnavailable),
    "example": EXAMPLE,
}
_DELETE: Final = {"scope": "items:write", "problems": (NotFound, PreconditionFailed, DatabaseUnavailable)}
_ENRICH: Final = {"scope": "items:write", "problems": (NotFound, *_UPSTREAM), "example": EXAMPLE}
_SUMMARISE: Final = _ENRICH | {"example": EXAMPLE | {"generator": "extractive"}}

Part = Annotated[
    str | None,
    QueryParameter(min_length=1, max_length=TITLE_LENGTH, description="part of the title, in any case"),
]


class ItemsController(Controller):
    path = "/items"
    tags = ("items",)

    @post(
        "/",
        operation_id="createItem",
        summary="Create an item",
        opt=_CREATE,
        response_headers=[ETAG, LOCATION],
    )
    async def create(
        self,
        data: JSONBody[NewItem],
        database: NamedDependency[Database],
        request: Call,
    ) -> Response[Item]:
        item = await store.create(database, data, actor(request.scope))
        return _answer(item, Location=f"{request.scope['path'].rstrip('/')}/{item.id}")

    @get("/", operation_id="listItems", summary="Items, newest first, paged", opt=_LIST)
    async def list_items(
        self,
        database: NamedDependency[Database],
        q: Part = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> ItemPage:
        if q and "\0" in q:
            raise InvalidInput(errors=(FieldError("q", "holds a NUL character: remove it"),))
        before = read_id_cursor(cursor, MAX_ID)
        items, following = await store.page(database, limit, before=before, part=q)
        return ItemPage(items, None if following is None else write_cursor(following))

    @get(
        "/{item_id:str}",
        operation_id="getItem",
        summary="An item",
        opt=_READ,
        response_headers=[ETAG],
        responses={304: ResponseSpec(None, description="The cached copy is still valid")},
    )
    async def read(self, item_id: FromPath[str], database: NamedDependency[Database]) -> Response[Item]:
        return _answer(await store.get(database, parse_number(item_id, smallest=0)))

    @put(
        "/{item_id:str}",
        operation_id="replaceItem",
        summary="Replace an item",
        opt=_CHANGE,
        response_headers=[ETAG],
    )
    async def replace(
        self,
        item_id: FromPath[str],
        data: JSONBody[NewItem],
        database: NamedDependency[Database],
        request: Call,
        if_match: IfMatch = None,
    ) -> Response[Item]:
        """Replaces title and description. External data and summary stay."""
        state, number = read_if_match(if_match), parse_number(item_id, smallest=0)
        return _answer(await store.replace(database, number, data, actor(request.scope), state))

    @patch(
        "/{item_id:str}",
        operation_id="changeItem",
        summary="Change an item",
        opt=_CHANGE,
        response_headers=[ETAG],
    )
    async def change(
        self,
        item_id: FromPath[str],
        data: JSONBody[ItemPatch],
        database: NamedDependency[Database],
        request: Call,
        if_match: IfMatch = None,
    ) -> Response[Item]:
        """Changes only the fields in the body."""
        state, number = read_if_match(if_match), parse_number(item_id, smallest=0)
        return _answer(await store.patch(database, number, data, actor(request.scope), state))

    @delete("/{item_id:str}", operation_id="deleteItem", summary="Delete an item", opt=_DELETE)
    async def remove(
        self,
        item_id: FromPath[str],
        database: NamedDependency[Database],
        request: Call,
        if_match: IfMatch = None,
    ) -> None:
        await store.delete(
            database, parse_number(item_id, smallest=0), actor(request.scope), read_if_match(if_match)
        )

    @post(
        "/{item_id:str}/enrich",
        operation_id="enrichItem",
        summary="Fetch the item's document from the external API and store it with the item",
        status_code=200,
        opt=_ENRICH,
        response_headers=[ETAG],
    )
    async def enrich(
        self,
        item_id: FromPath[str],
        database: NamedDependency[Database],
        request: Call,
        external_api: NamedDependency[ExternalApi],
    ) -> Response[Item]:
        work = external_api.enrich(database, parse_number(item_id, smallest=0), actor(request.scope))
        return _answer(await _unless_disconnected(request, work))

    @post(
        "/{item_id:str}/summary",
        operation_id="summariseItem",
        summary="Write and keep a short summary of title, description and external data",
        status_code=200,
        opt=_SUMMARISE,
        response_headers=[ETAG],
    )
    async def summarise(
        self,
        item_id: FromPath[str],
        database: NamedDependency[Database],
        request: Call,
        summariser: NamedDependency[Summariser],
    ) -> Response[SummarisedItem]:
        work = summarise(database, summariser, parse_number(item_id, smallest=0), actor(request.scope))
        item = await _unless_disconnected(request, work)
        return Response(SummarisedItem.of(item, summariser.name), headers={"ETag": store.tag(item)})


class ExternalController(Controller):
    path = "/external"
    tags = ("items",)

    @get(
        "/fetch-data/{item_id:str}",
        operation_id="fetchItemData",
        summary="The same as POST /items/{id}/enrich",
        opt=_ENRICH,
        response_headers=[ETAG],
    )
    async def fetch_data(
        self,
        item_id: FromPath[str],
        database: NamedDependency[Database],
        request: Call,
        external_api: NamedDependency[ExternalApi],
    ) -> Response[Item]:
        item = await external_api.enrich(database, parse_number(item_id, smallest=0), actor(request.scope))
        return _answer(item, **{"Cache-Control": "no-store"})

    @get("/posts", operation_id="listPosts", summary="Posts of the external API", opt=_POSTS)
    async def posts(
        self,
        external_api: NamedDependency[ExternalApi],
        limit: Annotated[int, QueryParameter(ge=1, le=POSTS, description="posts to give")] = 5,
    ) -> Response[list[Post]]:
        posts = await external_api.posts(limit)
        left_s = int(POSTS_FRESH_S - posts.age_s)
        state = {"fetched": "fwd=miss; stored", "kept": "hit", "stale": "hit; detail=stale"}[posts.origin]
        headers = {
            "Age": str(int(posts.age_s)),
            "Cache-Control": f"private, max-age={POSTS_FRESH_S}, stale-if-error={POSTS_STALE_IF_ERROR_S}",
            "Cache-Status": f"tally; {state}; ttl={left_s}",
        }
        return Response(posts.items, headers=headers)


async def _unless_disconnected(request: Call, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and cancel it when the client disconnects.

    `DisconnectMiddleware` cancels reads only, because a change may be half done. This one is a transaction.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise UpstreamTimeout("the client disconnected before the external API answered")
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(request: Call) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(item: Item, **headers: str) -> Response[Item]:
    return Response(item, headers={"ETag": store.tag(item), **headers})
