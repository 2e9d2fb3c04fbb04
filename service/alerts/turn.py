"""One node evaluates: the one that holds an advisory lock of the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from service.alerts.store import SQL
from service.database.queries import Statement
from service.database.session import Session
from service.errors import DatabaseUnavailable

LOCK: Final = 7_382_560
LOOK_S: Final = 5.0


class _Taken(Struct, frozen=True):
    taken: bool


_TAKE: Final = SQL.rows("take_turn", _Taken)
_KEEP: Final = SQL.rows("keep_turn", _Taken)


class Turn:
    """The lock ends with the session that holds it, so a node that dies leaves it to the others.

    A node whose session ends without its knowledge may go on for `LOOK_S`. This does no harm: what two
    nodes evaluate, the database stores once.
    """

    def __init__(self, session: Session, look_s: float = LOOK_S) -> None:
        self._session = session
        self._look_s = look_s

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the work whenever this node has the turn, until cancelled."""
        while True:
            if await self._ask(_TAKE):
                await self._while_held(work)
            await asyncio.sleep(self._look_s)

    async def _while_held(self, work: Callable[[], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(work())
        try:
            while not working.done():
                await asyncio.wait([working], timeout=self._look_s)
                if not working.done() and not await self._ask(_KEEP):
                    break
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        if not working.cancelled():
            working.result()

    async def _ask(self, statement: Statement[_Taken]) -> bool:
        try:
            found = await self._session.read_one(statement, LOCK)
        except DatabaseUnavailable:
            return False
        return found is not None and found.taken
