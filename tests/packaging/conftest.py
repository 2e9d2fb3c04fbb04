"""The wheel, and an environment that has nothing but it and its dependencies."""

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.processes import ROOT, open_folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    made = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, check=True)
    return folder / made.stdout.split()[-1]


@pytest.fixture(scope="session")
def installed(wheel: Path) -> Generator[Path]:
    """An environment that has the wheel and its dependencies; its folder of programs."""
    with open_folder() as folder:
        venv.create(folder / "env", with_pip=False)
        python = folder / "env" / "bin" / "python"
        install = ["--python", python, "install", "--no-deps", "--no-index", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "pip", *install, "-q", wheel], check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = folder / "env" / "lib" / version / "site-packages"
        # The dependencies as they are installed here; what a .pth names is read without its own .pth files.
        (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
        yield folder / "env" / "bin"
