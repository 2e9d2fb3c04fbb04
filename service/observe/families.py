"""The metrics that the service gives of itself: names, help texts, labels and limits of their labels."""

from typing import Final, Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram", "info"]


class Family(Struct, frozen=True):
    """One metric with its labels. Counters are named without `_total`.

    `most` limits the sets of labels. Further ones are counted under `other`. `combine` says how the values of
    several workers make one. `unit` is the last word of the name, if that is a unit.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    most: int = 1
    combine: Literal["sum", "max"] = "sum"
    unit: str = ""


_QUICK: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

REQUESTS: Final = Family(
    "tally_requests",
    "counter",
    "Requests that were answered, by route template, method and status.",
    ("route", "method", "status"),
    most=600,
)
REQUEST_SECONDS: Final = Family(
    "tally_request_seconds",
    "histogram",
    "Duration of requests. One cache hit a second is timed and stands for the others.",
    buckets=_QUICK,
    unit="seconds",
)
RESULTS: Final = Family(
    "tally_results",
    "counter",
    "Results that were served: hit, stale, miss (an execution was waited for), joined (another caller's).",
    ("outcome",),
    most=4,
)
EXECUTIONS: Final = Family(
    "tally_executions",
    "counter",
    "Executions of stored SQL, by metric id.",
    ("metric",),
    most=500,
)
EXECUTION_SECONDS: Final = Family(
    "tally_execution_seconds",
    "histogram",
    "Duration of executions, with the wait for a connection and the encoding.",
    buckets=_QUICK,
    unit="seconds",
)
REFRESHES: Final = Family(
    "tally_refreshes",
    "counter",
    "Executions that no request waited for: of watched, hot and stale results.",
)
POOL_CONNECTIONS: Final = Family(
    "tally_pool_connections",
    "gauge",
    "Open connections to Postgres, by role (owner, reader) and state (used, idle).",
    ("role", "state"),
    most=4,
)
POOL_WAITING: Final = Family("tally_pool_waiting", "gauge", "Callers that wait for a reader connection.")
WATCHERS: Final = Family("tally_watchers", "gauge", "Open event streams and live sockets.")
CHANGE_LAG: Final = Family(
    "tally_change_lag_seconds",
    "gauge",
    "For how long changes may have gone unnoticed, of the worker that lags most; 0 while all are heard.",
    combine="max",
    unit="seconds",
)
IMPORTS: Final = Family(
    "tally_imports",
    "counter",
    "Imports by dataset and status: that of the report, or the code of the problem that refused the file.",
    ("dataset", "status"),
    most=200,
)
QUARANTINE_OPEN: Final = Family(
    "tally_quarantine_open",
    "gauge",
    "Quarantined rows that are neither loaded nor discarded, by dataset.",
    ("dataset",),
    most=100,
)
AUTH_FAILURES: Final = Family(
    "tally_auth_failures",
    "counter",
    "Requests that were refused because of their credentials, by the code of the problem.",
    ("reason",),
    most=10,
)
SHED: Final = Family(
    "tally_callers_shed",
    "counter",
    "Callers that got 503 because all connections of the reader were in use.",
)
CONNECTIONS: Final = Family(
    "tally_connection_events",
    "counter",
    "Connections that were lost and restored: announcements, poll, reader, store, by worker.",
    ("source", "event"),
    most=20,
)
BREAKERS: Final = Family(
    "tally_breaker_events",
    "counter",
    "How often a server could not be reached (opened) and could be reached again (closed), by worker.",
    ("server", "event"),
    most=20,
)
WORKERS: Final = Family(
    "tally_worker_events",
    "counter",
    "Workers that died or hung (lost), were started for them (started) or for SIGHUP (restarted).",
    ("event",),
    most=3,
)
ALERTS: Final = Family(
    "tally_alerts",
    "counter",
    "Alerts that came to a state of which their receivers are told, by that state.",
    ("state",),
    most=7,
)
ALERT_MESSAGES: Final = Family(
    "tally_alert_messages",
    "counter",
    "Tries to send a message about an alert: delivered, waiting (tried again), dead (given up).",
    ("kind", "status"),
    most=6,
)
RESULT_BYTES: Final = Family(
    "tally_result_bytes",
    "gauge",
    "Bytes of memory that cached results take.",
    unit="bytes",
)
BUILD: Final = Family("tally_build", "info", "The version that runs.", ("version",))

FAMILIES: Final = (
    REQUESTS,
    REQUEST_SECONDS,
    RESULTS,
    EXECUTIONS,
    EXECUTION_SECONDS,
    REFRESHES,
    POOL_CONNECTIONS,
    POOL_WAITING,
    WATCHERS,
    CHANGE_LAG,
    IMPORTS,
    QUARANTINE_OPEN,
    AUTH_FAILURES,
    SHED,
    CONNECTIONS,
    BREAKERS,
    WORKERS,
    ALERTS,
    ALERT_MESSAGES,
    RESULT_BYTES,
    BUILD,
)
