"""Start a process of our own for work that may take too much memory or time."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Final

ROOT: Final = Path(__file__).parents[1]
START: Final = "import sys; sys.path.insert(0, sys.argv.pop()); from {0} import main; main()"
INHERITED: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def start_process(module: str, *arguments: bytes, stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a module's `main`, without our environment: it holds secrets. Closing its input is to end it."""
    return subprocess.Popen(  # noqa: S603 (our own command)
        [sys.executable, "-I", "-X", "utf8", "-c", START.format(module), *arguments, ROOT],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in INHERITED if name in os.environ},
        start_new_session=True,  # a Ctrl-C in the terminal must reach the service only
    )
