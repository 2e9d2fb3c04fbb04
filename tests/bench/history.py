"""Runs of the gate, a line each in bench/history.jsonl, and their table in docs/scaling.md.

`.venv/bin/python -m tests.bench.history` writes the table.
"""

import re
from pathlib import Path

import msgspec
from msgspec import Struct

ROOT = Path(__file__).parents[2]
HISTORY = ROOT / "bench" / "history.jsonl"
PAGE = ROOT / "docs" / "scaling.md"
MARKED = re.compile(r"(?<=<!-- bench history -->\n)(.*?)(?=<!-- end -->)", re.DOTALL)
CASES = ("hit", "304", "uncached")


class Line(Struct, frozen=True):
    """One run: this tree's speed by the release's. `load` is that of the machine at the end."""

    at: str
    commit: str
    against: str
    rounds: int
    by_processor: dict[str, float]
    by_clock: dict[str, float]
    load: float
    passed: bool


def append(line: Line, path: Path = HISTORY) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def read(path: Path = HISTORY) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]


def table(lines: list[Line]) -> str:
    """The runs, newest first."""
    rows = [
        f"| {line.at} | `{line.commit}` | `{line.against}` | "
        + " | ".join(f"{line.by_processor[case]:.2f} ({line.by_clock[case]:.2f})" for case in CASES)
        + f" | {line.load:.1f} | {'yes' if line.passed else 'no'} |"
        for line in reversed(lines)
    ]
    head = (
        f"| when | commit | against | {' | '.join(CASES)} | load | passed |\n|---|---|---|{'---:|' * 4}---|"
    )
    return "\n".join([head, *rows])


def filled(page: str, lines: list[Line]) -> str:
    """The page with the table between its marks."""
    return MARKED.sub(lambda _: f"\n{table(lines)}\n\n", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(), read()))
