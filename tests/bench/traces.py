"""What traces cost: hits and misses of a service that sends them, against the same service that does not.

`.venv/bin/python -m tests.bench.traces`: one worker, a collector in a process of its own.
A miss of a caller who brings a `traceparent` also runs its statement with a comment, so not kept prepared.
"""

import os
import tempfile
from contextlib import ExitStack
from multiprocessing import Event, Pipe, Process
from pathlib import Path
from typing import Any

from service.auth.issuer import Issuer, KeyFile
from service.environment import load
from tests.bench.hits import SQL, ask, store_metrics
from tests.bench.load import CONNECTIONS, TALLY, Case, database, get, served
from tests.bench.metrics import Side, compare
from tests.collector import collecting

ROUNDS = 200
AT_ONCE = 8  # more would wait for a connection to Postgres, and be refused
FROM_CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def main() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(database())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ.update({"DATA_DIR": folder, "AUTH": "on"})
        issuer = Issuer(load(os.environ).public_url, KeyFile(Path(folder)))
        bearer = {"Authorization": f"Bearer {issuer.sign('bench', ['metrics:read'], 3600)}"}
        metrics = store_metrics(server, SQL, 200)
        stop = Event()
        stack.callback(stop.set)
        without = stack.enter_context(served(server, TALLY))
        traced = stack.enter_context(served(server, TALLY, OTEL_EXPORTER_OTLP_ENDPOINT=_collector(stop)))
        for metric in metrics:
            for port in (without, traced):
                ask(port, metric, bearer)
        afresh = bearer | {"Cache-Control": "no-cache"}
        cases_of = (("hit", bearer, metrics[:1], CONNECTIONS), ("miss", afresh, metrics, AT_ONCE))
        for what, headers, paths, connections in cases_of:
            requests = [get(f"/api/v1/metrics/{each}", **headers) for each in paths]
            followed = [get(f"/api/v1/metrics/{each}", **headers, traceparent=FROM_CALLER) for each in paths]
            sides = {
                f"a {what} without a collector": Side(Case(without, requests)),
                f"a {what} with one": Side(Case(traced, requests)),
                f"a {what} with one, of a caller's trace": Side(Case(traced, followed)),
            }
            compare(sides, next(iter(sides)), connections=connections, rounds=ROUNDS)


def _collector(stop: Any) -> str:
    """The address of a collector that runs until `stop` is set."""
    told, tell = Pipe()
    Process(target=_collect, args=(tell, stop), daemon=True).start()
    return str(told.recv())


def _collect(tell: Any, stop: Any) -> None:
    with collecting() as collector:
        tell.send(collector.address)
        while not stop.wait(1.0):
            collector.spans.clear()


if __name__ == "__main__":
    main()
