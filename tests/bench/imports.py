# ruff: noqa: T201 (it prints figures)
"""What an import costs: beside psql's copy of the same rows, in memory by size, and the second time.

Run `.venv/bin/python tests/bench/imports.py` from the root; it starts a server of its own. Rounds alternate
and the best of each counts: other work on the machine only ever slows a round down. An import is the whole
command from its first statement on, without loading Python's modules (about a second).
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from service.database.embedded import running
from service.database.migrate import migrate

ROWS = 500_000
ROUNDS = 3
CUSTOMERS = 2_000
BAD = (
    "32/13/2019 09:00,Email,1",
    "04/10/2019 09:00,,7",
    "04/10/2019 09:00,Email,x",
    "04/10/2019 09:00,Email",
)
# The same table as a user would have it: `tally dataset add own.interactions`.
OWN = """
CREATE SCHEMA own;
CREATE TABLE own.customers (id bigint PRIMARY KEY);
INSERT INTO own.customers SELECT customer_id FROM data.customers;
CREATE TABLE own.interactions (
    date_start timestamp NOT NULL, interaction varchar(20) NOT NULL,
    customers bigint NOT NULL REFERENCES own.customers CONSTRAINT customer_positive CHECK (customers > 0),
    PRIMARY KEY (customers, date_start, interaction));
CREATE INDEX ON own.interactions (date_start)"""
ADD = "from service.cli import main; main('dataset add own.interactions --vocabulary interaction'.split())"
EMPTY = "TRUNCATE data.external_interactions, data.vocabulary, imports.run, quarantine.row"
COPY = r"\copy data.external_interactions (date_start, interaction, customer_id) from '{}' with (format csv)"
CHILD = """
import sys, time
from pathlib import Path
from service.cli import main
start = time.perf_counter()
try:
    main(["import", *sys.argv[1:]])
finally:
    took = time.perf_counter() - start
    # Not ru_maxrss: that begins with what the parent had when it forked.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(took, int(peak.split()[1]) // 1024, file=sys.stderr)
"""


def write(folder: Path, rows: int) -> tuple[Path, Path]:
    """A dirty file, one row of a hundred bad, and its good rows alone as psql reads them."""
    dice, seen = random.Random(1), set[tuple[str, str, int]]()  # noqa: S311 (sample data)
    dirty, clean = folder / f"dirty{rows}.csv", folder / f"clean{rows}.csv"
    with dirty.open("w") as bad, clean.open("w") as good:
        bad.write("Date Start,Interaction,Customers\n")
        while len(seen) < rows:
            year, month, day = dice.randrange(2015, 2026), dice.randrange(1, 13), dice.randrange(1, 29)
            clock = f"{dice.randrange(24):02}:{dice.randrange(60):02}:{dice.randrange(60):02}"
            channel, customer = dice.choice(("Email", "Call", "Bird")), dice.randrange(1, CUSTOMERS + 1)
            key = (f"{year}-{month:02}-{day:02} {clock}", channel, customer)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) % 100 == 0:
                bad.write(dice.choice(BAD) + "\n")
            else:
                bad.write(f"{day:02}/{month:02}/{year} {clock},{channel},{customer}\n")
                good.write(f"{key[0]},{channel},{customer}\n")
    return dirty, clean


def timed(command: list[str | Path], **options: object) -> tuple[float, subprocess.CompletedProcess[str]]:
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return time.perf_counter() - start, done


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tally-bench-"))
    folder.chmod(0o755)
    try:
        with running(folder / "data") as server:
            migrate(server.owner_url, server.reader_url, ("data",))
            psql = [server.bin_dir / "psql", "-qX", "-v", "ON_ERROR_STOP=1", server.owner_url, "-c"]
            environment = {**os.environ, "DATABASE_URL": server.owner_url, "IMPORT_BYTES_LIMIT": str(1 << 30)}
            timed([*psql, f"INSERT INTO data.customers (customer_id) SELECT generate_series(1, {CUSTOMERS})"])

            timed([*psql, OWN])
            timed([sys.executable, "-c", ADD], env={**environment, "READER_DATABASE_URL": server.reader_url})

            def imported(
                path: Path, dataset: str = "external_interactions"
            ) -> tuple[float, int, dict[str, object]]:
                _, done = timed([sys.executable, "-c", CHILD, dataset, path], env=environment)
                took, megabytes = done.stderr.split()[-2:]
                return float(took), int(megabytes), json.loads(done.stdout)

            dirty, clean = write(folder, ROWS)
            copies, firsts, seconds, owns, memory = [], [], [], [], 0
            for _ in range(ROUNDS):
                timed([*psql, EMPTY])
                copies.append(timed([*psql, COPY.format(clean)])[0])
                timed([*psql, EMPTY])
                took, memory, report = imported(dirty)
                firsts.append(took)
                seconds.append(imported(dirty)[0])
                timed([*psql, EMPTY + ", own.interactions"])
                owns.append(imported(dirty, "interactions")[0])
                print(
                    f"  copy {copies[-1]:.2f} s, import {firsts[-1]:.2f} s, again {seconds[-1]:.2f} s, "
                    f"into a user's table {owns[-1]:.2f} s",
                    report,
                )
            timed([*psql, EMPTY])
            _, double, _ = imported(write(folder, 2 * ROWS)[0])
        print(f"\n{ROWS} rows, 1 % bad, best of {ROUNDS}")
        print(f"psql copy of the good rows  {min(copies):6.2f} s")
        print(f"import                      {min(firsts):6.2f} s   {min(firsts) / min(copies):.2f} x copy")
        print(f"import into a user's table  {min(owns):6.2f} s   {min(owns) / min(firsts):.2f} x import")
        print(f"the same file again         {min(seconds):6.2f} s   {min(seconds) / min(firsts):.1%}")
        print(f"peak memory                 {memory:6} MB  {double} MB for {2 * ROWS} rows")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
