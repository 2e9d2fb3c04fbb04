"""Count events for Prometheus. Each worker counts on its page; the text has the sum of all workers."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from service import __version__
from service.observe import families
from service.observe.counters import OTHER, Labels, SharedCounters, Trace, shown
from service.observe.events import (
    AlertChanged,
    AuthFailed,
    BreakerClosed,
    BreakerOpened,
    CallersShed,
    ChangeHeard,
    ConnectionLost,
    ConnectionRestored,
    Event,
    HitsServed,
    IdleConnectionsClosed,
    ImportDone,
    KeysNotFetched,
    MessageTried,
    MetricLingered,
    QueryRun,
    RequestDone,
    ResultRefreshed,
    ResultServed,
    StatementLingers,
    StatementSuspended,
    WorkerLost,
    WorkerStarted,
)
from service.observe.exposition import exposition
from service.observe.families import Family

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNKNOWN_ROUTE: Final = "unknown"

UNCOUNTED: Final[Mapping[type[Event], str]] = {
    ChangeHeard: "each worker hears each change, so a sum would be of no use; Postgres counts them",
    StatementLingers: "the health check `statements` shows how many linger",
    MetricLingered: "the health check `statements` shows how many linger",
    StatementSuspended: "the health check `metrics` shows how many are suspended",
    KeysNotFetched: "callers who are refused for it are counted with the authentication failures",
    IdleConnectionsClosed: "a thread tells of it, and counters belong to the event loop",
}
"""The events without a metric, and why."""

Gauge = tuple[Family, Labels, float]


def no_trace() -> Trace | None:
    return None


class Prometheus:
    """Receives all events of a worker. `trace` gives the trace that an event belongs to."""

    def __init__(
        self,
        pages: SharedCounters | None = None,
        page: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        trace: Callable[[], Trace | None] = no_trace,
    ) -> None:
        self._pages = pages or SharedCounters()
        self._counters = self._pages.counters(page)
        self._clock = clock
        self._trace = trace
        self._tellers: list[Callable[[], None]] = []
        self._count: Final[Mapping[type, Callable[[Any], None]]] = {
            RequestDone: self._request,
            HitsServed: self._hits,
            ResultServed: self._result,
            ResultRefreshed: self._refresh,
            QueryRun: self._execution,
            ImportDone: self._import,
            AuthFailed: self._auth_failure,
            CallersShed: self._shed,
            ConnectionLost: self._connection,
            ConnectionRestored: self._connection,
            BreakerOpened: self._breaker,
            BreakerClosed: self._breaker,
            WorkerLost: self._worker,
            WorkerStarted: self._worker,
            AlertChanged: self._alert,
            MessageTried: self._message,
        }
        for outcome in ("hit", "stale", "miss", "joined"):
            self._counters.add(families.RESULTS, (outcome,), 0)
        self._counters.add(families.REFRESHES, (), 0)
        self._counters.add(families.SHED, (), 0)
        self._counters.observe(families.REQUEST_SECONDS, 0.0, 0)
        self._counters.observe(families.EXECUTION_SECONDS, 0.0, 0)

    def __call__(self, event: Event) -> None:
        count = self._count.get(type(event))
        if count is not None:
            count(event)

    def link_traces(self, trace: Callable[[], Trace | None]) -> None:
        """From now on samples name the trace that an event belongs to."""
        self._trace = trace

    def before_publishing(self, tell: Callable[[], None]) -> None:
        """Have events told that are told in sums: `tell` is called before each `publish`."""
        self._tellers.append(tell)

    def publish(self, gauges: Iterable[Gauge]) -> None:
        """Set this worker's gauges. All of them are given each time, about once a second."""
        self._tell()
        for family, labels, value in gauges:
            self._counters.put(family, labels, value)
        self._counters.gauges_written(self._clock())

    def end(self) -> None:
        """The worker stops: its counts stay, its gauges go."""
        self._tell()
        self._counters.gauges_end()

    def _tell(self) -> None:
        for tell in self._tellers:
            tell()

    def text(self, service: Iterable[Gauge], *, openmetrics: bool) -> str:
        """Write the metrics of all workers. `service` are gauges that are those of no single worker."""
        totals = self._pages.totals(self._clock())
        for family, labels, value in (*service, (families.BUILD, (__version__,), 1.0)):
            totals.values[family.name, tuple(map(shown, labels))] = [float(value)]
        return exposition(totals, openmetrics=openmetrics)

    def _request(self, event: RequestDone) -> None:
        method = event.method if event.method in METHODS else OTHER
        labels = event.route or UNKNOWN_ROUTE, method, str(event.status)
        self._counters.add(families.REQUESTS, labels)
        self._counters.observe(families.REQUEST_SECONDS, event.duration, trace=self._trace())

    def _hits(self, event: HitsServed) -> None:
        self._counters.add(families.RESULTS, ("hit",), event.number)
        self._counters.observe(families.REQUEST_SECONDS, event.duration, event.number)
        for (route, method, status), number in event.requests:
            self._counters.add(families.REQUESTS, (route, method, str(status)), number)

    def _result(self, event: ResultServed) -> None:
        self._counters.add(families.RESULTS, (event.outcome,))

    def _refresh(self, _event: ResultRefreshed) -> None:
        self._counters.add(families.REFRESHES)

    def _execution(self, event: QueryRun) -> None:
        self._counters.add(families.EXECUTIONS, (str(event.metric_id),))
        self._counters.observe(families.EXECUTION_SECONDS, event.duration, trace=self._trace())

    def _import(self, event: ImportDone) -> None:
        self._counters.add(families.IMPORTS, (event.dataset, event.status))

    def _auth_failure(self, event: AuthFailed) -> None:
        self._counters.add(families.AUTH_FAILURES, (event.reason,))

    def _shed(self, event: CallersShed) -> None:
        self._counters.add(families.SHED, (), event.number)

    def _connection(self, event: ConnectionLost | ConnectionRestored) -> None:
        name = "lost" if isinstance(event, ConnectionLost) else "restored"
        self._counters.add(families.CONNECTIONS, (event.source, name))

    def _breaker(self, event: BreakerOpened | BreakerClosed) -> None:
        name = "opened" if isinstance(event, BreakerOpened) else "closed"
        self._counters.add(families.BREAKERS, (event.server, name))

    def _worker(self, event: WorkerLost | WorkerStarted) -> None:
        started = isinstance(event, WorkerStarted) and ("restarted" if event.restarted else "started")
        self._counters.add(families.WORKERS, (started or "lost",))

    def _alert(self, event: AlertChanged) -> None:
        self._counters.add(families.ALERTS, (event.state,))

    def _message(self, event: MessageTried) -> None:
        self._counters.add(families.ALERT_MESSAGES, (event.kind, event.status))
