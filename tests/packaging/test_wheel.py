"""The wheel alone is a whole Tally: what it needs beside its dependencies is inside."""

import re
import subprocess
import zipfile
from pathlib import Path

import httpx

from service import __version__
from tests.processes import environment, free_port, open_folder, until_ready


def run(command: Path, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *arguments],
        cwd=command.parent,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_but_the_package_lands_in_site_packages(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {"service", f"tally_metrics-{__version__}.dist-info"}


def test_the_installed_wheel_migrates_seeds_and_serves(installed: Path):
    tally = installed / "tally"
    assert run(tally, "--version").stdout == f"tally {__version__}\n"
    port = free_port()
    with open_folder() as folder:
        migrated = run(tally, "migrate", DATA_DIR=folder)
        assert migrated.returncode == 0, migrated.stderr
        assert "0001.schemas" in migrated.stdout
        seeded = run(tally, "seed", DATA_DIR=folder)
        assert seeded.returncode == 0, seeded.stderr
        service = subprocess.Popen(
            [tally, "serve"], cwd=installed, env=environment(DATA_DIR=folder, PORT=port)
        )
        try:
            until_ready(port)
            base = f"http://127.0.0.1:{port}"
            metrics = httpx.get(f"{base}/api/v1/metrics").json()["items"]
            assert metrics
            page = httpx.get(base, headers={"Accept": "text/html"})
            files = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text))
            assert any(name.endswith("/tally-live.js") for name in files)
            assert {httpx.get(f"{base}{name}").status_code for name in files} == {200}
        finally:
            service.terminate()
            service.wait(timeout=30)
        assert service.returncode == 0
