"""What happened, as small Structs. The app has one `observe` that receives all of them.

Durations are seconds.
"""

from collections.abc import Callable
from typing import Literal
from uuid import UUID

from msgspec import Struct

Served = Literal["hit", "stale", "miss", "joined"]


class RequestDone(Struct, frozen=True, gc=False):
    """A request ended that `CacheHitMiddleware` did not answer. `route` is a path template, empty if unknown.

    Status 499 means that the client disconnected before the response. Path and query hold no secrets.
    """

    method: str
    path: str
    route: str
    status: int
    bytes: int
    duration: float
    query: str = ""
    cache: Served | None = None
    caller: str | None = None
    address: str | None = None


class HitsServed(Struct, frozen=True, gc=False):
    """`CacheHitMiddleware` answered so many requests since the last such event.

    `requests` are their numbers by route, method and status; `duration` is that of one of them.
    """

    number: int
    requests: tuple[tuple[tuple[str, str, int], int], ...] = ()
    duration: float = 0.0


class ResultServed(Struct, frozen=True, gc=False):
    """A result was served on any other way than by `CacheHitMiddleware`. A forced run is a miss."""

    outcome: Served


class ResultRefreshed(Struct, frozen=True, gc=False):
    """A result was computed again although no request waited for it."""


class AuthFailed(Struct, frozen=True, gc=False):
    """A caller was refused because of its credentials. `reason` is the code of the problem."""

    reason: str


class QueryRun(Struct, frozen=True, gc=False):
    """A metric's statement was run. `problem` is the code of its error. `waited` is the time in the queue."""

    metric_id: UUID
    duration: float
    waited: float = 0.0
    rows: int = 0
    bytes: int = 0
    problem: str | None = None


class ChangeHeard(Struct, frozen=True, gc=False):
    """A table changed. A change that a poll noticed has no transaction."""

    table: str
    transaction: int | None = None


class ConnectionLost(Struct, frozen=True, gc=False):
    """The listener is disconnected (`announcements`), polls fail (`poll`), or no `reader` can log in.

    Without announcements and polls, changes may go unnoticed.
    """

    source: str
    why: str = ""


class ConnectionRestored(Struct, frozen=True, gc=False):
    """What `ConnectionLost` names works again."""

    source: str


class WorkerLost(Struct, frozen=True, gc=False):
    """A worker process died, or was killed because it hung. It is replaced after `in_s` seconds."""

    worker: int
    process: int
    why: str
    lived_s: float
    in_s: float


class WorkerStarted(Struct, frozen=True, gc=False):
    """A worker was started for one that is gone, or (`restarted`) for one that ends on SIGHUP."""

    worker: int
    process: int
    restarted: bool = False


class BreakerOpened(Struct, frozen=True, gc=False):
    """A server cannot be reached, so nobody tries but a probe.

    It is the `primary`, or that of the `reader` where this is another one. `hangs`: its existing connections
    are of no use either.
    """

    server: str
    why: str
    hangs: bool


class BreakerClosed(Struct, frozen=True, gc=False):
    """A probe was answered after `duration`."""

    server: str
    duration: float
    probes: int


class CallersShed(Struct, frozen=True, gc=False):
    """So many callers were refused with 503 within a second, because the reader's connections were in use.

    `waiting` is how many wait now.
    """

    number: int
    waiting: int


class StatementLingers(Struct, frozen=True, gc=False):
    """A statement runs on although it was cancelled. `lingering` such statements run now.

    `replaced` of their connections were replaced, of `replaceable`.
    """

    backend: int | str
    lingering: int
    replaced: int
    replaceable: int


class MetricLingered(Struct, frozen=True, gc=False):
    """A metric's SQL could not be stopped while it was `planned` or `run`. `metric` is None for a draft."""

    metric: str | None
    doing: Literal["planned", "run"]
    times: int


class StatementSuspended(Struct, frozen=True, gc=False):
    """A metric's SQL lingered so often that it is run no more. `release` says what ends that."""

    metric: str | None
    doing: Literal["planned", "run"]
    times: int
    release: str


class KeysNotFetched(Struct, frozen=True, gc=False):
    """The signing keys of an issuer could not be fetched. `known` keys of earlier fetches stay in use."""

    reason: str
    known: int


class IdleConnectionsClosed(Struct, frozen=True, gc=False):
    """The connection guard closed idle connections. The address `most_from` had `held`, the most of all."""

    number: int
    most_from: str
    held: int


class ImportDone(Struct, frozen=True, gc=False):
    """An import ended. `status` is that of its report, or the code of the problem that refused the file."""

    dataset: str
    status: str
    rows: int
    quarantined: int
    duration: float


class AlertChanged(Struct, frozen=True, gc=False):
    """An alert came to a state that its receivers are told of."""

    rule_id: UUID
    state: str


class MessageTried(Struct, frozen=True, gc=False):
    """A message about an alert was `delivered`, is tried again (`waiting`), or was given up (`dead`)."""

    kind: str
    status: str


Event = (
    RequestDone
    | HitsServed
    | ResultServed
    | ResultRefreshed
    | AuthFailed
    | QueryRun
    | ChangeHeard
    | ConnectionLost
    | ConnectionRestored
    | WorkerLost
    | WorkerStarted
    | BreakerOpened
    | BreakerClosed
    | CallersShed
    | StatementLingers
    | MetricLingered
    | StatementSuspended
    | KeysNotFetched
    | IdleConnectionsClosed
    | ImportDone
    | AlertChanged
    | MessageTried
)
Observe = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Observe nothing."""


def both(first: Observe, second: Observe) -> Observe:
    """Tell two observers."""

    def observe(event: Event) -> None:
        first(event)
        second(event)

    return observe
