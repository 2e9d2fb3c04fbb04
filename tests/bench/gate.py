"""Measure this tree and the last release side by side in one run. Exit status 1 if this tree is slower.

`.venv/bin/python -m tests.bench.gate [--against REF]`, or `make bench-gate`. A hit, a 304 and a metric that
is run for every request: rounds alternate between both, and the median of the rounds' ratios counts. Answers
for each second of processor time of service and Postgres are compared, because other work on the machine
takes the clock's time; `--by clock` compares answers a second. Each run adds a line to bench/history.jsonl.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import psutil
import psycopg
import uvloop
from msgspec import Struct

from service.database.embedded import Server
from tests.bench.history import HISTORY, Line, append
from tests.bench.load import ROOT, Case, database, get, measure, served

ROUNDS = 11
SECONDS = 1.0
BOUND = 0.9
HIT_SQL = "SELECT n, 'row ' || n AS label FROM generate_series(1, 25) AS n"
FRESH_SQL = "SELECT 1 AS n WHERE :turn::int > 0"
TURNS = 20_000
CONNECTIONS = {"hit": 64, "304": 64, "uncached": 8}
"""As many as no service refuses: misses as many as READER_POOL_SIZE."""
LOCK = "requirements.lock"


class Speed(Struct, frozen=True):
    """Answers for each second of processor time, and of the clock's."""

    processor: float
    clock: float


class Side(Struct, frozen=True):
    """Requests to one of the two services, and the processes that work for them: roots of trees."""

    case: Case
    processes: tuple[int, ...]
    connections: int


class Pair(Struct, frozen=True):
    """The same question to the release and to this tree."""

    before: Side
    now: Side


Measure = Callable[[Side], Speed]


def speed(side: Side) -> Speed:
    before = processor_s(side.processes)
    found = uvloop.run(measure(side.case, side.connections, SECONDS))
    return Speed(found.answers / (processor_s(side.processes) - before), found.rate)


def processor_s(roots: tuple[int, ...]) -> float:
    """Seconds of processor time of these processes, their descendants and their ended children."""
    total = 0.0
    for root in map(psutil.Process, roots):
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
    return total


def ratios(
    pairs: Mapping[str, Pair], rounds: int, measured: Measure
) -> tuple[dict[str, float], dict[str, float]]:
    """How fast this tree is by the release's speed: by processor time, and by the clock.

    Who begins changes with each round.
    """
    by_processor: dict[str, list[float]] = {name: [] for name in pairs}
    by_clock: dict[str, list[float]] = {name: [] for name in pairs}
    for number in range(rounds):
        for name, pair in pairs.items():
            order = (pair.before, pair.now) if number % 2 == 0 else (pair.now, pair.before)
            found = {id(side): measured(side) for side in order}
            before, now = found[id(pair.before)], found[id(pair.now)]
            by_processor[name].append(now.processor / before.processor)
            by_clock[name].append(now.clock / before.clock)
    return _medians(by_processor), _medians(by_clock)


def _medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(each), 3) for name, each in found.items()}


def slower(found: Mapping[str, float], bound: float = BOUND) -> list[str]:
    """A sentence for each case that is slower than the bound allows."""
    return [
        f"{name}: {ratio:.2f} of the release's rate, at least {bound} is needed"
        for name, ratio in found.items()
        if ratio < bound
    ]


def git(*arguments: str, root: Path = ROOT) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def last_release(root: Path = ROOT) -> str:
    """The newest tag of a release before this commit."""
    tags = git(
        "tag",
        "--merged",
        "HEAD",
        "--no-contains",
        "HEAD",
        "--list",
        "v*",
        "--sort=-version:refname",
        root=root,
    )
    if not tags:
        sys.exit("no release is tagged before this commit: name a commit with --against REF")
    return tags.splitlines()[0]


@contextmanager
def released(ref: str, root: Path = ROOT) -> Iterator[Path]:
    """The source of a commit, in a folder of its own."""
    commit = git("rev-parse", "--verify", f"{ref}^{{commit}}", root=root)
    content = subprocess.run(["git", "archive", commit], cwd=root, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="tally-release-") as folder:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder, filter="data")
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def interpreter(source: Path, root: Path = ROOT) -> Iterator[str]:
    """A Python with the packages of this source's lock: ours if the lock is ours, else a new environment."""
    lock = source / LOCK
    if lock.read_bytes() == (root / LOCK).read_bytes():
        yield sys.executable
        return
    with tempfile.TemporaryDirectory(prefix="tally-packages-") as folder:
        python = str(Path(folder) / "bin" / "python")
        uv = [str(Path(sys.executable).with_name("uv")), "--quiet"]
        install = ["pip", "install", "--python", python, "--require-hashes", "-r", str(lock)]
        subprocess.run([*uv, "venv", "--python", sys.executable, folder], check=True)
        subprocess.run([*uv, *install], check=True)
        yield python


