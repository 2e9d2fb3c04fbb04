"""Waiting for what other processes bring about and nobody announces: a look, a pause, a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.05


def _pause(began: float) -> float:
    """Longer the longer it lasts: looks take processor time from what is waited for."""
    return min(max((time.monotonic() - began) / 8, PAUSE_S), LONGEST_PAUSE_S)


async def until(condition: Callable[[], T | Awaitable[T]], within_s: float = 30) -> T:
    """Look until the condition holds; gives what it gave."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if found := await found if inspect.isawaitable(found) else found:
                return found
            await asyncio.sleep(_pause(began))


def eventually(condition: Callable[[], T], within_s: float = 60) -> T:
    """The same without an event loop."""
    began = time.monotonic()
    while not (found := condition()):
        assert time.monotonic() < began + within_s, f"it did not come to pass within {within_s} s"
        time.sleep(_pause(began))
    return found
