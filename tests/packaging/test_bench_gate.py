"""The gate lets a change pass that is as fast as the last release, and no other; its history is a table."""

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench import gate, history
from tests.bench.gate import Measure, Pair, Side, Speed
from tests.bench.history import CASES, HISTORY, PAGE, Line
from tests.bench.load import Case
from tests.processes import ROOT
from tests.waiting import eventually

BEFORE, NOW = 1, 2
PAIRS = {
    name: Pair(Side(Case(BEFORE, [name.encode()]), (), 1), Side(Case(NOW, [name.encode()]), (), 1))
    for name in CASES
}


def fake(*speeds: float, case: str = "hit", clock: float = 100) -> Measure:
    """Measures 100 for everything, but these speeds of this tree for one case, one a round."""
    turns = iter(speeds)
    return lambda side: Speed(next(turns) if side == PAIRS[case].now else 100, clock)


def test_the_same_speed_passes():
    same = dict.fromkeys(CASES, 1.0)
    assert gate.ratios(PAIRS, 3, fake(100, 100, 100)) == (same, same)
    assert gate.slower(dict.fromkeys(CASES, 1.0)) == []


@pytest.mark.parametrize("case", CASES)
def test_a_case_that_is_slower_is_named(case: str):
    found, _ = gate.ratios(PAIRS, 3, fake(80, 80, 80, case=case))
    assert gate.slower(found) == [f"{case}: 0.80 of the release's rate, at least 0.9 is needed"]


def test_one_bad_round_is_not_a_slower_tree_and_one_good_round_no_faster_one():
    assert gate.slower(gate.ratios(PAIRS, 3, fake(100, 5, 100))[0]) == []
    assert gate.slower(gate.ratios(PAIRS, 3, fake(80, 500, 80))[0]) != []


def test_the_bound_is_just_allowed():
    assert gate.slower({"hit": 0.9}) == []
    assert gate.slower({"hit": 0.899}) != []


def test_rounds_alternate_and_begin_in_turn():
    order: list[int] = []

    def measured(side: Side) -> Speed:
        order.append(side.case.port)
        return Speed(1.0, 1.0)

    gate.ratios({"hit": PAIRS["hit"]}, 3, measured)
    assert order == [BEFORE, NOW, NOW, BEFORE, BEFORE, NOW]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command without servers: what it was to measure against. Set `gate.speed` for the figures."""
    against: list[str] = []

    @contextmanager
    def side_by_side(ref: str) -> Generator[dict[str, Pair]]:
        against.append(ref)
        yield PAIRS

    monkeypatch.setattr(gate, "side_by_side", side_by_side)
    return against


def test_a_slower_tree_ends_with_a_sentence_and_a_line(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(gate, "speed", fake(50, 50, case="uncached"))
    file = tmp_path / "new" / "history.jsonl"
    with pytest.raises(SystemExit) as end:
        gate.main(["--against", "v0", "--rounds", "2", "--history", str(file)])
    assert end.value.code == "uncached: 0.50 of the release's rate, at least 0.9 is needed"
    (line,) = history.read(file)
    assert (line.passed, line.against, line.by_processor["uncached"]) == (False, "v0", 0.5)
    assert measured == ["v0"]


def test_the_clock_decides_where_it_is_asked_to(
    measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(gate, "speed", lambda side: Speed(100, 50 if side.case.port == NOW else 100))
    common = ["--against", "v0", "--rounds", "1", "--history", str(tmp_path / "history.jsonl")]
    gate.main(common)
    with pytest.raises(SystemExit, match=r"304: 0\.50 of the release"):
        gate.main([*common, "--by", "clock"])
    assert len(measured) == 2


def test_processor_time_counts_children_that_run_and_that_have_ended():
    work = "for _ in range(10**8): pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{work}']); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE) as process:
        try:
            eventually(lambda: gate.processor_s((process.pid,)) > 0.5)
        finally:
            process.kill()


def test_each_run_adds_a_line(measured: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(gate, "speed", fake(120, 120))
    file = tmp_path / "history.jsonl"
    for _ in range(2):
        gate.main(["--against", "v0", "--rounds", "1", "--history", str(file)])
    assert [line.passed for line in history.read(file)] == [True, True]
    assert measured == ["v0", "v0"]


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--bound", "0"], ["--rounds", "many"]])
def test_wrong_arguments_are_refused(measured: list[str], wrong: list[str]):
    with pytest.raises(SystemExit) as end:
        gate.main(["--against", "v0", *wrong])
    assert end.value.code == 2
    assert measured == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three commits, of which none is tagged."""
    run(tmp_path, "init", "-q")
    for number in (1, 2, 3):
        (tmp_path / "file").write_text(str(number))
        run(tmp_path, "add", "file")
        run(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", str(number))
    return tmp_path


def run(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def test_the_last_release_is_the_newest_tag_before_this_commit(repository: Path):
    for tag, commit in {
        "v0.9.0": "HEAD~2",
        "v0.10.0": "HEAD~1",
        "v0.11.0": "HEAD",
        "other": "HEAD~1",
    }.items():
        run(repository, "tag", tag, commit)
    assert gate.last_release(repository) == "v0.10.0"


def test_without_a_release_it_asks_for_a_commit(repository: Path):
    with pytest.raises(SystemExit, match="--against REF"):
        gate.last_release(repository)


def test_the_release_is_the_tree_of_its_commit(repository: Path):
    (repository / "file").write_text("not committed")
    with gate.released("HEAD~1", repository) as folder:
        assert (folder / "file").read_text() == "2"
    assert not folder.exists()


def test_a_commit_that_is_not_there_is_named(repository: Path):
    with pytest.raises(SystemExit, match="nothing-here"), gate.released("nothing-here", repository):
        pass


def test_both_run_side_by_side_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The commit of this tree against the tree: any speed is enough."""
    monkeypatch.setattr(gate, "SECONDS", 0.2)
    file = tmp_path / "history.jsonl"
    gate.main(["--against", "HEAD", "--rounds", "1", "--bound", "0.001", "--history", str(file)])
    (line,) = history.read(file)
    assert line.by_processor.keys() == line.by_clock.keys() == set(CASES)
    assert min(*line.by_processor.values(), *line.by_clock.values()) > 0


def test_the_page_shows_the_history():
    lines = history.read()
    assert len(lines) >= 2
    assert all(line.by_processor.keys() == line.by_clock.keys() == set(CASES) for line in lines)
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    page = PAGE.read_text()
    assert history.filled(page, lines) == page, "run: python -m tests.bench.history"
    assert len(re.findall(r"^\| 20\d\d-", page, re.MULTILINE)) == len(lines)


def test_a_line_becomes_a_row_of_the_table():
    ratios = dict(zip(CASES, (1.0, 0.5, 2.25), strict=True))
    line = Line("2030-01-02T03:04Z", "abc", "v1", 9, ratios, ratios, 0.25, passed=False)
    assert history.table([line]).splitlines()[2] == (
        "| 2030-01-02T03:04Z | `abc` | `v1` | 1.00 (1.00) | 0.50 (0.50) | 2.25 (2.25) | 0.2 | no |"
    )
    page = "a\n<!-- bench history -->\nold\n<!-- end -->\nb"
    assert "old" not in history.filled(page, [line])
    assert history.filled(history.filled(page, [line]), [line]) == history.filled(page, [line])


def test_the_history_is_where_it_was_asked_for():
    assert HISTORY.relative_to(ROOT) == Path("bench/history.jsonl")
