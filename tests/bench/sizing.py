"""Simulate the arithmetic of docs/scaling.md: tiles that poll, nodes, changes: python -m tests.bench.sizing

Each node has a table of its own results. A change makes them stale; the first caller of a node asks the
store, and the first node of all runs. The simulation counts what the page computes.
"""

import heapq
import random
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """`tiles` poll `results` different results every `every_s` seconds; each changes every `change_s`."""

    tiles: int
    results: int
    every_s: float
    change_s: float
    nodes: int
    run_s: float = 0.005


@dataclass(frozen=True)
class Rates:
    """Per second: answers of one node, runs in Postgres, questions to the store."""

    answers: float
    runs: float
    store: float


def computed(load: Load) -> Rates:
    """The page's arithmetic: runs do not depend on the number of nodes, and tiles cost answers only."""
    asked = load.tiles / load.every_s
    changes = load.results / load.change_s
    per_node = asked / load.results / load.nodes  # requests a second for one result on one node
    looked = per_node / (per_node + 1 / load.change_s)  # share of changes that a node is asked about
    shown = asked / load.results / (asked / load.results + 1 / load.change_s)
    return Rates(asked / load.nodes, changes * shown, changes * looked * load.nodes)


def simulated(load: Load, seconds: float) -> Rates:
    """Count the same with tiles that poll at random times and results that change at random times."""
    chance = random.Random(22)  # noqa: S311 (a simulation)
    tiles = [(chance.expovariate(1 / load.every_s), tile, 0) for tile in range(load.tiles)]
    changes = [(chance.expovariate(1 / load.change_s), result, 1) for result in range(load.results)]
    events = tiles + changes
    heapq.heapify(events)
    version = [0] * load.results
    stored = [0] * load.results
    held = [[0] * load.results for _ in range(load.nodes)]
    answers = runs = store = 0
    while events[0][0] < seconds:
        now, number, kind = heapq.heappop(events)
        if kind:
            version[number] += 1
            heapq.heappush(events, (now + chance.expovariate(1 / load.change_s), number, 1))
            continue
        node, result = chance.randrange(load.nodes), number % load.results
        answers += 1
        if held[node][result] < version[result]:
            store += 1
            if stored[result] < version[result]:
                runs += 1
                stored[result] = version[result]
            held[node][result] = version[result]
        heapq.heappush(events, (now + chance.expovariate(1 / load.every_s), number, 0))
    return Rates(answers / load.nodes / seconds, runs / seconds, store / seconds)


LOADS = {
    "1k tiles": Load(1_000, 200, 10, 60, 1),
    "100k tiles": Load(100_000, 5_000, 10, 60, 3),
    "10M tiles, a hundredth of it": Load(100_000, 500, 10, 60, 10),
}


def main() -> None:
    for name, load in LOADS.items():
        on_paper, counted = computed(load), simulated(load, 60)
        sys.stdout.write(f"{name}: {load}\n")
        for field in ("answers", "runs", "store"):
            paper, real = getattr(on_paper, field), getattr(counted, field)
            sys.stdout.write(
                f"  {field:8} a second: on paper {paper:9.1f}, simulated {real:9.1f}, {real / paper:.2f}\n"
            )


if __name__ == "__main__":
    main()
