"""nginx with the configuration that we deploy, on loopback."""

import re
import signal
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx

from tests.processes import ROOT, free_port
from tests.programs import program
from tests.waiting import eventually

TEMPLATE = ROOT / "deploy" / "nginx" / "tally.conf.template"
PLACE = re.compile(r"\$\{([A-Z_]+)\}")


class Nginx:
    """In front of the nodes on `ports`. Nobody but this machine trusts its certificate (`trust`)."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.folder = folder / "nginx"
        self.folder.mkdir()
        self.port, self.plain_port = free_port(), free_port()
        secrets = self.folder / "secrets"
        subprocess.run([ROOT / "deploy" / "secrets.sh", secrets], check=True, capture_output=True)
        self._certificate = secrets / "tls_certificate"
        self._filled = {
            "TALLY_NAME": "tally.example.org",
            "TALLY_CERTIFICATE": str(self._certificate),
            "TALLY_CERTIFICATE_KEY": str(secrets / "tls_key"),
            "TALLY_TLS_PORT": f"127.0.0.1:{self.port}",
            "TALLY_HTTP_PORT": f"127.0.0.1:{self.plain_port}",
            "TALLY_CACHE": str(self.folder / "cache"),
            "TALLY_TRUST": "",
        }
        self.lead_to(ports)

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._certificate)

    def lead_to(self, ports: Sequence[int]) -> None:
        """Write the configuration with these nodes; `reload` makes a running server read it."""
        servers = "".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=1s; " for port in ports)
        filled = self._filled | {"TALLY_SERVERS": servers}
        server = PLACE.sub(lambda place: filled[place[1]], TEMPLATE.read_text())
        temporary = "".join(
            f"{name}_temp_path {self.folder}/{name}; "
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {self.folder}/pid; error_log {self.folder}/log;\n"
            f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {temporary}\n{server}\n}}\n"
        )

    def command(self, *arguments: str) -> list[str]:
        own = ("-p", self.folder, "-c", self.folder / "nginx.conf", "-e", self.folder / "log")
        return [program("nginx"), *map(str, own), *arguments]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self.command(), start_new_session=True)
        eventually(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def _answers(self) -> bool:
        try:
            httpx.get(f"http://127.0.0.1:{self.plain_port}")
        except httpx.TransportError:
            return False
        return True
