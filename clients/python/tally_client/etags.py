"""Answers that are held in memory with their ETag, so that an unchanged one is not sent again."""

from collections import OrderedDict
from threading import Lock

from .answers import Answer

Key = tuple[str, str, str]
"""URL, `Accept`, and whose token: what one caller sees is not shown to another."""


class EtagCache:
    """At most `limit` bytes; the answer that was unused the longest goes first. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[Key, Answer] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: Key) -> Answer | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def keep(self, key: Key, answer: Answer) -> None:
        with self._lock:
            self._forget(key)
            cacheable = answer.etag and "no-store" not in answer.headers.get("cache-control", "")
            if not cacheable or len(answer.content) > self._limit:
                return
            self._held[key] = answer
            self._bytes += len(answer.content)
            while self._bytes > self._limit:
                self._forget(next(iter(self._held)))

    def _forget(self, key: Key) -> None:
        if (gone := self._held.pop(key, None)) is not None:
            self._bytes -= len(gone.content)
