"""Sessions and links, which decide about callers, remembered for a short time."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, Generic, TypeVar

from service.errors import DatabaseUnavailable

TRUSTED_S: Final = 60.0
REMEMBERED: Final = 10_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """Values that are read from the database once in `TRUSTED_S`. While it is away, old ones are used."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._values: dict[Key, tuple[float, Value]] = {}
        self._generation = 0

    def lookup(self, key: Key) -> Value | None:
        """The value, if it needs no reading."""
        read_at, value = self._values.get(key, (None, None))
        return value if read_at is not None and self._now() - read_at <= TRUSTED_S else None

    async def find(self, key: Key, read: Callable[[], Awaitable[Value | None]]) -> Value | None:
        """The value, read if it needs to be. A missing value is not remembered."""
        if (value := self.lookup(key)) is not None:
            return value
        began, generation = self._now(), self._generation
        try:
            value = await read()
        except DatabaseUnavailable:
            if key not in self._values:
                raise
            return self._values[key][1]  # as cached results outlive a lost database
        self._values.pop(key, None)
        if value is not None and generation == self._generation:
            self._values[key] = began, value
            if len(self._values) > REMEMBERED:
                del self._values[next(iter(self._values))]
        return value

    def drop(self, key: Key) -> None:
        self._values.pop(key, None)

    def forget(self) -> None:
        """Forget all values, because one has ended somewhere. Values that are being read are not kept."""
        self._generation += 1
        self._values.clear()
