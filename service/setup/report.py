"""What the set-up commands say: narration on stderr, what is to be used on stdout."""

import shlex
import shutil
import sys
from pathlib import Path


def say(*lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def program() -> str:
    """How this program was started, as a shell takes it."""
    started = Path(sys.argv[0])
    if started.name != "tally":
        return f"{_short(Path(sys.executable))} -m service"
    on_path = shutil.which("tally")
    return "tally" if on_path and Path(on_path).samefile(started) else _short(started)


def _short(path: Path) -> str:
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
