"""Bound and order the planning of statements that nobody has asked for before.

Reading and planning a statement takes milliseconds of the event loop and of Postgres. A crowd that asks for
hundreds of new statements would keep everybody else waiting for seconds, only for most of it to be refused.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import Final
from uuid import UUID

from service.database.stored_sql.limiter import QUEUE_WAIT_S
from service.database.stored_sql.reader import Reader
from service.errors import Busy
from service.http.current_caller import current_caller

TURNS: Final = 4
"""How many statements are planned at once: two on the connections for that, two that are read meanwhile."""


class Planning:
    """Who may wait for a plan, and whose turn it is.

    `limit` callers may wait. Past it, a caller who has less than an equal share still may. The service itself
    always may. `holds` tells whether there is a result of a metric, which may be served once it is planned.
    """

    def __init__(self, reader: Reader, limit: int, holds: Callable[[UUID], bool]) -> None:
        self._reader = reader
        self._limit = limit
        self._holds = holds
        self._waiting: dict[str, int] = {}
        self._number = 0
        self._free = TURNS
        self._took_s = (0.0, 0.0)
        """The seconds of the last two turns."""
        self._lines: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()

    @contextmanager
    def place(self, metric_id: UUID) -> Generator[None]:
        """Wait for a plan. Raises `Busy` at once, also if the run that follows would be refused now."""
        caller = current_caller.get()
        if caller is None:
            yield
            return
        self._refuse(metric_id)
        own = self._waiting.get(caller, 0)
        if self._number >= self._limit and own >= self._limit // max(len(self._waiting), 1):
            raise self._busy()
        self._waiting[caller] = own + 1
        self._number += 1
        try:
            yield
        finally:
            self._number -= 1
            left = self._waiting.pop(caller) - 1
            if left:
                self._waiting[caller] = left

    @asynccontextmanager
    async def turn(self, metric_id: UUID) -> AsyncGenerator[None]:
        """Wait for a turn: a round for each caller. Raises `Busy` if it, or the run, would come too late."""
        caller = current_caller.get()
        if self._free:
            self._free -= 1
        else:
            await self._wait(caller)
        began = monotonic()
        try:
            self._refuse(metric_id)
            yield
            self._took_s = (self._took_s[1], monotonic() - began)
            self._shed()
        finally:
            self._pass_on()

    async def _wait(self, caller: str | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(caller, deque()).append(turn)
        try:
            async with asyncio.timeout(None if caller is None else QUEUE_WAIT_S):
                await turn
        except BaseException as error:
            if isinstance(error, Busy):
                raise
            if turn.done() and not turn.cancelled():  # it was given at the moment of the cancellation
                self._pass_on()
            else:
                self._leave(caller, turn)
            if isinstance(error, TimeoutError):
                raise self._busy() from None
            raise

    def _shed(self) -> None:
        """Refuse those whose turn will not come in time: the newest of the caller with the most."""
        took_s = min(self._took_s)
        lines = {caller: line for caller, line in self._lines.items() if caller is not None}
        excess = sum(map(len, lines.values())) - TURNS * QUEUE_WAIT_S / took_s if took_s else 0.0
        while excess > 0:
            caller, line = max(lines.items(), key=_length)
            turn = line.pop()
            if not line:
                del self._lines[caller], lines[caller]
            if not turn.done():
                turn.set_exception(self._busy())
            excess -= 1

    def _leave(self, caller: str | None, turn: "asyncio.Future[None]") -> None:
        line = self._lines.get(caller)
        if line is not None and turn in line:
            line.remove(turn)
            if not line:
                del self._lines[caller]

    def _pass_on(self) -> None:
        while self._lines:
            caller, line = next(iter(self._lines.items()))
            turn = line.popleft()
            if line:
                self._lines.move_to_end(caller)
            else:
                del self._lines[caller]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _refuse(self, metric_id: UUID) -> None:
        if not self._holds(metric_id):
            self._reader.refuse(metric_id, runs=False)

    def _busy(self) -> Busy:
        self._reader.count_refused()
        return Busy(headers={"Retry-After": "1"})


def _length(line: tuple[str, deque[asyncio.Future[None]]]) -> int:
    return len(line[1])
