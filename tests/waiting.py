"""Waiting for what other processes bring about and nobody announces: a look, a pause, a deadline."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.01


async def until(condition: Callable[[], T | Awaitable[T]], within_s: float = 30) -> T:
    """Look until the condition holds; gives what it gave."""
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if found := await found if inspect.isawaitable(found) else found:
                return found
            await asyncio.sleep(PAUSE_S)


def eventually(condition: Callable[[], T], within_s: float = 60) -> T:
    """The same without an event loop."""
    end = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < end, f"it did not come to pass within {within_s} s"
        time.sleep(PAUSE_S)
    return found
