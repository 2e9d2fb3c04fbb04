"""How a run is divided among workers, and how seldom each looks for garbage.

By file, so that what a module sets up is made once, and in an order that leaves no worker idle at the end.
`-n auto` gives a worker more than there are processors, for many tests wait for other processes.
"""

import gc
import os
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

MOST_WORKERS = 6
# Tests that wait come first. Short ones that only compute fill what is left. Those of a cluster count the
# runs of all nodes, and a node that attacks keep from the processor runs once more: they come after these.
ORDER = (
    "adversity",
    "browser",
    "clients",
    "packaging",
    "http",
    "migrations",
    "cluster",
    "docs",
    "db",
    "pure",
)
# These make clients or a wheel, start a browser and a service for all their files, or start many servers.
TOGETHER = ("tests/browser/", "tests/clients/", "tests/cluster/", "tests/packaging/")
COLLECT = (20_000, 20, 20)
FOLDER = Path(__file__).parent


class ByFile(LoadScopeScheduling):
    """Gives each worker a file at a time, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)


def pytest_xdist_auto_num_workers() -> int:
    return min((os.cpu_count() or 1) + 1, MOST_WORKERS)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # by the number of tests, the slowest files would come last
    return ByFile(config, log)


def pytest_collection() -> None:
    gc.set_threshold(*COLLECT)


def pytest_collection_finish() -> None:
    """Thousands of tests stay to the end: looking through them took a third of the time of a run."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(FOLDER).parts[0]
        return ORDER.index(folder) if folder in ORDER else len(ORDER)

    items.sort(key=place)
