"""The steps of a release, which `.github/workflows/release.yml` runs and everybody can try.

`python deploy/release.py check v0.2.0`: whether that tag may be released.
`python deploy/release.py notes 0.2.0`: its section of CHANGELOG.md, on standard output.
`python deploy/release.py build FOLDER`: build wheel and sdist twice, and keep them if both are equal.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
VERSION: Final = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
SUMS: Final = "SHA256SUMS"
BUILD: Final = "import sys, hatchling.build as b; b.build_wheel(sys.argv[1]); b.build_sdist(sys.argv[1])"


def version(root: Path = ROOT) -> str:
    """The version of the source: `service/__init__.py` is the one place."""
    found = VERSION.search((root / "service" / "__init__.py").read_text())
    if not found:
        sys.exit("service/__init__.py has no __version__")
    return found[1]


def notes(wanted: str, changelog: str) -> str:
    """The section of a version, without its heading."""
    sections = re.split(r"^## (.+)\n", changelog, flags=re.MULTILINE)
    for heading, text in zip(sections[1::2], sections[2::2], strict=True):
        if heading.split()[0] == wanted:
            return f"{text.strip()}\n"
    known = ", ".join(heading.split()[0] for heading in sections[1::2])
    sys.exit(f"CHANGELOG.md has no section '## {wanted} (date)'; it has {known}")


def check(tag: str, root: Path = ROOT) -> None:
    """End with a sentence unless version, tag, changelog and the JavaScript client agree."""
    own = version(root)
    if tag != f"v{own}":
        sys.exit(f"the tag is {tag} and service/__init__.py says {own}: tag v{own}, or change the version")
    changelog = (root / "CHANGELOG.md").read_text()
    if not notes(own, changelog).strip():
        sys.exit(f"the section of {own} in CHANGELOG.md is empty")
    first = re.search(r"^## (.+)$", changelog, re.MULTILINE)
    if not first or not re.fullmatch(re.escape(own) + r" \(\d{4}-\d\d-\d\d\)", first[1]):
        sys.exit(
            f"the first section of CHANGELOG.md has to be '## {own} (date)', without an Unreleased before"
        )
    client = json.loads((root / "clients" / "js" / "package.json").read_text())["version"]
    if client != own:
        sys.exit(f"clients/js/package.json says {client} and service/__init__.py {own}")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def build_once(folder: Path, revision: str) -> dict[str, bytes]:
    """Wheel and sdist of a commit, built from a copy of nothing but what git has, in a folder of its own."""
    source, out = folder / "source", folder / "out"
    with tarfile.open(fileobj=io.BytesIO(_git("archive", revision))) as archive:
        archive.extractall(source, filter="data")
    epoch = _git("log", "-1", "--format=%ct", revision).decode().strip()
    environ = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=source, env=environ, check=True)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def twice(build: Callable[[Path], dict[str, bytes]]) -> dict[str, bytes]:
    """What `build` makes in two folders. Ends with a sentence if one byte differs."""
    found: list[dict[str, bytes]] = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(prefix="tally-build-") as folder:
            found.append(build(Path(folder)))
    first, second = found
    differing = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    if differing:
        sys.exit(f"two builds of the same commit differ: {', '.join(differing)}")
    return first


def build(folder: Path, revision: str = "HEAD") -> None:
    """Put wheel, sdist and their sums into a folder."""
    files = twice(lambda place: build_once(place, revision))
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    (folder / SUMS).write_text(sums)
    sys.stdout.write(sums)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["check", tag]:
            check(tag)
        case ["notes", wanted]:
            sys.stdout.write(notes(wanted, (ROOT / "CHANGELOG.md").read_text()))
        case ["build", folder]:
            build(Path(folder))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
