"""Places for live connections and for what they watch, by caller and in all. The rest is refused."""

from collections import Counter
from typing import Final

from msgspec import Struct

from service.errors import LiveUnavailable, TooManyStreams
from service.live.connection import Connection

WATCHES_EACH: Final = 10
"""Watches of a caller for each connection that it may have: streams of many metrics are few."""
LEAST_WATCHES: Final = 1000
"""What a single socket may have."""
LEAST_BODIES: Final = 8
"""Results of the largest size that can be watched even without a cache."""
ANONYMOUS: Final = 100
"""Sockets that wait for their token. Each may hold a message of the largest size that the server takes."""
WAIT: Final = {"Retry-After": "5"}


UNREAD_BYTES: Final = 32 << 20, 256 << 20
"""Large messages that clients have not taken yet: of one caller, and of all."""


class Limits(Struct, frozen=True):
    """`topics` are the different results that are watched, `body_bytes` what all of them may take."""

    connections: int
    connections_per_caller: int
    body_bytes: int
    topics: int = 20_000

    @property
    def watches_per_caller(self) -> int:
        return max(WATCHES_EACH * self.connections_per_caller, LEAST_WATCHES)


class Places:
    """Counts connections and watches. `connections` has all that are open."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._callers: Counter[str] = Counter()
        self._watches: Counter[str] = Counter()
        self.connections: dict[Connection, None] = {}

    def enter(self, connection: Connection, watches: int) -> None:
        """Raises `LiveUnavailable` or `TooManyStreams`."""
        subject = connection.subject
        if len(self.connections) >= self._limits.connections:
            raise LiveUnavailable(headers=WAIT)
        if connection.credential is None and self._callers[subject] >= ANONYMOUS:
            raise TooManyStreams("Too many sockets wait for their token: send it in a header.", headers=WAIT)
        if self._callers[subject] >= self._limits.connections_per_caller:
            raise TooManyStreams(headers=WAIT)
        self.add(connection, watches)
        self.connections[connection] = None
        self._callers[subject] += 1

    def leave(self, connection: Connection) -> None:
        if connection in self.connections:
            del self.connections[connection]
            self.add(connection, -connection.watching)
            _less(self._callers, connection.subject, 1)

    def add(self, connection: Connection, watches: int) -> None:
        """Count further watches of a connection, or fewer. Raises `TooManyStreams`."""
        subject, most = connection.subject, self._limits.watches_per_caller
        if watches > 0 and self._watches[subject] + watches > most:
            raise TooManyStreams(f"This caller may watch {most} results at once.", headers=WAIT)
        connection.watching += watches
        _less(self._watches, subject, -watches)


class UnreadBytes:
    """Lets large messages wait until clients have taken earlier ones. A message alone always goes."""

    def __init__(self, per_caller: int = UNREAD_BYTES[0], in_all: int = UNREAD_BYTES[1]) -> None:
        self._limits = per_caller, in_all
        self._callers: Counter[str] = Counter()
        self._all = 0
        self._waiting: dict[Connection, None] = {}

    def take(self, connection: Connection, size: int) -> bool:
        """Whether a message may be written now. If not, the connection is flushed when one was taken."""
        subject, (per_caller, in_all) = connection.subject, self._limits
        used = self._callers[subject]
        if (used and used + size > per_caller) or (self._all and self._all + size > in_all):
            self._waiting[connection] = None
            return False
        self._callers[subject] += size
        self._all += size
        return True

    def free(self, subject: str, size: int) -> None:
        _less(self._callers, subject, size)
        self._all -= size
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            connection.flush()


def _less(counter: Counter[str], subject: str, number: int) -> None:
    counter[subject] -= number
    if not counter[subject]:
        del counter[subject]
