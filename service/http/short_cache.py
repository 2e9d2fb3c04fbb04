"""Remember what short header fields mean: clients repeat a few. Long ones would fill the memory."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import AnyStr, Final, TypeVar

MOST: Final = 256
LONGEST: Final = 1000

T = TypeVar("T")


def remember_short(function: Callable[[AnyStr], T]) -> Callable[[AnyStr], T]:
    """Keep the results for the last `MOST` fields of up to `LONGEST` characters."""
    remembered = lru_cache(MOST)(function)

    @wraps(function)
    def read(field: AnyStr) -> T:
        return remembered(field) if len(field) <= LONGEST else function(field)

    return read
