"""nginx as we deploy it, before a real node: TLS, HTTP/2, live, callers' addresses, kept links."""

import base64
import json
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from msgspec import Struct

from tests.nginx import Nginx
from tests.processes import free_port, open_folder, start, until_ready
from tests.waiting import eventually

ADD = (
    "INSERT INTO data.customers (customer_id, occupation, type)"
    " SELECT coalesce(max(customer_id), 0) + 1, 'x', 'y' FROM data.customers"
)
COUNT = "SELECT count(*) AS value FROM customers"
KEPT_S = 2.0
"""nginx counts whole seconds: what is kept for one may be served in the next."""


class Site(Struct):
    nginx: Nginx
    node: httpx.Client
    database_url: str
    log: Path

    def client(self, **arguments: object) -> httpx.Client:
        return httpx.Client(base_url=self.nginx.address, verify=self.nginx.trust, timeout=30, **arguments)

    def add(self) -> None:
        """Add a customer."""
        with psycopg.connect(self.database_url, autocommit=True) as owner:
            owner.execute(ADD)

    def metric(self) -> str:
        made = self.node.post("/metrics", json={"sql": COUNT, "dashboards": [{"id": "default"}]})
        assert made.status_code == 201, made.text
        return made.json()["id"]


@pytest.fixture(scope="module")
def site(shared_addresses) -> Generator[Site]:
    with _site(shared_addresses) as found:
        yield found


@contextmanager
def _site(addresses) -> Generator[Site]:
    port = free_port()
    with open_folder() as folder, (folder / "log").open("w") as log:
        process = start(
            log,
            DATABASE_URL=addresses.url,
            READER_DATABASE_URL=addresses.reader_url,
            DATA_DIR=folder / "data",
            PORT=port,
            TRUSTED_PROXIES="127.0.0.1/32",
            LOG_FORMAT="json",
        )
        try:
            until_ready(port)
            with Nginx(folder, [port]) as nginx, httpx.Client(base_url=f"http://127.0.0.1:{port}") as node:
                yield Site(nginx, node, addresses.url, folder / "log")
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_it_leads_to_tls_and_hides_what_is_within(site: Site):
    plain = httpx.get(f"http://127.0.0.1:{site.nginx.plain_port}/metrics?limit=1")
    assert (plain.status_code, plain.headers["location"]) == (308, "https://127.0.0.1/metrics?limit=1")
    with site.client() as client:
        assert client.get("/health/ready").status_code == 200
        assert client.get("/internal/prometheus").status_code == 404
    assert site.node.get("/internal/prometheus").status_code == 200


def test_it_offers_http_2(site: Site):
    context = site.nginx.trust
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", site.nginx.port)) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"


def test_the_node_learns_who_asks_and_believes_no_forged_address(site: Site):
    transport = httpx.HTTPTransport(local_address="127.0.0.2", verify=site.nginx.trust)
    with httpx.Client(base_url=site.nginx.address, transport=transport) as client:
        answer = client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.status_code == 200

    def logged() -> list[dict]:
        with site.log.open() as lines:
            found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line.get("request_id") == answer.headers["x-request-id"]]

    (line,) = eventually(logged)
    assert line["address"] == "127.0.0.2"


def test_events_pass_as_they_happen(site: Site):
    metric = site.metric()
    with site.client() as client, client.stream("GET", f"/metrics/{metric}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        before = value(next_result(lines))
        site.add()
        assert value(next_result(lines)) == before + 1


def next_result(lines: Iterator[str]) -> dict:
    """The next result that the stream brings."""
    return next(
        json.loads(line.removeprefix("data:"))
        for line in lines
        if line.startswith("data:") and "records" in line
    )


def value(result: dict) -> int:
    return result["records"][0]["value"]


def test_sockets_pass(site: Site):
    upgrade = (
        "GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"
    )
    with (
        socket.create_connection(("127.0.0.1", site.nginx.port), timeout=30) as connection,
        site.nginx.trust.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(upgrade.encode())
        assert secured.recv(4096).startswith(b"HTTP/1.1 101 ")


def test_a_link_is_kept_for_a_second_and_no_longer(site: Site):
    metric = site.metric()
    made = site.node.post("/dashboards/default/links", json={})
    assert made.status_code == 201, made.text
    path = httpx.URL(made.json()["url"]).path
    address = f"{path}/metrics/{metric}"
    with site.client() as client:

        def asked() -> httpx.Response:
            return client.get(address)

        def hit(**headers: str) -> httpx.Response | None:
            found = client.get(address, headers=headers)
            return found if found.headers["x-cache"] == "HIT" else None

        first = eventually(hit)
        again = eventually(lambda: hit(**{"If-None-Match": first.headers["etag"]}))
        assert (again.status_code, again.content) == (304, b"")
        site.add()
        last = time.monotonic()
        asked()
        eventually(lambda: time.monotonic() - last > KEPT_S)
        assert value(asked().json()) == value(first.json()) + 1, "nothing is kept for longer than it says"

        site.node.delete(f"/dashboards/default/links/{made.json()['id']}").raise_for_status()
        eventually(lambda: asked().status_code == 410)


def test_only_links_are_kept(site: Site):
    metric = site.metric()
    with site.client() as client:
        assert all("x-cache" not in client.get(f"/metrics/{metric}").headers for _ in range(2))


def test_files_pass_on_while_they_arrive(site: Site):
    with site.client() as client:
        answer = client.post(
            "/imports/customers",
            content=b"customer_id,occupation,type\n7,Cook,Gold\n",
            headers={"Content-Type": "text/csv"},
        )
    assert answer.status_code in {200, 201, 202}, answer.text
