"""An event loop whose clock is not the wall's: when nobody has anything to do, it jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

QUIET_S = 0.005  # real seconds without traffic on loopback that count as nothing to do


class _Selector(selectors.DefaultSelector):
    jumped_s = 0.0

    def select(self, timeout: float | None = None):
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(min(timeout, QUIET_S))
        if not events:
            self.jumped_s += timeout
        return events


class FakeClockLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.jumped_s


async def later(seconds: float) -> None:
    """Return when the loop's clock is so much later; on a fake clock without any pause."""
    loop = asyncio.get_running_loop()
    is_later = loop.create_future()
    timer = loop.call_later(seconds, is_later.set_result, None)
    try:
        await is_later
    finally:
        timer.cancel()


def on_fake_clock(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end; sleeping and timing out in it take no time."""
    with asyncio.Runner(loop_factory=FakeClockLoop) as runner:
        return runner.run(main)
