"""Enrich items from the external API. No connection is held during a call."""

import asyncio
from datetime import UTC, datetime
from math import inf
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from service.audit import Actor
from service.database.gateway import Database
from service.errors import Problem, UpstreamFailed, UpstreamTimeout, UpstreamUnavailable
from service.items import store
from service.items.models import Item, Post
from service.outbound import Outbound

POSTS: Final = 100
POSTS_FRESH_S: Final = 60
POSTS_STALE_IF_ERROR_S: Final = 86_400


class Posts(Struct, frozen=True):
    """Posts fetched `age_s` seconds ago: fetched now, cached, or stale because the API failed."""

    items: list[Post]
    age_s: float
    origin: Literal["fetched", "kept", "stale"]


class _Cached(Struct, frozen=True):
    posts: list[Post]
    fetched_at: float


class ExternalApi:
    """The external API at `api_url`: documents for items, and its newest posts, cached for a minute."""

    def __init__(self, outbound: Outbound, api_url: str) -> None:
        self._outbound = outbound
        self._api_url = api_url.rstrip("/")
        self._turn = asyncio.Lock()
        self._cached: _Cached | None = None
        self._failure: Problem = UpstreamFailed()
        self._failed_at = -inf

    async def enrich(self, database: Database, item_id: int, actor: Actor) -> Item:
        """Fetch `/posts/{id}` and store it with the item. After a failure the item is unchanged.

        Raises `NotFound` and the problems of `Outbound.get_json`.
        """
        await store.get(database, item_id)
        document = await self._outbound.get_json(f"{self._api_url}/posts/{item_id}", dict[str, Raw])
        document["fetched_at"] = Raw(msgspec.json.encode(datetime.now(UTC)))
        return await store.store_external_data(database, item_id, document, actor)

    async def posts(self, limit: int) -> Posts:
        """Return up to `limit` posts, up to a day old if the API fails. Waiting callers share one fetch."""
        now = asyncio.get_running_loop().time
        asked_at = now()
        async with self._turn:
            cached = self._cached
            origin = "kept"
            if cached is None or now() - cached.fetched_at >= POSTS_FRESH_S:
                try:
                    cached = await self._fetch_posts(asked_at)
                    origin = "fetched"
                except (UpstreamFailed, UpstreamTimeout, UpstreamUnavailable):
                    if cached is None or now() - cached.fetched_at >= POSTS_STALE_IF_ERROR_S:
                        raise
                    origin = "stale"
            return Posts(cached.posts[:limit], now() - cached.fetched_at, origin)

    async def _fetch_posts(self, asked_at: float) -> _Cached:
        now = asyncio.get_running_loop().time
        if self._failed_at >= asked_at:
            raise self._failure.with_traceback(None)
        try:
            posts = await self._outbound.get_json(f"{self._api_url}/posts?_limit={POSTS}", list[Post])
        except (UpstreamFailed, UpstreamTimeout, UpstreamUnavailable) as problem:
            self._failure, self._failed_at = problem, now()
            raise
        self._cached = _Cached(posts, now())
        return self._cached
