"""Bring the generated part of the package: as `make sdk` left it, or made now from the checkout around."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
GENERATED = HERE / "tally_client" / "_generated"


def version() -> str:
    """The version of the Tally in this checkout."""
    source = CHECKOUT / "service" / "__init__.py"
    if not source.is_file():
        raise FileNotFoundError(f"{source}: build this package inside a checkout of Tally")
    found = re.search(r'^__version__ = "([^"]+)"', source.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{source} has no __version__")
    return found[1]


class CustomBuildHook(BuildHookInterface):
    def dependencies(self) -> list[str]:
        """What generating needs: the service, whose routes are described, and the generator."""
        if GENERATED.is_dir():
            return []
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
        generator = [each for each in project["optional-dependencies"]["dev"] if each.startswith("openapi-")]
        return [*project["dependencies"], *generator]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version, build_data
        if not GENERATED.is_dir():
            subprocess.run([sys.executable, str(CHECKOUT / "clients" / "sdk.py")], check=True)
