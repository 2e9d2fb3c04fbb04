"""The steps of a release: what the workflow runs, run here."""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from service import __version__
from tests.processes import ROOT

SCRIPT = ROOT / "deploy" / "release.py"
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
CHANGELOG = """# Changelog

## 2.0.0 (2030-01-02)

New.

### Upgrade

1. Do.

## 1.0.0 (2029-01-02)

- Old.
"""


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source of version 2.0.0 that may be released."""
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text('__version__ = "2.0.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "clients" / "js").mkdir(parents=True)
    (tmp_path / "clients" / "js" / "package.json").write_text('{"version": "2.0.0"}')
    return tmp_path


def test_this_version_may_be_released_if_nothing_came_after_it(release):
    first = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    if first == "Unreleased":
        with pytest.raises(SystemExit, match="without an Unreleased before"):
            release.check(f"v{__version__}")
    else:
        release.check(f"v{__version__}")


def test_its_notes_begin_with_the_upgrade():
    done = subprocess.run(
        [sys.executable, SCRIPT, "notes", __version__], capture_output=True, text=True, check=True
    )
    headings = re.findall(r"^### (.*)$", done.stdout, re.MULTILINE)
    assert headings[0] == f"Upgrade from {previous()}"
    assert not re.search(r"^## ", done.stdout, re.MULTILINE)


def previous() -> str:
    versions = re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    return versions[versions.index(__version__) + 1]


def test_the_notes_are_one_section(release):
    assert release.notes("2.0.0", CHANGELOG) == "New.\n\n### Upgrade\n\n1. Do.\n"
    assert release.notes("1.0.0", CHANGELOG) == "- Old.\n"
    with pytest.raises(SystemExit, match=r"no section '## 3\.0\.0 \(date\)'; it has 2\.0\.0, 1\.0\.0"):
        release.notes("3.0.0", CHANGELOG)


def test_a_tag_that_agrees_is_taken(release, tree: Path):
    release.check("v2.0.0", tree)


@pytest.mark.parametrize(
    ("change", "tag", "why"),
    [
        (("CHANGELOG.md", "", ""), "v2.0.1", "the tag is v2.0.1 and service/__init__.py says 2.0.0"),
        (("CHANGELOG.md", "", ""), "2.0.0", "the tag is 2.0.0"),
        (("CHANGELOG.md", "## 2.0.0 (2030-01-02)", "## Unreleased"), "v2.0.0", "has no section"),
        (
            ("CHANGELOG.md", "# Changelog\n", "# Changelog\n\n## Unreleased\n\n- x\n"),
            "v2.0.0",
            "first section",
        ),
        (("CHANGELOG.md", " (2030-01-02)", ""), "v2.0.0", "first section"),
        (("CHANGELOG.md", "New.\n\n### Upgrade\n\n1. Do.\n", ""), "v2.0.0", "is empty"),
        (("clients/js/package.json", "2.0.0", "1.9.0"), "v2.0.0", "package.json says 1.9.0"),
        (("service/__init__.py", "__version__", "version"), "v2.0.0", "no __version__"),
    ],
)
def test_a_release_that_does_not_agree_is_refused(
    release, tree: Path, change: tuple[str, str, str], tag: str, why: str
):
    file, old, new = change
    path = tree / file
    path.write_text(path.read_text().replace(old, new, 1) if old else path.read_text())
    with pytest.raises(SystemExit, match=re.escape(why)):
        release.check(tag, tree)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, SCRIPT, "build", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_wheel_and_sdist_come_out_equal_twice(built: Path):
    names = {path.name for path in built.iterdir()}
    wheel, sdist = f"tally_metrics-{__version__}-py3-none-any.whl", f"tally_metrics-{__version__}.tar.gz"
    assert names == {wheel, sdist, "SHA256SUMS"}
    for line in (built / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((built / name).read_bytes()).hexdigest() == digest


def test_a_build_that_differs_is_refused(release):
    turns = iter([b"1", b"2"])
    with pytest.raises(SystemExit, match=r"two builds of the same commit differ: tally\.whl"):
        release.twice(lambda _: {"tally.whl": next(turns), "same": b""})
    missing = iter([{"a": b""}, {}])
    with pytest.raises(SystemExit, match="differ: a"):
        release.twice(lambda _: next(missing))


def test_the_wheel_holds_what_the_source_has(built: Path):
    """Pages, their files, migrations, seeds and SQL: all that git has below these folders."""
    tracked = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "service", "migrations", "seeds"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = {name if name.startswith("service/") else f"service/{name}" for name in tracked}
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert expected | {"service/clients/js/tally-live.js"} == held
    assert {
        "service/dashboard/templates",
        "service/dashboard/static",
        "service/migrations",
        "service/seeds",
    } <= {"/".join(name.split("/")[:depth]) for name in held for depth in (2, 3)}


def test_the_sdist_makes_the_same_wheel(built: Path, tmp_path: Path, release):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    subprocess.run([sys.executable, "-c", release.BUILD, tmp_path / "out"], cwd=source, check=True)
    assert contents(next((tmp_path / "out").glob("*.whl"))) == contents(next(built.glob("*.whl")))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_version_is_said_in_one_place():
    own = ROOT / "service" / "__init__.py"
    said = [
        path
        for path in [*ROOT.glob("*.toml"), *ROOT.glob("Makefile"), *(ROOT / "service").rglob("*.py")]
        if re.search(r"^\s*(?:__version__|version) = [\"']\d", path.read_text(), re.MULTILINE)
    ]
    assert said == [own]


def test_the_workflow_runs_these_steps_in_order():
    (job,) = WORKFLOW["jobs"].values()
    said = [step.get("run", step.get("uses", "")) for step in job["steps"]]
    order = ["release.py check", "release.py build", "sbom.py", "attest-build-provenance", "release.py notes"]
    places = [next(number for number, step in enumerate(said) if word in step) for word in order]
    assert places == sorted(places)
    assert WORKFLOW[True]["push"]["tags"] == ["v*"]  # YAML reads `on` as true
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_the_workflow_takes_no_text_of_events_into_a_shell():
    (job,) = WORKFLOW["jobs"].values()
    assert [step["run"] for step in job["steps"] if "${{" in step.get("run", "")] == []


def test_each_shell_step_is_right(tmp_path: Path):
    (job,) = WORKFLOW["jobs"].values()
    for step in job["steps"]:
        done = subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True, check=False)
        assert done.returncode == 0
    assert shutil.which("git")


def test_the_bill_of_materials_names_what_runs():
    made = subprocess.run(
        [sys.executable, ROOT / "deploy" / "sbom.py", ROOT / "requirements.lock"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = json.loads(made.stdout)
    names = {each["name"] for each in listed["components"]}
    assert {"litestar", "asyncpg", "granian"} <= names
    assert "tally-metrics" not in names
    about = listed["metadata"]["component"]
    assert (about["type"], about["name"]) == ("application", "tally-metrics")