def prepared(server: Server, name: str, source: Path, python: str) -> tuple[Server, str, str]:
    """A database that this source has migrated, with one metric that is held and one that is not."""
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    own = msgspec.structs.replace(
        server,
        owner_url=server.owner_url.rsplit("/", 1)[0] + f"/{name}",
        reader_url=server.reader_url.rsplit("/", 1)[0] + f"/{name}",
    )
    environ = os.environ | {
        "DATABASE_URL": own.owner_url, "READER_DATABASE_URL": own.reader_url, "PYTHONPATH": str(source),
    }  # fmt: skip
    subprocess.run(
        [python, "-m", "service", "migrate"],
        cwd=source,
        env=environ,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    held, fresh = str(uuid4()), str(uuid4())
    with psycopg.connect(own.owner_url) as connection:
        for metric, sql, seconds in ((held, HIT_SQL, None), (fresh, FRESH_SQL, 0)):
            connection.execute("INSERT INTO catalog.query (id, sql) VALUES (%s, %s)", [metric, sql])
            connection.execute(
                "INSERT INTO catalog.metric (id, query_id, fresh_for_s, stale_for_s) VALUES (%s, %s, %s, %s)",
                [metric, metric, seconds, seconds],
            )
    return own, held, fresh


def cases(port: int, held: str, fresh: str) -> dict[str, Case]:
    path = f"/api/v1/metrics/{held}"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        tag = answer.headers["etag"]
    turns = [get(f"/api/v1/metrics/{fresh}?turn={turn}", port=port) for turn in range(1, TURNS)]
    return {
        "hit": Case(port, [get(path, port=port)]),
        "304": Case(port, [get(path, port=port, **{"If-None-Match": tag})]),
        "uncached": Case(port, turns),
    }


@contextmanager
def side_by_side(ref: str) -> Iterator[dict[str, Pair]]:
    """Both services, each on a database of its own in one Postgres."""
    with ExitStack() as stack:
        server = stack.enter_context(database())
        found: list[dict[str, Side]] = []
        with psycopg.connect(server.owner_url) as connection:
            postmaster = psutil.Process(connection.info.backend_pid).ppid()
        for name, source in (("release", stack.enter_context(released(ref))), ("now", ROOT)):
            python = stack.enter_context(interpreter(source))
            own, held, fresh = prepared(server, name, source, python)
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            settings = {"AUTH": "off", "ENV_FILE": os.devnull, "DATA_DIR": folder}
            command = (python, "-m", "service", "serve")
            children = set(psutil.Process().children())
            port = stack.enter_context(served(own, command, source=source, **settings))
            (started,) = set(psutil.Process().children()) - children
            processes = (started.pid, postmaster)
            asked = cases(port, held, fresh)
            found.append({name: Side(asked[name], processes, CONNECTIONS[name]) for name in asked})
        yield {name: Pair(before, found[1][name]) for name, before in found[0].items()}


def described() -> str:
    """The commit of this tree, with a + if what is measured differs from it."""
    changed = git("status", "--porcelain", "--", "service", "migrations", LOCK)
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="REF", help="a tag or commit (default: the last release's tag)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds of each case (default: {ROUNDS})")
    parser.add_argument("--bound", type=float, default=BOUND, help=f"the least ratio (default: {BOUND})")
    parser.add_argument("--by", choices=["processor", "clock"], default="processor", help="what decides")
    parser.add_argument("--history", type=Path, default=HISTORY, help="the file that gets the line")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.bound <= 0:
        parser.error("--rounds and --bound have to be above 0")
    ref = given.against or last_release()
    with side_by_side(ref) as pairs:
        by_processor, by_clock = ratios(pairs, given.rounds, speed)
    wrong = slower(by_processor if given.by == "processor" else by_clock, given.bound)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    load = round(os.getloadavg()[0], 1)
    append(Line(now, described(), ref, given.rounds, by_processor, by_clock, load, not wrong), given.history)
    for name, ratio in by_processor.items():
        print(f"{name:10} {ratio:.2f} of {ref} by processor time, {by_clock[name]:.2f} by the clock")  # noqa: T201 (a script)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
