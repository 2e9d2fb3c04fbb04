"""Snapshots of Postgres: which transactions a statement saw. Pure.

Transaction ids are 64-bit and do not wrap around, as in `xid8`. They are those of top-level transactions.
"""

from msgspec import Struct


class Snapshot(Struct, frozen=True, array_like=True):
    """Which transactions are visible. `running` are those from `xmin` to `xmax` that had not ended.

    A standby does not tell which ones were running, so there nothing from `xmin` on is known to be visible,
    except the `shown` ones, which were asked for one by one. `replayed` is the WAL position up to which
    everything is visible there. It is None on a primary.
    """

    xmin: int
    xmax: int
    running: frozenset[int] = frozenset()
    shown: frozenset[int] = frozenset()
    replayed: int | None = None

    def shows(self, transaction: int) -> bool:
        """Whether the effects of a committed transaction are visible."""
        if transaction < self.xmin:
            return True
        if transaction < self.xmax:
            return transaction not in self.running
        return transaction in self.shown

    def includes(self, earlier: "Position") -> bool:
        """Whether everything is visible that was visible on the primary at that position."""
        if self.replayed is not None:
            return earlier.wal is not None and self.replayed >= earlier.wal
        other = earlier.snapshot
        return self.xmax >= other.xmax and not any(
            each < other.xmax and other.shows(each) for each in self.running
        )


class Lineage(Struct, frozen=True):
    """Which history of which cluster a server writes or replays."""

    system: int
    timeline: int


class Position(Struct, frozen=True):
    """Where the primary stood. `wal` was read after the snapshot, so it covers all commits that it shows.

    `server` names the running server and the database. `clock` is the server's time in epoch seconds.
    """

    server: str
    snapshot: Snapshot
    clock: float
    wal: int | None = None
    lineage: Lineage | None = None


class Seen(Struct, frozen=True):
    """What a run of stored SQL saw at least, and on which server. It was read just before the run."""

    server: str
    snapshot: Snapshot


class Requirement(Struct, frozen=True):
    """What a standby must have replayed: these transactions, and everything before the WAL position.

    `server` and `lineage` are those of the primary.
    """

    transactions: tuple[int, ...]
    wal: int
    server: str = ""
    lineage: Lineage | None = None


def parse_snapshot(text: str) -> Snapshot:
    """Read the text of `pg_current_snapshot()` on a primary: `xmin:xmax:running,...`."""
    xmin, xmax, running = text.split(":")
    return Snapshot(int(xmin), int(xmax), frozenset(map(int, running.split(","))) if running else frozenset())
