"""What the outside adds to items. Nothing of the database is held while it is waited for."""

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
    """Posts fetched `age_s` seconds ago: just now, earlier, or too long ago but the outside gave no newer."""

    items: list[Post]
    age_s: float
    origin: Literal["fetched", "kept", "stale"]


class _Kept(Struct, frozen=True):
    posts: list[Post]
    fetched_at: float


class ExternalApi:
    """The outside API at `api_url`: documents for items, and its newest posts, which are kept a minute."""

    def __init__(self, outbound: Outbound, api_url: str) -> None:
        self._outbound = outbound
        self._api_url = api_url.rstrip("/")
        self._turn = asyncio.Lock()
        self._kept: _Kept | None = None
        self._failure: Problem = UpstreamFailed()
        self._failed_at = -inf

    async def enrich(self, database: Database, item_id: int, actor: Actor) -> Item:
        """Fetch `/posts/{id}` and keep it with the item, which stays as it was after any failure.

        Raises `NotFound`, and what `Outbound.get_json` raises.
        """
        await store.get(database, item_id)
        document = await self._outbound.get_json(f"{self._api_url}/posts/{item_id}", dict[str, Raw])
        document["fetched_at"] = Raw(msgspec.json.encode(datetime.now(UTC)))
        return await store.store_external_data(database, item_id, document, actor)

    async def posts(self, limit: int) -> Posts:
        """Up to `limit` posts, up to a day old when the outside fails; callers who wait share one fetch."""
        now = asyncio.get_running_loop().time
        asked_at = now()
        async with self._turn:
            kept = self._kept
            origin = "kept"
            if kept is None or now() - kept.fetched_at >= POSTS_FRESH_S:
                try:
                    kept = await self._fetch_posts(asked_at)
                    origin = "fetched"
                except (UpstreamFailed, UpstreamTimeout, UpstreamUnavailable):
                    if kept is None or now() - kept.fetched_at >= POSTS_STALE_IF_ERROR_S:
                        raise
                    origin = "stale"
            return Posts(kept.posts[:limit], now() - kept.fetched_at, origin)

    async def _fetch_posts(self, asked_at: float) -> _Kept:
        now = asyncio.get_running_loop().time
        if self._failed_at >= asked_at:
            raise self._failure.with_traceback(None)
        try:
            posts = await self._outbound.get_json(f"{self._api_url}/posts?_limit={POSTS}", list[Post])
        except (UpstreamFailed, UpstreamTimeout, UpstreamUnavailable) as problem:
            self._failure, self._failed_at = problem, now()
            raise
        self._kept = _Kept(posts, now())
        return self._kept
