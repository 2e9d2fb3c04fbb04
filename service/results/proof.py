"""Prove that a result shows every change that this node knows of, wherever the result was made.

A result carries the snapshot of its run. It is proven when that snapshot shows each transaction that was
announced for its tables. Where changes became known without their transactions, the snapshot must include
everything that was visible at a position of the server which this node asked for afterwards.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from service.database.snapshots import Position, Requirement, Snapshot
from service.results.stored import Proof

TRANSACTIONS: Final = 1024
"""How many of a table's last transactions are kept, unless a position covers them."""
RECENT: Final = 16_384
"""How many transactions are checked against the next position, of all tables."""


class Transactions(NamedTuple):
    """Transactions that announced changes: the `latest`, and the highest of all `older` ones."""

    latest: frozenset[int]
    older: int


class _Table:
    """What is known of one table. `floor` is what every result must include; an int if it is yet unknown.

    The int is the number of the last question before the change. `wal` covers all but recent transactions
    and a `pending` change.
    """

    __slots__ = ("floor", "latest", "pending", "wal")

    def __init__(self) -> None:
        self.latest: dict[int, None] = {}
        self.floor: Position | int | None = None
        self.pending: int | None = None
        self.wal = 0


class Proofs:
    """The changes that a result must show. Positions come by `asking` and `seen`, in this order.

    Until the first position after a gap nothing is proven. `incarnation` is the secret of the server's
    present life, None until it is known.
    """

    def __init__(self) -> None:
        self.incarnation: bytes | None = None
        self.server = ""
        self._asks = 0
        self._asked_at = 0.0
        self._clock = 0.0
        self._floor: Position | int = 0
        self._last: Position | None = None
        self._older = 0
        self._tables: dict[str, _Table] = {}
        self._recent: deque[tuple[int, str, int]] = deque()

    def announced(self, table: str, transaction: int) -> None:
        """A transaction announced a change of a table."""
        known = self._table(table)
        if transaction in known.latest:
            return
        known.latest[transaction] = None
        self._recent.append((self._asks, table, transaction))
        if len(self._recent) > RECENT:
            asks, other, _ = self._recent.popleft()
            self._unknown(self._table(other), asks)
        if len(known.latest) > TRANSACTIONS:
            self._shorten(known)

    def moved(self, table: str, *, digested: bool = False) -> None:
        """A table changed, and no transaction is known for it. Nodes compare what is `digested`."""
        known = self._table(table)
        known.pending = self._asks
        if not digested:
            self._unknown(known, self._asks)

    def renewed(self) -> None:
        """Any table may have changed."""
        self._floor = self._asks

    def forget(self) -> None:
        """Forget all names, and remember what they required for all."""
        for table in self._tables.values():
            self._older = max(self._older, *table.latest, 0)
        self._tables.clear()
        self._recent.clear()
        self.renewed()

    def asking(self, now: float) -> int:
        """The number of a question for a position that is asked now."""
        self._asks += 1
        self._asked_at = now
        return self._asks

    def seen(self, number: int, position: Position, incarnation: bytes) -> None:
        """The answer to a question: it covers every change that was known before the question."""
        if incarnation != self.incarnation or position.server != self.server:
            self.incarnation, self.server = incarnation, position.server
            self._floor = number - 1
        self._clock = position.clock - self._asked_at
        self._last = position
        if isinstance(self._floor, int) and self._floor < number:
            self._begin_at(position, number)
            return
        while self._recent and self._recent[0][0] < number:
            _, name, transaction = self._recent.popleft()
            if table := self._tables.get(name):
                table.wal = max(table.wal, position.wal or 0)
                # Postgres announces a transaction when it is visible. But everybody may NOTIFY any number.
                if not position.snapshot.shows(transaction):
                    table.latest.pop(transaction, None)
        for table in self._tables.values():
            if isinstance(table.floor, int) and table.floor < number:
                table.floor = position
            if table.pending is not None and table.pending < number:
                table.pending, table.wal = None, max(table.wal, position.wal or 0)

    def _begin_at(self, position: Position, number: int) -> None:
        """The position covers all that was known before the question; keep what became known after it."""
        self._floor, self._older, later = position, 0, [each for each in self._recent if each[0] >= number]
        before = dict(self._tables)
        self._tables.clear()
        self._recent = deque(later)
        for _, name, transaction in later:
            self._table(name).latest[transaction] = None
        for name, table in before.items():
            if table.pending is not None and table.pending >= number:
                self._table(name).pending = table.pending
            if isinstance(table.floor, int) and table.floor >= number:
                self._unknown(self._table(name), table.floor)

    def server_time(self, now: float) -> float:
        """The server's time in epoch seconds. It is never behind, and ahead by less than a round trip."""
        return now + self._clock

    def holds(self, proof: Proof, digest: bytes, tables: Iterable[str]) -> bool:
        """Whether a run saw every known change of these tables, and its node knew what this one knows."""
        return (
            proof.incarnation == self.incarnation
            and proof.server == self.server
            and proof.digest == digest
            and self.shows(proof.snapshot, tables)
        )

    def shows(self, snapshot: Snapshot, tables: Iterable[str]) -> bool:
        """Whether a run with this snapshot saw every known change of these tables."""
        if isinstance(self._floor, int) or not snapshot.includes(self._floor):
            return False
        if snapshot.replayed is not None:
            return self._replayed(snapshot, snapshot.replayed, tables)
        if self._older >= snapshot.xmin:
            return False
        for name in tables:
            table = self._tables.get(name)
            if table is None:
                continue
            floor = table.floor
            if isinstance(floor, int) or (floor is not None and not snapshot.includes(floor)):
                return False
            if not all(map(snapshot.shows, table.latest)):
                return False
        return True

    def _replayed(self, snapshot: Snapshot, replayed: int, tables: Iterable[str]) -> bool:
        required = self.requirement(tables)
        return (
            required is not None
            and replayed >= required.wal
            and all(map(snapshot.shows, required.transactions))
        )

    def requirement(self, tables: Iterable[str], *, timed: bool = False) -> Requirement | None:
        """What a standby must have replayed for a run on these tables; None if that is unknown.

        `timed`: the result depends on more than these tables, so the standby must not lag behind the last
        position.
        """
        last = self._last
        if isinstance(self._floor, int) or self._floor.wal is None or last is None or last.wal is None:
            return None
        wal, names = last.wal if timed else self._floor.wal, set(tables)
        for name in names:
            table = self._tables.get(name)
            if table is None:
                continue
            if table.pending is not None or isinstance(table.floor, int):
                return None
            wal = max(wal, table.wal, (table.floor.wal or 0) if table.floor is not None else 0)
        recent = tuple(each for _, name, each in self._recent if name in names)
        return Requirement(recent, wal, self.server, last.lineage)

    def transactions(self, tables: Iterable[str]) -> Transactions:
        """The transactions that announced changes of these tables, as far as they are kept."""
        latest = frozenset(each for name in tables if (t := self._tables.get(name)) for each in t.latest)
        return Transactions(latest, self._older)

    def _table(self, name: str) -> _Table:
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = _Table()
        return table

    @staticmethod
    def _unknown(table: _Table, asks: int) -> None:
        """The next position after this question will be the table's floor."""
        table.floor = max(table.floor, asks) if isinstance(table.floor, int) else asks

    def _shorten(self, table: _Table) -> None:
        """Drop the transactions that the last position covers, or else the oldest one.

        A result that shows a later transaction was made later than this position, so the new floor costs
        nothing.
        """
        last = self._last
        if last is not None and not isinstance(table.floor, int):
            covered = [each for each in table.latest if last.snapshot.shows(each)]
            if covered and len(covered) < len(table.latest):
                for each in covered:
                    del table.latest[each]
                table.floor = last
                return
        oldest = next(iter(table.latest))
        del table.latest[oldest]
        self._older = max(self._older, oldest)
