"""Loaded by each process of the soaked service: on SIGUSR2 it writes how many asyncio tasks it has."""

import asyncio
import gc
import json
import os
import signal
from pathlib import Path


def _tell(*_: object) -> None:
    tasks = [each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()]
    names = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    path = Path(os.environ["SOAK_FOLDER"]) / f"{os.getpid()}.json"
    path.with_suffix(".new").write_text(json.dumps(names))
    path.with_suffix(".new").replace(path)


if "SOAK_FOLDER" in os.environ:
    signal.signal(signal.SIGUSR2, _tell)
