"""What the supervisor and its workers agree on. The supervisor loads nothing else of a worker."""

from typing import Any, Final, NamedTuple

RESTART_S: Final = 2.0
"""How long a worker that is restarted asks its clients to connect anew, before it closes idle connections."""
CLOSE_S: Final = 0.5
"""Between taking no connection any more and ending those without a request."""
STOPPED: Final = 2  # exit status of a worker that can never start and has printed the reason


class Place(NamedTuple):
    """What a worker shares with the supervisor.

    It increments `beats[slot]`, and counts events on a page of `counters`. With `stays[slot]` its port stays
    open when it stops, so it need not tell anybody before. It may hold `connections`.
    """

    beats: Any
    stays: Any
    slot: int
    counters: Any
    page: int | None
    connections: int
