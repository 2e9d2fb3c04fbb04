"""Write a software bill of materials (CycloneDX 1.6, JSON) of the installed packages to standard output.

`python deploy/sbom.py [requirements.lock]`. With the lock file each package also has the hashes it may have.
"""

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

NAME: Final = "tally-metrics"
"""What the list is about, if it is installed."""


def component(package: Distribution, hashes: dict[str, list[str]]) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
    found: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": package.version,
        "purl": f"pkg:pypi/{name}@{package.version}",
    }
    licence = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    if licence and "\n" not in licence:
        found["licenses"] = [{"license": {"name": licence}}]
    if name in hashes:
        found["hashes"] = [{"alg": "SHA-256", "content": each} for each in hashes[name]]
    return found


def locked_hashes(lock: str) -> dict[str, list[str]]:
    entries = re.findall(r"^([a-z0-9-]+)==[^\n]*((?:\n +--hash=[^\n]*)*)", lock, re.MULTILINE)
    return {name: re.findall(r"sha256:([0-9a-f]{64})", rest) for name, rest in entries}


def main(arguments: list[str]) -> None:
    hashes = locked_hashes(Path(arguments[0]).read_text()) if arguments else {}
    components = sorted((component(each, hashes) for each in distributions()), key=lambda each: each["name"])
    own = [each for each in components if each["name"] == NAME]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        **({"metadata": {"component": own[0] | {"type": "application"}}} if own else {}),
        "components": [each for each in components if each not in own],
    }
    json.dump(document, sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
